"""Interactions that are stored: fetched, streamed from any event, cancelled and deleted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from django.conf import settings

from accounts.models import Change
from accounts.models.change import announce
from portal.lib.json import Json
from relay.endpoints.text.deletion import delete_stored
from relay.endpoints.text.interactions.upstream import API
from relay.errors import InvalidRequest, ObjectNotFound, RelayError, RelayUnavailable, UpstreamTimeout
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.replies import EventStream
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import StoredResponse
from relay.protocols.interactions.errors import stream_error
from relay.protocols.interactions.events import DONE, LoggedEvent, events_of, logged
from relay.protocols.interactions.objects import RUNNING
from relay.storage import responses as stored_responses
from relay.storage.apis import interactions

_POLL_SECONDS: Final = 0.5
_SETTLED_SECONDS: Final = 5.0  # in which an interaction is settled whose worker ended


def _not_found(interaction_id: str) -> ObjectNotFound:
    return ObjectNotFound(
        f"There is no interaction “{interaction_id[:80]}” of your account, or it is no longer kept.", param="id"
    )


async def _read(caller: Caller, interaction_id: str) -> tuple[Json, bytes, object]:
    found = await snapshot_cache.in_thread(interactions.shown, caller.user_id, interaction_id)
    if found is None:
        raise _not_found(interaction_id)
    return found


async def fetch_interaction(caller: Caller, interaction_id: str, with_input: bool = False) -> Json:
    """A stored interaction. Raises ObjectNotFound, RelayUnavailable."""
    body, _, given = await _read(caller, interaction_id)
    return {**body, "input": given} if with_input and given is not None else body


async def replay(exchange: Exchange, caller: Caller, interaction_id: str, after: str = "") -> EventStream:
    """Stream the events of a stored interaction to its end, those behind the event `after`, or all.

    Raises ObjectNotFound, InvalidRequest, RelayUnavailable.
    """
    events, over = await _events(caller, interaction_id)
    sent = _place(events, after) if after else 0
    config = settings.CONFIG

    async def states() -> AsyncIterator[tuple[list[LoggedEvent], bool]]:
        yield events, over
        while time.monotonic() - exchange.started < config.total_timeout:
            await asyncio.sleep(_POLL_SECONDS)
            yield await _events(caller, interaction_id)
        raise UpstreamTimeout("The interaction has not ended in the time that a request may take. Ask for it again.")

    async def pump() -> None:
        number, told = sent, time.monotonic()
        try:
            async for found, ended in states():
                new = b"".join(one.event for one in found[number:])
                if ended:
                    await exchange.write_last(new + DONE)
                    return
                if new:
                    number = len(found)
                    await exchange.write(new)
                elif config.keepalive_seconds and time.monotonic() - told >= config.keepalive_seconds:
                    await exchange.keep_alive()
                else:
                    continue
                told = time.monotonic()
        except RelayError as error:  # it is gone, or the database does not answer
            await exchange.write_last(stream_error(error.message, error.public_type, error.public_code, error.param))

    return EventStream(pump)


async def _events(caller: Caller, interaction_id: str) -> tuple[list[LoggedEvent], bool]:
    """The events that can be told, and whether these are all."""
    body, log, _ = await _read(caller, interaction_id)
    return logged(log) or events_of(body), body.get("status") not in RUNNING


def _place(events: list[LoggedEvent], after: str) -> int:
    """How many events a client has that knows the event `after`. Raises InvalidRequest."""
    for number, event in enumerate(events):
        if event.id == after:
            return number + 1
    raise InvalidRequest(
        f"There is no event “{after[:80]}” of this interaction. Leave “last_event_id” out to have all of them.",
        param="last_event_id",
    )


async def cancel_interaction(caller: Caller, interaction_id: str) -> Json:
    """Cancel an interaction in the background, on any worker. Raises ObjectNotFound, InvalidRequest."""
    row = await snapshot_cache.in_thread(interactions.find_interaction, caller.user_id, interaction_id)
    if row is None:
        raise _not_found(interaction_id)
    if row.status in stored_responses.RUNNING:
        await snapshot_cache.in_thread(_cancel, row)
    elif row.status != "cancelled":
        raise InvalidRequest(
            "This interaction has ended, or was never in the background. To end a stream, close its connection.",
            code="failed_precondition",
            param="id",
        )
    return await fetch_interaction(caller, interaction_id)


def _cancel(row: StoredResponse) -> None:
    stored_responses.cancel_response(row.pk)
    announce(Change.CANCEL, [row.request_id])


async def delete_interaction(run: Runtime, caller: Caller, interaction_id: str) -> Json:
    """Delete an interaction, here and at its upstream; one that runs is cancelled.

    Raises ObjectNotFound, RelayUnavailable.
    """
    user = caller.user_id
    row = await snapshot_cache.in_thread(interactions.find_interaction, user, interaction_id)
    if row is not None and interactions.is_interrupted(row):
        raise RelayUnavailable(
            "The worker of the portal that followed this interaction ended, and another one ends it. Try again in a "
            "moment.",
            retry_after=_SETTLED_SECONDS,
        )
    if not await delete_stored(run, user, interaction_id, interactions.delete_interaction, API):
        raise _not_found(interaction_id)
    if row is not None and row.status in stored_responses.RUNNING:
        await snapshot_cache.in_thread(announce, Change.CANCEL, [row.request_id])
    return {}
