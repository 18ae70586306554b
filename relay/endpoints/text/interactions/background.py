"""Interactions in the background: begun at an upstream that makes them, which is asked how far each has come.

The client is answered when the upstream has accepted the request, so that what it refuses is an error at once. The
interaction is then a row, from which every worker tells how far it has come.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.json import Json, decode_object, encode
from relay.endpoints.error_shapes import INTERACTIONS_ERRORS
from relay.endpoints.text.deletion import delete_upstream
from relay.endpoints.text.endpoint import ask_amended, open_text
from relay.endpoints.text.interactions.stored import replay
from relay.endpoints.text.interactions.turn import InteractionTurn, OpenedInteraction
from relay.endpoints.text.interactions.upstream import API, ask_upstream, cancel_upstream
from relay.errors import RelayError, RelayUnavailable, UpstreamTruncated
from relay.gateway.attempt import Attempt, interrupt_error
from relay.gateway.background import BackgroundRequest, run_in_background
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import Outcome, end_reason
from relay.gateway.pipeline import serve
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.cache import snapshot_cache
from relay.protocols.characters import read_for_storage
from relay.protocols.interactions.objects import InteractionAnswer, parse_interaction, with_members
from relay.protocols.usage import Delivered
from relay.storage.apis import interactions
from relay.storage.responses import StoredTurn, is_upstream_id

T = TypeVar("T")
logger: Final = logging.getLogger(__name__)
_VIA: Final = hops.HEADER.encode()
_LOOK_SECONDS: Final = 0.25  # between looks whether an interaction was cancelled
_FIRST_POLL: Final = 0.5  # seconds between questions to the upstream, at first and at most
_LAST_POLL: Final = 10.0
_SLOWER: Final = 0.1  # of the time that it has run already
_SILENT_SECONDS: Final = 300.0  # without a usable answer, after which an interaction is given up
_STOP_SECONDS: Final = 1.5  # that its end is waited for there when it is given up
_GONE_ANSWERS: Final = 3  # that the upstream has no such interaction
# Between tries to write that one has failed, while the database does not answer: ten minutes.
_RETRY_SECONDS: Final = (1.0, 5.0, 30.0, *[60.0] * 10)
_LOST: Final = "The connection to the upstream of this interaction was lost. Send the request again."


@dataclass(slots=True)
class _Work:
    """An interaction in the background, and what its client waits for."""

    turn: InteractionTurn
    background: BackgroundRequest
    accepted: asyncio.Future[Json] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


async def start_background(
    exchange: Exchange, run: Runtime, turn: InteractionTurn, request: GatewayRequest
) -> HttpResponseBase:
    """Begin an interaction; answers with it once the upstream has accepted it, or its events. Raises RelayError."""
    background = BackgroundRequest(turn.caller, turn.parsed.body)
    background.request_id, background.error_shape = exchange.request_id, INTERACTIONS_ERRORS
    background.headers = {name: exchange.headers[name] for name in (_VIA,) if name in exchange.headers}
    background.pinned, background.ip, background.client = exchange.pinned, exchange.ip, exchange.client
    work = _Work(turn, background)
    try:
        background.hold_body(exchange)  # it stays in memory when this request has been answered
    except BaseException:
        run.watchdog.remove(background)
        raise
    run.watchdog.work(_run(run, work, request))
    try:
        interaction = await asyncio.shield(work.accepted)
    except RelayError:
        exchange.recorded = exchange.recorded or background.recorded
        raise
    finally:
        exchange.reply_headers += background.reply_headers
    if turn.parsed.stream:
        return await replay(exchange, turn.caller, turn.id)
    return Answer(encode(interaction))


async def _run(run: Runtime, work: _Work, request: GatewayRequest) -> None:
    turn, background = work.turn, work.background
    user, name = turn.caller.user_id, turn.id
    failure: RelayError = RelayUnavailable("The interaction could not be stored. Send the request again.")
    try:
        _, _, error = await run_in_background(run, background, partial(_serve, run, work, request))
        failure = error or failure
    except RelayError as error:
        failure = error
    except asyncio.CancelledError:  # the portal stops, and has waited for it
        failure = interrupt_error(Interrupt.STOPPING)
    except Exception:
        logger.exception("an interaction could not be made in the background")
    finally:
        run.watchdog.remove(background)  # it may not have begun
        begun = work.accepted.done()
        if not begun:
            work.accepted.set_exception(failure)
            work.accepted.exception()  # its client may have left
    if not begun:
        return
    del background, turn, work  # what was counted for them is not kept while the database is away
    # One that has ended is written with its charge, and its row has ended then.
    message, code = failure.message, failure.public_code or "internal"
    for pause in _RETRY_SECONDS:
        try:
            await snapshot_cache.in_thread(interactions.fail, user, name, message, code)
            return
        except RelayError:
            await asyncio.sleep(pause)
    logger.error("the state of the interaction %s could not be written; it counts as failed with its worker", name)


async def _serve(run: Runtime, work: _Work, request: GatewayRequest, exchange: Exchange) -> HttpResponseBase:
    return await serve(exchange, work.turn.caller, run, request, partial(_try_background, work))


async def _try_background(work: _Work, attempt: Attempt) -> HttpResponseBase:
    """Begin the interaction at one channel, and follow it to its end.

    Raises Failure, Ended, CancelledError; RelayUnavailable when it cannot be recorded.
    """

    async def ask() -> HttpResponseBase:
        opened = await open_text(work.turn, attempt)
        assert isinstance(opened, OpenedInteraction)  # noqa: S101  # no other API has interactions
        text, answer = await opened.read()
        if answer.running and not is_upstream_id(answer.id):
            raise attempt.unreadable_answer(text, "an interaction that can be asked for")
        attempt.answered()
        attempt.add_headers()
        try:
            await _accept(work, attempt, text, answer)
            if answer.running:
                text, answer = await _follow(work, attempt, answer.id)
        except BaseException as reason:
            if answer.running:
                await _end_at_upstream(work, attempt, answer.id)
            if isinstance(reason, UpstreamTruncated):  # it may have been made all the same
                outcome = Outcome(end_reason(reason), reason.http_status, error=reason, at_work=True)
                attempt.record.submit(outcome, wait=False)
            raise
        return await _finish(work, attempt, text, answer)

    return await ask_amended(work.turn, attempt, ask)


async def _end_at_upstream(work: _Work, attempt: Attempt, upstream_id: str) -> None:
    """Cancel the interaction at its upstream; also when the portal stops, which does not wait for long."""
    cancelling = asyncio.ensure_future(cancel_upstream(attempt, upstream_id, work.turn.headers))
    attempt.run.watchdog.keep(cancelling)
    await asyncio.wait((cancelling,), timeout=_STOP_SECONDS)


async def _accept(work: _Work, attempt: Attempt, text: bytes, answer: InteractionAnswer) -> None:
    """Store the interaction as one that runs, and let its client be answered. Raises RelayUnavailable."""
    turn, (channel, key) = work.turn, attempt.candidate.pair
    interaction = read_for_storage(with_members(text, turn.own_members)) or {}
    accepted = interactions.Accepted(
        turn.caller.user_id,
        turn.id,
        attempt.exchange.request_id,
        turn.parsed.model,
        channel,
        key,
        answer.id,
        turn.parsed.previous_id,
        turn.caller.token_id,
        attempt.run.reservations.owner,
        turn.lifetime or timedelta(),
    )
    await snapshot_cache.in_thread(interactions.create_accepted, accepted, interaction, turn.parsed.input)
    if answer.running and not work.accepted.done():
        work.accepted.set_result(interaction)


async def _follow(work: _Work, attempt: Attempt, upstream_id: str) -> tuple[bytes, InteractionAnswer]:
    """Ask the upstream until the interaction has ended. Raises Ended, CancelledError, RelayError."""
    exchange, user, name = attempt.exchange, work.turn.caller.user_id, work.turn.id
    began = heard = time.monotonic()
    exchange.total_at = began + limits.INTERACTION_SECONDS
    gone, stored, cancelled = 0, b"", False
    while True:
        await _pause(exchange, min(_LAST_POLL, max(_FIRST_POLL, (time.monotonic() - began) * _SLOWER)), cancelled)
        if cancel := exchange.left and not cancelled:
            cancelled = True
        status, text = await _wait(exchange, partial(ask_upstream, attempt, upstream_id, work.turn.headers, cancel))
        answer = parse_interaction(text) if status == 200 else None
        gone = gone + 1 if status in {404, 410} else 0
        if answer is None or not answer.status:
            if gone >= _GONE_ANSWERS or time.monotonic() - heard > _SILENT_SECONDS:
                raise UpstreamTruncated(_LOST)
            continue
        heard = time.monotonic()
        if not answer.running:
            return text, answer
        shown = with_members(text, work.turn.own_members)
        if shown != stored:
            wanted = await snapshot_cache.in_thread(interactions.update_running, user, name, shown.decode())
            stored = shown
            if not wanted and not exchange.left:  # it was deleted
                attempt.run.watchdog.dismiss(exchange, Interrupt.CANCELLED)


async def _pause(exchange: Exchange, seconds: float, cancelled: bool) -> None:
    """Wait before the next question, or until the interaction is cancelled. Raises Ended, CancelledError."""
    until = time.monotonic() + (_FIRST_POLL if cancelled else seconds)
    while (left := until - time.monotonic()) > 0 and (cancelled or not exchange.left):
        await _wait(exchange, partial(asyncio.sleep, min(left, _LOOK_SECONDS)))
    if exchange.must_end is not None:
        exchange.check_end()


async def _wait(exchange: Exchange, work: Callable[[], Awaitable[T]]) -> T:
    """Do something that may be interrupted. Raises Ended, CancelledError."""
    exchange.begin_wait(Interrupt.IDLE, 2 * limits.INTERACTION_SECONDS)
    try:
        return await work()
    except asyncio.CancelledError as cancelled:
        raise exchange.explain(cancelled) from None
    finally:
        exchange.waiting = None


async def _finish(work: _Work, attempt: Attempt, text: bytes, answer: InteractionAnswer) -> HttpResponseBase:
    """Record an interaction that has ended. Raises RelayUnavailable."""
    turn, exchange = work.turn, attempt.exchange
    shown = with_members(text, turn.own_members)
    rows = turn.rows(attempt, read_for_storage(shown) or {}, (), answer.id)
    delivered = Delivered.by(shown)
    if answer.error is None:
        await attempt.finish(shown, answer.usage, delivered, rows)
    else:
        attempt.told_failure(answer.error)
        error, detail = attempt.stream_error(answer.error)
        outcome = Outcome(end_reason(error), 200, answer.usage, error, detail, delivered)
        await exchange.committed(attempt.record.submit(outcome, rows))
    if exchange.ended_by is Interrupt.CANCELLED:  # its row stays, unless it was deleted
        user, name = turn.caller.user_id, turn.id
        if not await snapshot_cache.in_thread(interactions.store_cancelled, user, name, shown.decode()):
            (channel, key), now = attempt.candidate.pair, time.time()
            gone = StoredTurn(name, channel, key, answer.id, False, now, 0)
            attempt.run.watchdog.work(delete_upstream(attempt.run, gone, API))
    if not work.accepted.done():
        work.accepted.set_result(decode_object(shown) or {})
    return Answer(shown)
