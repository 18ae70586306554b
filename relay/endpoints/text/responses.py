"""/v1/responses: creates responses, also in the background; fetches, replays, cancels and deletes stored ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from django.conf import settings
from django.http.response import HttpResponseBase

from accounts.models import Change
from accounts.models.change import announce
from portal.lib.json import Json, decode_object, encode
from relay.endpoints.text.compaction import answer_trigger
from relay.endpoints.text.conversation_lookup import read_turn
from relay.endpoints.text.deletion import response_not_found
from relay.endpoints.text.response_turn import ResponseTurn
from relay.endpoints.text.turn_request import answer_turn
from relay.errors import InvalidRequest, RelayError, UnsupportedParameter, UpstreamTimeout
from relay.gateway.access.authorization import permitted_model
from relay.gateway.attempt import interrupt_error
from relay.gateway.background import BackgroundRequest, run_in_background
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.replies import Answer, EventStream
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.protocols.responses.compaction import wants_compaction
from relay.protocols.responses.objects import response_object, responses_error_event
from relay.protocols.responses.replay import events_of
from relay.storage import responses as stored_responses

logger: Final = logging.getLogger(__name__)
_VIA: Final = hops.HEADER.encode()
_POLL_SECONDS: Final = 0.5
# Between tries to write how a response in the background has ended, while the database does not answer: ten minutes.
_RETRY_SECONDS: Final = (1.0, 5.0, 30.0, *[60.0] * 10)


async def create_response(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Serve one request. Raises RelayError if no part of an answer has been sent; the record is on disk by then."""
    turn = await read_turn(exchange, caller, run)
    if wants_compaction(turn.raw_input):
        return await answer_trigger(exchange, run, turn)
    if turn.parsed.background:
        return await _start_background(exchange, run, turn)
    return await answer_turn(exchange, run, turn)


# -- in the background -----------------------------------------------------------------------------------------------


async def _start_background(exchange: Exchange, run: Runtime, turn: ResponseTurn) -> HttpResponseBase:
    """Answer with a queued response, and start making it. Raises RelayError."""
    request, caller = turn.parsed, turn.caller
    if request.stream:
        raise UnsupportedParameter(
            "A response is made in the background or streamed, not both at once: leave “stream” or “background” out.",
            param="background",
        )
    if turn.lifetime is None:
        raise UnsupportedParameter(
            "This portal keeps no responses, so that none can be made in the background. Leave “background” out.",
            param="background",
        )
    permitted_model(caller, snapshot_cache.snapshot, request.model, exchange.wall)
    turn.in_background = True
    queued = response_object(
        turn.members, {**turn.ids, **turn.overridden_members(False)}, request.model, [], None, ("queued", "")
    )
    background = BackgroundRequest(caller, request.body)
    background.request_id = (
        exchange.request_id
    )  # the id that the client is told; this exchange has no record of its own
    background.headers = {name: exchange.headers[name] for name in (_VIA,) if name in exchange.headers}
    background.pinned, background.ip, background.client = exchange.pinned, exchange.ip, exchange.client
    own = stored_responses.with_ids(turn.raw_input, background.request_id.removeprefix("req_"))
    try:
        background.hold_body(exchange)  # it stays in memory when this request has been answered
        await snapshot_cache.in_thread(
            stored_responses.create_queued,
            caller.user_id,
            queued,
            own,
            background.request_id,
            run.reservations.owner,
            request.previous_id,
            request.conversation_id,
            turn.lifetime,
        )
    except BaseException:
        run.watchdog.remove(background)
        raise
    run.watchdog.work(_run(run, background, turn))
    return Answer(encode(queued))


async def _run(run: Runtime, background: BackgroundRequest, turn: ResponseTurn) -> None:
    user, response_id, what = turn.caller.user_id, turn.id, "POST /v1/responses (background)"
    message, code = "The answer could not be stored. Send the request again.", "server_error"
    try:
        if not await snapshot_cache.in_thread(stored_responses.set_running, user, response_id):
            return  # it was cancelled or deleted before it began
        status, _, error = await run_in_background(run, background, partial(answer_turn, run=run, turn=turn))
        if error is not None:
            run.refusals.add(background, error, what)
            message, code = error.message, error.public_code or code
        elif status != 200:
            message = "The upstream did not answer this request. Send it again."
    except RelayError as error:
        message = error.message
    except asyncio.CancelledError:  # the portal stops, and has waited for it
        message = interrupt_error(Interrupt.STOPPING).message
    except Exception:
        logger.exception("a response could not be made in the background")
        message = "The portal failed on this request. Try again."
    finally:
        run.watchdog.remove(background)  # it may not have begun
    del background, turn  # what was counted for them is not kept while the database is away
    # An answer is written with its charge, and its row has ended then.
    for pause in _RETRY_SECONDS:
        try:
            await snapshot_cache.in_thread(stored_responses.fail_response, user, response_id, message, code)
            return
        except RelayError:
            await asyncio.sleep(pause)
    logger.error(
        "the state of the response %s could not be written; it counts as failed when this worker is gone",
        response_id,
    )


async def cancel_response(caller: Caller, response_id: str) -> Json:
    """Cancel a background response, on any worker. Raises ObjectNotFound, InvalidRequest."""
    row = await snapshot_cache.in_thread(stored_responses.find_response, caller.user_id, response_id)
    if row is None:
        raise response_not_found(response_id)
    if row.status in stored_responses.RUNNING:
        await snapshot_cache.in_thread(_cancel, row.pk, row.request_id)
    elif not (decode_object(row.body) or {}).get("background"):
        raise InvalidRequest(
            "Only responses that are made in the background can be cancelled. To end a stream, close its connection.",
            param="response_id",
        )
    return await fetch_response(caller, response_id)


def _cancel(pk: int, request_id: str) -> None:
    stored_responses.cancel_response(pk)
    announce(Change.CANCEL, [request_id])


# -- stored responses ------------------------------------------------------------------------------------------------


async def fetch_response(caller: Caller, response_id: str) -> Json:
    """The object of a stored response. Raises ObjectNotFound, RelayUnavailable."""
    body = await snapshot_cache.in_thread(_shown, caller.user_id, response_id)
    if body is None:
        raise response_not_found(response_id)
    return decode_object(body) or {}


def _shown(user_id: int, response_id: str) -> str | None:
    row = stored_responses.find_response(user_id, response_id)
    return stored_responses.response_body(row) if row is not None else None


async def replay_response(exchange: Exchange, caller: Caller, response_id: str, after: int) -> EventStream:
    """Stream the events of a stored response from number `after` + 1, and wait for its end. Raises ObjectNotFound."""
    first = await fetch_response(caller, response_id)
    config = settings.CONFIG

    async def bodies() -> AsyncIterator[Json]:
        yield first
        while time.monotonic() - exchange.started < config.total_timeout:
            await asyncio.sleep(_POLL_SECONDS)
            yield await fetch_response(caller, response_id)
        raise UpstreamTimeout("The response has not ended in the time that a request may take. Ask for it again.")

    async def pump() -> None:
        sent, told = after + 1, time.monotonic()
        try:
            async for response in bodies():
                over = response.get("status") not in stored_responses.RUNNING
                events = events_of(response)
                new = events[sent:]
                if over:
                    await exchange.write_last(b"".join(new))
                    return
                if new:
                    sent = len(events)
                    await exchange.write(b"".join(new))
                elif config.keepalive_seconds and time.monotonic() - told >= config.keepalive_seconds:
                    await exchange.keep_alive()
                else:
                    continue
                told = time.monotonic()
        except RelayError as error:  # it is gone, or the database does not answer
            await exchange.write_last(responses_error_event(sent, error.message, error.public_code, error.param))

    return EventStream(pump)


async def fetch_input_items(caller: Caller, response_id: str) -> list[Json]:
    """The input items of a stored response. Raises ObjectNotFound, RelayUnavailable."""
    row = await snapshot_cache.in_thread(stored_responses.find_response, caller.user_id, response_id)
    if row is None:
        raise response_not_found(response_id)
    return stored_responses.input_of(row)
