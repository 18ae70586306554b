"""The calls (WebRTC) that run: this worker meters those that it made, and ends those whose worker is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import cache, partial
from typing import Final

from portal.lib import clock
from portal.lib.processes import new_owner
from relay.endpoints.realtime.call_session import CallSession
from relay.endpoints.realtime.call_upstream import CallConnection, check_call_channel, hang_up_call, join_call
from relay.endpoints.realtime.connection import ENDPOINT, Handshake
from relay.endpoints.realtime.models import SessionModels
from relay.endpoints.realtime.responses import RealtimeResponses
from relay.endpoints.served import Begun, Served, candidate_of, serving, settling_attempt
from relay.errors import Forbidden, ObjectNotFound, RelayError, RelayUnavailable, Stopping, UpstreamFailed
from relay.gateway.access.authorization import check_purpose, permitted_model
from relay.gateway.exchange.interrupts import Ended
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import SHUTDOWN
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate
from relay.models import RealtimeCall
from relay.protocols.naming.sessions import NO_IDS
from relay.providers.classify import Failure
from relay.storage.realtime import calls as stored_calls

logger: Final = logging.getLogger(__name__)
_RENEW_SECONDS: Final = 1.0  # between renewals of the leases, with what has been counted
_LOOK_SECONDS: Final = 3.0  # between searches for calls whose worker is gone
_AGAIN_SECONDS: Final = 30.0  # until the next try to hang up a call
_sessions: dict[str, CallSession] = {}  # by the id of the call


@cache
def owner() -> str:
    """The name of this worker as the owner of calls."""
    return new_owner()


async def find_call(caller: Caller, call_id: str) -> RealtimeCall:
    """A running call of the caller's user. Raises ObjectNotFound, RelayUnavailable."""
    call = await snapshot_cache.in_thread(stored_calls.find, caller.user_id, call_id)
    if call is None:
        raise ObjectNotFound(
            f"There is no running call “{call_id[:64]}” of your account. Its id is at the end of the header Location "
            "with which POST /v1/realtime/calls answered.",
            param="call_id",
        )
    return call


async def joined_call(caller: Caller, call_id: str, now: float) -> tuple[RealtimeCall, Candidate]:
    """A running call of the caller's user that it may join, and what serves it.

    Raises ObjectNotFound, ModelNotFound, Forbidden, UpstreamFailed, RelayUnavailable.
    """
    call = await find_call(caller, call_id)
    permitted_model(caller, snapshot_cache.snapshot, call.model, now)
    found = candidate_of(_begun(call))
    if found is None:
        raise UpstreamFailed("The channel of this call is not in service any more. Make another call.")
    return call, found[1]


async def hang_up_own_call(caller: Caller, run: Runtime, call_id: str) -> None:
    """Hang up a call of the caller's user. Raises Forbidden, ObjectNotFound, UpstreamFailed, RelayUnavailable."""
    check_purpose(caller, ENDPOINT)
    call = await find_call(caller, call_id)
    if caller.token_id != call.token_id and caller.models is not None:  # its own it may end whatever has changed
        model = snapshot_cache.snapshot.models.get(call.model)
        if model is None or model.id not in caller.models:
            raise Forbidden(
                f"Your token is limited to other models than “{call.model}”, with which this call was made. Hang it up "
                "with the token that made it, or with one for all models.",
                param="call_id",
            )
    served = await _serving(call)
    if served is None or not served.reachable:
        raise UpstreamFailed(
            "The portal cannot reach the upstream of this call any more. Close your own connection to end the call."
        )
    if not await hang_up_call(run, served.candidate, call.upstream_id, call.model):
        raise UpstreamFailed("The upstream could not hang up the call. Try again.")


def _begun(call: RealtimeCall) -> Begun:
    return Begun(call.model, call.channel_id, call.key_id)


async def _serving(call: RealtimeCall) -> Served | None:
    """What serves a call, also when it has gone out of service meanwhile. None: its channel is gone."""
    session = _sessions.get(call.call_id)
    if session is not None:
        return Served(session.candidate, snapshot_cache.snapshot.models.get(call.model))
    return await serving(_begun(call))


# -- those of this worker ----------------------------------------------------------------------------------------------


def begin(run: Runtime, session: CallSession) -> None:
    """Meter a call of this worker until it ends."""
    _sessions[session.call_id] = session
    run.watchdog.work(_meter(run, session))


async def _meter(run: Runtime, session: CallSession) -> None:
    over = False
    try:
        over = await session.meter()
    except Exception:
        logger.exception("a realtime call broke", extra={"request_id": session.exchange.request_id})
    finally:
        _sessions.pop(session.call_id, None)
        run.watchdog.remove(session.exchange)
        if not session.lost:
            await forget(session.call_id, over)


async def forget(call_id: str, over: bool) -> None:
    """A call has ended here, and has been charged: it is deleted when it is over, or hung up again later."""
    try:
        if over:
            await snapshot_cache.in_thread(stored_calls.delete, call_id)
        else:
            await snapshot_cache.in_thread(stored_calls.settled, call_id, owner())
            await snapshot_cache.in_thread(stored_calls.put_back, call_id, owner(), _AGAIN_SECONDS)
    except RelayUnavailable:
        pass  # logged; its lease runs out


async def keep_calls(run: Runtime) -> None:
    """Renew the leases of this worker's calls, and end those whose worker is gone: the task of every worker."""
    look_at, settling = 0.0, set[asyncio.Task[None]]()
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        try:
            await _renew()
            now = asyncio.get_running_loop().time()
            if now >= look_at and not run.stopping:
                look_at = now + _LOOK_SECONDS
                for call in await snapshot_cache.in_thread(stored_calls.claim, owner()):
                    task = asyncio.ensure_future(_end_orphan(run, call))
                    settling.add(task)
                    task.add_done_callback(settling.discard)
        except RelayUnavailable:
            pass  # logged; the leases last longer than a short failure
        except Exception:
            logger.exception("realtime calls could not be looked after; the next round tries again")


async def _renew() -> None:
    if not _sessions:
        return
    standings = {call_id: session.standing() for call_id, session in _sessions.items()}
    changed = {name: one if one != _sessions[name].stored else None for name, one in standings.items()}
    kept = await snapshot_cache.in_thread(stored_calls.renew, owner(), changed)
    for call_id in standings.keys() & _sessions.keys():
        _sessions[call_id].stored = standings[call_id]
    for call_id in standings.keys() - kept:
        session = _sessions.get(call_id)
        if session is not None:  # otherwise it has ended meanwhile
            session.lost = True
            session.give_up(RelayUnavailable("The portal lost its hold on this call. Call again."))


# -- those whose worker is gone ----------------------------------------------------------------------------------------


async def _end_orphan(run: Runtime, call: RealtimeCall) -> None:
    """Charge what a call was making when its worker ended, and hang it up."""
    over = clock.now() >= call.ends_at
    try:
        served = await _serving(call)
        caller = await snapshot_cache.caller(call.token_digest)
        running = await snapshot_cache.in_thread(stored_calls.unrecorded, call) if call.running else []
        if served is not None and served.model is not None and caller is not None and running:
            await _settle(run, call, running, caller, served)
            # Hanging up may take longer than the lease lasts then.
            await snapshot_cache.in_thread(stored_calls.settled, call.call_id, owner())
        if served is not None and served.reachable:
            over = await hang_up_call(run, served.candidate, call.upstream_id, call.model) or over
            logger.warning("the realtime call %s was ended, since the worker that metered it is gone", call.call_id)
        else:
            logger.error("the realtime call %s cannot be hung up: its channel or key is gone", call.call_id)
            over = True
    except RelayUnavailable:
        pass  # logged
    except Exception:
        logger.exception("the realtime call %s could not be settled", call.call_id)
    await forget(call.call_id, over)


async def _settle(run: Runtime, call: RealtimeCall, ids: Sequence[str], caller: Caller, served: Served) -> None:
    """Read the usage of the responses that were running, or charge them by what had been counted. Raises RelayError."""
    model, candidate = served.model, served.candidate
    assert model is not None  # noqa: S101  # `_end_orphan` has looked
    exchange = Handshake({"headers": []}, "")
    exchange.client.ids = NO_IDS  # which session its call belonged to is not known any more
    exchange.caller, exchange.task = caller, asyncio.current_task()
    error = Stopping("The worker of the portal that metered this call ended. Call again.")
    run.watchdog.add(exchange)
    try:
        request = GatewayRequest(ENDPOINT, model.name, partial(check_call_channel, run), stream=True, output_limit=None)
        attempt = await settling_attempt(run, exchange, model, candidate, request)
        running = ids, call.input_tokens, float(call.output_tokens)
        try:
            if not served.reachable:
                raise UpstreamFailed("The upstream of this call cannot be reached any more.")
            socket, first = await join_call(exchange, run, attempt, call.upstream_id)
        except (Failure, Ended, RelayError):
            models = SessionModels(caller, model.name, candidate)
            responses = RealtimeResponses(exchange, caller, run, attempt, models)
            await responses.resume(*running)
            responses.close(SHUTDOWN, error)
            return
        session = CallSession(exchange, run, CallConnection(socket, attempt, first, call.upstream_id), call.call_id)
        await session.responses.resume(*running)
        session.give_up(error)
        await session.relay_to_client()
    finally:
        run.watchdog.remove(exchange)
