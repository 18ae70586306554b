"""/v1/batches, and the background task that runs them through the same pipeline as the requests of clients.

One worker runs a batch at a time; if it stops, another one continues.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Final

from django.http.response import HttpResponseBase

from portal.lib import clock
from portal.lib.json import Json, object_of, text_of
from portal.lib.texts import whole_number
from relay.billing.ledger.rows import RowWrite, insert
from relay.billing.prices import ONE
from relay.endpoints.files.files import expiry_seconds
from relay.endpoints.passthrough import pass_through
from relay.endpoints.room import user_room
from relay.endpoints.text.chat import chat_completions
from relay.endpoints.text.conversations import metadata_of
from relay.endpoints.text.responses import create_response
from relay.errors import InvalidRequest, ObjectNotFound, RelayError, RelayUnavailable, Stopping, StorageFull
from relay.gateway.background import BackgroundRequest, run_in_background
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller, CallerState
from relay.models import Batch, BatchLine
from relay.storage import batches
from relay.storage.batch_input import ENDPOINTS, BatchInput, BatchInputLine, answer_line, refusal

logger: Final = logging.getLogger(__name__)
_POLL_SECONDS: Final = 2.0  # between searches for batches that no worker runs
_RENEW_SECONDS: Final = 1.0  # between renewals of a batch's lease
_AT_ONCE: Final = 4  # batches that one worker runs concurrently; they share BATCH_CONCURRENCY
_MAX_TRIES: Final = 6
_LONGEST_PAUSE: Final = 60.0
_STORAGE_PAUSE: Final = 30.0  # seconds between attempts to write the results while the storage is full
_TRANSIENT_STATUSES: Final = frozenset((408, 429, 500, 502, 503, 504))
_wake: asyncio.Event | None = None


# -- the API ---------------------------------------------------------------------------------------------------------


async def create_batch(caller: Caller, body: Json) -> Json:
    """Accept a batch. Errors in its file appear in its status later. Raises InvalidRequest, RelayUnavailable."""
    endpoint, input_file_id = text_of(body, "endpoint"), text_of(body, "input_file_id")
    if endpoint not in ENDPOINTS:
        raise InvalidRequest(f"The field “endpoint” must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
    if not input_file_id:
        raise InvalidRequest(
            "The field “input_file_id” is missing: upload the requests with POST /v1/files.",
            code="missing_required_parameter",
            param="input_file_id",
        )
    if text_of(body, "completion_window") != "24h":
        raise InvalidRequest("The field “completion_window” must be 24h.", param="completion_window")
    metadata = metadata_of(body) if body.get("metadata") is not None else None
    after = object_of(body, "output_expires_after")
    lifetime = expiry_seconds(after.get("anchor"), after.get("seconds"), "output_expires_after")
    batch = await snapshot_cache.in_thread(
        batches.create_batch, caller.user_id, caller.token_id, endpoint, input_file_id, metadata, lifetime
    )
    if _wake is not None:
        _wake.set()
    return await snapshot_cache.in_thread(batches.batch_object, batch)


def _find(user_id: int, batch_id: str) -> Batch:
    batch = batches.find_batch(user_id, batch_id)
    if batch is None:
        raise ObjectNotFound(
            f"There is no batch “{batch_id[:64]}” of your account. GET /v1/batches lists yours.", param="batch_id"
        )
    return batch


async def retrieve_batch(caller: Caller, batch_id: str) -> Json:
    """The object of one batch. Raises ObjectNotFound, RelayUnavailable."""
    return await snapshot_cache.in_thread(lambda: batches.batch_object(_find(caller.user_id, batch_id)))


async def cancel_batch(caller: Caller, batch_id: str) -> Json:
    """Cancel a batch. Raises ObjectNotFound, InvalidRequest, RelayUnavailable."""

    def write() -> Json:
        batch = _find(caller.user_id, batch_id)
        if batch.status in Batch.ENDED:
            raise InvalidRequest(f"This batch is {batch.status} already.", code="batch_ended", param="batch_id")
        batches.cancel_batch(batch)
        return batches.batch_object(batch)

    found = await snapshot_cache.in_thread(write)
    if _wake is not None:
        _wake.set()
    return found


async def list_batches(caller: Caller, query: Mapping[str, str]) -> Json:
    """The user's batches, newest first. Raises InvalidRequest, RelayUnavailable."""
    limit, after = whole_number(query.get("limit", 20), 1, 100), query.get("after", "")
    if limit is None:
        raise InvalidRequest("The parameter “limit” must be between 1 and 100.", param="limit")

    def read() -> Json:
        found = batches.newest_batches(caller.user_id, limit + 1, _find(caller.user_id, after) if after else None)
        shown = [batches.batch_object(batch) for batch in found[:limit]]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(found) > len(shown),
        }

    return await snapshot_cache.in_thread(read)


# -- running batches -------------------------------------------------------------------------------------------------


async def run_batches(run: Runtime) -> None:
    """Run batches until cancelled: the background task of every worker."""
    global _wake
    _wake = asyncio.Event()
    slots = asyncio.Semaphore(run.config.batch_concurrency)
    running: dict[int, asyncio.Task[None]] = {}
    try:
        while True:
            try:
                if not run.stopping and len(running) < _AT_ONCE:
                    for batch in await snapshot_cache.in_thread(
                        batches.claim, run.reservations.owner, _AT_ONCE - len(running), set(running)
                    ):
                        task = running[batch.pk] = asyncio.ensure_future(
                            _run_batch(run, batch, run.reservations.owner, slots)
                        )
                        task.add_done_callback(partial(_on_batch_done, running, batch.pk))
            except RelayUnavailable:
                pass  # logged
            except Exception:
                logger.exception("batches could not be looked for; the next round tries again")
            try:
                await asyncio.wait_for(_wake.wait(), _POLL_SECONDS)
            except TimeoutError:
                pass
            _wake.clear()
    finally:
        for task in running.values():
            task.cancel()


def _on_batch_done(running: dict[int, asyncio.Task[None]], pk: int, task: asyncio.Task[None]) -> None:
    running.pop(pk, None)
    if not task.cancelled() and task.exception() is not None:
        logger.error("a batch failed here; it is tried again when its lease has run out", exc_info=task.exception())


async def _run_batch(run: Runtime, batch: Batch, owner: str, slots: asyncio.Semaphore) -> None:
    """Run one batch from its current state to its end."""
    parsed: BatchInput = await snapshot_cache.in_slow_thread(batches.read_input, batch)
    if batch.status == Batch.Status.VALIDATING:
        await snapshot_cache.in_thread(batches.start_batch, batch, parsed)
    if batch.status in Batch.ENDED:
        return
    state = _State(batch, owner)
    renewal = asyncio.ensure_future(_renew_lease(state))
    try:
        if batch.status == Batch.Status.IN_PROGRESS and not parsed.errors:
            await _answer_all(run, state, parsed, slots)
        if run.stopping or state.lost:
            await snapshot_cache.in_thread(batches.give_up_claim, batch, owner)
            return
        outcome = Batch.Status.FAILED if parsed.errors else state.outcome  # errors here: the input file was deleted
        while True:
            if await snapshot_cache.in_slow_thread(batches.finish, batch, parsed.lines, outcome, owner, parsed.errors):
                break
            await asyncio.sleep(_STORAGE_PAUSE)  # until there is room for the result files
    except (RelayUnavailable, StorageFull):
        pass  # logged; the lease runs out, and another worker continues
    finally:
        renewal.cancel()


class _State:
    """The state of a running batch."""

    def __init__(self, batch: Batch, owner: str) -> None:
        self.batch, self.owner = batch, owner
        self.status = str(batch.status)
        self.lost = False  # another worker holds its lease now

    @property
    def expired(self) -> bool:
        return clock.now() >= self.batch.expires_at

    @property
    def active(self) -> bool:
        return not self.lost and not self.expired and self.status == Batch.Status.IN_PROGRESS

    @property
    def outcome(self) -> str:
        if self.status == Batch.Status.CANCELLING:
            return Batch.Status.CANCELLED
        return Batch.Status.EXPIRED if self.expired else Batch.Status.COMPLETED


async def _renew_lease(state: _State) -> None:
    """Renew the lease, and read whether the batch has been cancelled."""
    while True:
        try:
            status = await snapshot_cache.in_thread(batches.renew, state.batch, state.owner)
            state.lost = status is None
            state.status = status or state.status
        except RelayUnavailable:
            pass  # logged; the lease lasts longer than a short failure
        await asyncio.sleep(_RENEW_SECONDS)


async def _answer_all(run: Runtime, state: _State, parsed: BatchInput, slots: asyncio.Semaphore) -> None:
    """Make every request of a batch that has no outcome yet."""
    known = await snapshot_cache.in_thread(batches.done_lines, state.batch)
    waiting = iter([line for line in parsed.lines if line.number not in known])

    async def worker() -> None:
        for line in waiting:
            if not state.active or run.stopping:
                return
            if not await _has_room(run, state):
                return
            async with slots:
                await _answer(run, state, line)

    await asyncio.gather(*(worker() for _ in range(run.config.batch_concurrency)))


async def _has_room(run: Runtime, state: _State) -> bool:
    """Wait until there is room for more answers. Returns False when the batch ends before."""
    for _ in count():
        if await user_room.left(state.batch.user_id) > 0:
            return True
        await asyncio.sleep(_STORAGE_PAUSE)
        if not state.active or run.stopping:
            break
    return False


async def _answer(run: Runtime, state: _State, line: BatchInputLine) -> None:
    """Make one request, and retry it while its failures are transient."""
    pause = 1.0
    for attempt in range(_MAX_TRIES):
        outcome = await _try(run, state, line)
        if outcome is None:
            return
        background, status, body, error = outcome
        transient = (
            status in _TRANSIENT_STATUSES and (error is None or error.retry is not False) and attempt < _MAX_TRIES - 1
        )
        if isinstance(error, Stopping) or (transient and not state.active):
            return  # no outcome: the worker that continues the batch repeats the request
        if not transient:
            await snapshot_cache.in_thread(
                batches.write_failure, state.batch, line.number, answer_line(line, background.request_id, status, body)
            )
            return
        wait = error.retry_after if error is not None and error.retry_after is not None else pause
        await asyncio.sleep(min(max(wait, 0.05), _LONGEST_PAUSE))
        pause *= 2


async def _try(
    run: Runtime, state: _State, line: BatchInputLine
) -> tuple[BackgroundRequest, int, bytes, RelayError | None] | None:
    """Make one request once; returns None when it was answered, and its line is on disk then."""
    caller = await _caller(state.batch)
    if caller is None:
        body = (
            b'{"error":{"message":"The token of this batch was revoked or disabled, or its account was.",'
            b'"type":"authentication_error","param":null,"code":"token_disabled"}}'
        )
        return BackgroundRequest(_NO_CALLER, b""), 401, body, None
    background = BackgroundRequest(caller, line.body)
    if unfit := refusal(line.body):
        return background, 422, unfit, None
    background.price_factor = int(Decimal(run.config.batch_price) * ONE)
    background.total_at = time.monotonic() + run.config.total_timeout
    background.rows_for = partial(_line_written, state.batch, line, background.request_id)
    status, body, error = await run_in_background(
        run,
        background,
        _handler_of(run, caller, ENDPOINTS[state.batch.endpoint]),
        f"line {line.number} of {state.batch.batch_id}",
    )
    return None if status == 200 and error is None else (background, status, body, error)


def _line_written(batch: Batch, line: BatchInputLine, request_id: str, status: int, body: bytes) -> list[RowWrite]:
    """The row with the outcome of a line, for the commit that charges it."""
    user_room.stored(batch.user_id, len(body))
    return [
        insert(
            BatchLine, batch_id=batch.pk, number=line.number, ok=True, body=answer_line(line, request_id, status, body)
        )
    ]


def _handler_of(run: Runtime, caller: Caller, endpoint: str) -> Callable[[Exchange], asyncio.Future[HttpResponseBase]]:
    if endpoint == "chat.completions":
        return partial(chat_completions, caller=caller, run=run)  # type: ignore[return-value]  # a coroutine function
    if endpoint == "responses":
        return partial(create_response, caller=caller, run=run)  # type: ignore[return-value]
    return partial(pass_through, caller=caller, run=run, endpoint=endpoint)  # type: ignore[return-value]


_NO_CALLER: Final = Caller("", 0, 0, False, frozenset(), False, False, 0.0, None, ())


async def _caller(batch: Batch) -> Caller | None:
    """The caller that a batch is charged to; None when the token or its user is no longer active."""
    digest = await snapshot_cache.in_thread(batches.batch_token_digest, batch)
    caller = (snapshot_cache.cached(digest) or await snapshot_cache.caller(digest)) if digest else None
    return caller if caller is not None and caller.state(time.time()) is CallerState.ACTIVE else None
