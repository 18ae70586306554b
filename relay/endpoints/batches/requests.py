"""Makes the requests on lines of batches, through the same pipeline as the requests of clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from relay.billing.ledger.rows import RowWrite, insert
from relay.billing.ledger.writer import writer
from relay.billing.prices import ONE
from relay.endpoints.batches.running import LineRequest, RunningBatch
from relay.endpoints.passthrough import pass_through
from relay.endpoints.room import user_room
from relay.endpoints.text.apis.messages import create_message
from relay.endpoints.text.chat import chat_completions
from relay.endpoints.text.responses import create_response
from relay.errors import RelayError, RelayUnavailable, Stopping, TokenUnusable
from relay.gateway.access.authentication import unusable
from relay.gateway.background import run_in_background
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller, CallerState
from relay.models import Batch, BatchLine
from relay.protocols.anthropic_messages.batches import PATH as MESSAGES
from relay.storage import batches
from relay.storage.apis import message_batches
from relay.storage.batch_input import ENDPOINTS, BatchInputLine, answer_line, refusal

_NO_TOKEN: Final = TokenUnusable("The token of this batch was revoked.")
Outcome = tuple[LineRequest | None, int, bytes, RelayError | None]  # the request, and what came of it


async def make_request(run: Runtime, state: RunningBatch, line: BatchInputLine) -> Outcome:
    """Make one request once. When it was answered, its line is on disk."""
    try:
        if await user_room.left(state.batch.user_id) <= 0:
            state.no_room = True
            return None, 503, b"", Stopping("The results have no room.")
        if await is_written(state, line.number):
            return None, 200, b"", None
        caller = await state.caller()
    except RelayUnavailable as away:
        return None, away.http_status, state.error_shape.body(away, ""), away
    if caller is None:
        return None, 401, state.error_shape.body(_NO_TOKEN, ""), None
    if (token := caller.state(time.time())) is not CallerState.ACTIVE:
        refused = unusable(token)
        return None, refused.http_status, state.error_shape.body(refused, ""), None
    request = LineRequest(caller, line.body)
    request.error_shape = state.error_shape
    if state.batch.endpoint == MESSAGES:
        head = message_batches.head_of(state.batch)
        request.headers = {name.encode(): value.encode("latin-1") for name, value in head.headers.items()}
    if (unfit := refusal(line)) is not None:
        return request, *unfit, None
    request.price_factor = int(Decimal(run.config.batch_price) * ONE)
    request.total_at = time.monotonic() + run.config.total_timeout
    request.rows_for = partial(_line_written, state.batch, line, request.request_id)
    handler = _handler_of(run, caller, state.batch)
    state.requests.add(request)
    try:
        return request, *await run_in_background(run, request, handler)
    finally:
        state.requests.discard(request)


async def is_written(state: RunningBatch, number: int) -> bool:
    """Whether the answer of a line has been written after all of which that was not known. Raises RelayUnavailable."""
    if number not in state.unsure:
        return False
    writer.admit()  # what waited for the database has been written when this does not raise
    found = await snapshot_cache.in_thread(batches.has_outcome, state.batch, number)
    state.unsure.discard(number)
    return found


def _line_written(batch: Batch, line: BatchInputLine, request_id: str, status: int, body: bytes) -> list[RowWrite]:
    """The row with the outcome of a line, for the commit that charges it."""
    user_room.stored(batch.user_id, len(body))
    return [
        insert(
            BatchLine, batch_id=batch.pk, number=line.number, ok=True, body=answer_line(line, request_id, status, body)
        )
    ]


def _handler_of(run: Runtime, caller: Caller, batch: Batch) -> Callable[[Exchange], asyncio.Future[HttpResponseBase]]:
    if batch.endpoint == MESSAGES:
        beta = message_batches.head_of(batch).beta
        return partial(create_message, caller=caller, run=run, beta=beta)  # type: ignore[return-value]
    endpoint = ENDPOINTS[batch.endpoint]
    if endpoint == "chat.completions":
        return partial(chat_completions, caller=caller, run=run)  # type: ignore[return-value]  # a coroutine function
    if endpoint == "responses":
        return partial(create_response, caller=caller, run=run)  # type: ignore[return-value]
    return partial(pass_through, caller=caller, run=run, endpoint=endpoint)  # type: ignore[return-value]
