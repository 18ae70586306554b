"""Interactions in the background whose worker ended before they did: ended at their upstream, and charged."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from portal.lib.json import Json, decode, decode_object, encode
from relay.endpoints.served import Begun, Served, serving, settling_attempt
from relay.endpoints.text.deletion import delete_upstream
from relay.endpoints.text.interactions.create import gateway_request
from relay.endpoints.text.interactions.turn import InteractionTurn
from relay.endpoints.text.interactions.upstream import API, ask_upstream
from relay.errors import RelayError, RelayUnavailable, Stopping
from relay.gateway.attempt import Attempt
from relay.gateway.background import BackgroundRequest
from relay.gateway.outcome import COMPLETED, SHUTDOWN, Outcome, end_reason
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.load import caller_from_token
from relay.models import StoredResponse
from relay.protocols.characters import read_for_storage
from relay.protocols.fields import BadRequest
from relay.protocols.interactions.objects import InteractionAnswer, parse_interaction, with_members
from relay.protocols.interactions.request import parse_interaction_request
from relay.protocols.naming.sessions import NO_IDS
from relay.protocols.usage import Delivered
from relay.storage.apis import interactions
from relay.storage.responses import StoredTurn

logger: Final = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 3.0  # between searches for interactions whose worker is gone
_POLL_SECONDS: Final = 0.5  # between questions whether one has ended that was cancelled
_POLLS: Final = 20
_KNOWN: Final = 200  # the status of an answer that says how far one has come
_MESSAGE: Final = "The portal was stopped while it made this interaction. Send the request again."


async def keep_interactions(run: Runtime) -> None:
    """Settle interactions whose worker is gone: the task of every worker."""
    settling = set[asyncio.Task[None]]()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if run.stopping:
            continue
        try:
            for row in await snapshot_cache.in_thread(interactions.claim_interrupted, run.reservations.owner):
                task = asyncio.ensure_future(_settle(run, row))
                settling.add(task)
                task.add_done_callback(settling.discard)
        except RelayUnavailable:
            pass  # logged; the next round finds them
        except Exception:
            logger.exception("interrupted interactions could not be looked for; the next round tries again")


async def _settle(run: Runtime, row: StoredResponse) -> None:
    owner, again = run.reservations.owner, False
    try:
        token = await snapshot_cache.in_thread(interactions.payer_of, row)
        charged = await snapshot_cache.in_thread(interactions.is_recorded, row)
        served = await serving(Begun(row.model, row.channel_id or 0, row.api_key_id or 0))
        caller = await snapshot_cache.in_thread(caller_from_token, token) if token is not None else None
        if served is None or served.model is None or caller is None:
            logger.error("the interaction %s cannot be settled: its channel, model or token is gone", row.response_id)
        elif not charged:
            await _end(run, row, caller, served)
            logger.warning("the interaction %s was settled, since its worker is gone", row.response_id)
    except RelayUnavailable:
        again = True  # logged
    except Exception:  # such as of a model without a price any more; it would be so the next time
        logger.exception("the interaction %s could not be settled, and is not charged", row.response_id)
    try:
        if again:
            await snapshot_cache.in_thread(interactions.put_back, row, owner)
        else:
            await snapshot_cache.in_thread(interactions.fail, row.user_id, row.response_id, _MESSAGE, "internal")
    except RelayUnavailable:
        logger.error("the interaction %s is settled when this worker is gone", row.response_id)


async def _end(run: Runtime, row: StoredResponse, caller: Caller, served: Served) -> None:
    """Read how an interaction ended, or end it, and charge what it used. Raises RelayError."""
    assert served.model is not None  # noqa: S101  # `_settle` has looked
    turn = _turn_of(row, caller)
    exchange = BackgroundRequest(caller, turn.parsed.body)
    exchange.request_id, exchange.wall = row.request_id, row.created_at.timestamp()
    exchange.client.ids, exchange.task = NO_IDS, asyncio.current_task()
    run.watchdog.add(exchange)
    try:
        attempt = await settling_attempt(run, exchange, served.model, served.candidate, gateway_request(run, turn))
        record = attempt.record
        record.sent = True
        record.end_attempt(attempt.candidate, attempt.began)
        text, answer, own_end = await _end_there(attempt, row.upstream_id) if served.reachable else (b"", None, False)
        shown = with_members(text if answer is not None else row.body.encode(), turn.own_members)
        usage, delivered = answer.usage if answer is not None else None, Delivered.by(shown)
        error: RelayError | None = None
        if not own_end:
            error = Stopping(_MESSAGE)
            outcome = Outcome(SHUTDOWN, 200, usage, error, delivered=delivered, at_work=True)
        elif answer is not None and answer.error is not None:
            error, detail = attempt.stream_error(answer.error)
            outcome = Outcome(end_reason(error), 200, usage, error, detail, delivered)
        else:
            outcome = Outcome(COMPLETED, 200, usage, delivered=delivered)
        interaction = _ended(row, read_for_storage(shown) or {}, own_end)
        await exchange.committed(record.submit(outcome, turn.rows(attempt, interaction, (), row.upstream_id)))
        if not await snapshot_cache.in_thread(interactions.exists, row):
            gone = StoredTurn(row.response_id, row.channel_id, row.api_key_id, row.upstream_id, False, exchange.wall, 0)
            await delete_upstream(run, gone, API)
    finally:
        run.watchdog.remove(exchange)


def _turn_of(row: StoredResponse, caller: Caller) -> InteractionTurn:
    """The request of an interaction, as far as it is stored."""
    kind = "agent" if "agent" in (decode_object(row.body) or {}) else "model"
    asked: Json = {kind: row.model, "input": decode(row.input or '""'), "background": True}
    if row.previous_id:
        asked["previous_interaction_id"] = row.previous_id
    try:
        parsed = parse_interaction_request(encode(asked))
    except BadRequest:  # by rules that are newer than it
        parsed = parse_interaction_request(encode({**asked, "input": row.input}))
    lifetime = max(row.expires_at - row.created_at, timedelta(seconds=1))
    return InteractionTurn(parsed, caller, row.response_id, lifetime=lifetime, in_background=True)


def _ended(row: StoredResponse, interaction: Json, own_end: bool) -> Json:
    """The interaction as it is stored: as its upstream ended it, or as one that the portal broke off."""
    if row.status == "cancelled":
        return {**interaction, "status": "cancelled"}
    if own_end:
        return interaction
    return {**interaction, "status": "failed", "errors": [{"code": "internal", "message": _MESSAGE}]}


async def _end_there(attempt: Attempt, upstream_id: str) -> tuple[bytes, InteractionAnswer | None, bool]:
    """The interaction as it has ended at its upstream, None: it does not say. It is cancelled there if it runs.

    The last value: it had ended by itself.
    """
    status, text = await ask_upstream(attempt, upstream_id, {})
    answer = parse_interaction(text) if status == _KNOWN else None
    if answer is not None and answer.status and not answer.running:
        return text, answer, True
    for number in range(_POLLS):
        if number:
            await asyncio.sleep(_POLL_SECONDS)
        status, said = await ask_upstream(attempt, upstream_id, {}, cancel=not number)
        found = parse_interaction(said) if status == _KNOWN else None
        if found is not None and found.status:
            text, answer = said, found
            if not found.running:
                break
        elif number and status in {404, 410}:
            break
    known = answer is not None and bool(answer.status)
    return (text, answer, False) if known else (b"", None, False)
