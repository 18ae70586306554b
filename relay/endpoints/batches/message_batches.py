"""/v1/messages/batches. They run as all batches do (`relay.endpoints.batches.runner`), at channels of any API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from portal import limits
from portal.lib.json import Json
from portal.lib.texts import whole_number
from relay.endpoints.batches import runner
from relay.endpoints.errors import invalid
from relay.endpoints.text.apis.messages import api_headers
from relay.errors import InvalidRequest, ObjectNotFound, StorageFull
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.replies import Download
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import Batch
from relay.protocols.anthropic_messages.batches import BATCHES_BETA, batch_input
from relay.protocols.fields import BadRequest
from relay.storage import batches
from relay.storage.apis import message_batches as storage

_BETAS: Final = "anthropic-beta"
_MOST_LISTED: Final = 1000


async def create_batch(exchange: Exchange, caller: Caller, run: Runtime, beta: bool, address: str) -> Json:
    """Accept a batch. `beta`: the address says so. `address`: of the API, by which its results are named.

    What is wrong with a request itself is told in its result. Raises InvalidRequest, RequestTooLarge, StorageFull,
    RelayUnavailable.
    """
    body = await exchange.read_body(run.config.max_body_bytes)
    if len(body) > limits.UNCOUNTED_BYTES:
        exchange.hold(len(body))  # its lines are beside it in memory while they are written
    head = storage.RequestHead(_without_own_beta(api_headers(exchange.headers)), beta)

    def write() -> Batch:
        lines, total = batch_input(body)
        return storage.create(caller.user_id, caller.token_id, lines, total, head, run.reservations.owner)

    try:
        batch = await snapshot_cache.in_file_thread(write)
    except BadRequest as bad:
        raise invalid(bad) from None
    runner.wake()
    return storage.batch_object(batch, address)


def _without_own_beta(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without the name of this API among the betas."""
    left = [name for name in headers.get(_BETAS, "").split(",") if name.strip() not in {"", BATCHES_BETA}]
    found = {name: value for name, value in headers.items() if name != _BETAS}
    return {**found, _BETAS: ",".join(left)} if left else found


def _find(user_id: int, batch_id: str, where: str = "message_batch_id") -> Batch:
    batch = storage.find(user_id, batch_id)
    if batch is None:
        message = f"There is no message batch “{batch_id[:64]}” of your account. GET /v1/messages/batches lists yours."
        raise ObjectNotFound(message, param=where)
    return batch


async def retrieve_batch(caller: Caller, batch_id: str, address: str) -> Json:
    """The object of one batch. Raises ObjectNotFound, RelayUnavailable."""
    return await snapshot_cache.in_thread(lambda: storage.batch_object(_find(caller.user_id, batch_id), address))


async def list_batches(caller: Caller, query: Mapping[str, str], address: str) -> Json:
    """The user's message batches, newest first. Raises InvalidRequest, ObjectNotFound, RelayUnavailable."""
    limit = whole_number(query.get("limit", 20), 1, _MOST_LISTED)
    if limit is None:
        raise InvalidRequest(f"The parameter “limit” must be between 1 and {_MOST_LISTED}.", param="limit")
    after, before = query.get("after_id", ""), query.get("before_id", "")
    if after and before:
        raise InvalidRequest("Send one of “after_id” and “before_id”.", param="before_id")

    def read() -> Json:
        found, more = storage.page(
            caller.user_id,
            limit,
            _find(caller.user_id, after, "after_id") if after else None,
            _find(caller.user_id, before, "before_id") if before else None,
        )
        return {
            "data": [storage.batch_object(batch, address) for batch in found],
            "has_more": more,
            "first_id": found[0].batch_id if found else None,
            "last_id": found[-1].batch_id if found else None,
        }

    return await snapshot_cache.in_thread(read)


async def cancel_batch(caller: Caller, batch_id: str, address: str) -> Json:
    """Cancel a batch. Raises ObjectNotFound, InvalidRequest, RelayUnavailable."""

    def write() -> Json:
        batch = _find(caller.user_id, batch_id)
        if batch.status in Batch.ENDED:
            message = "This message batch has ended already. Its results are at its results_url."
            raise InvalidRequest(message, code="batch_ended", param="message_batch_id")
        batches.cancel_batch(batch)
        return storage.batch_object(batch, address)

    found = await snapshot_cache.in_thread(write)
    runner.wake()
    return found


async def delete_batch(caller: Caller, batch_id: str) -> Json:
    """Delete a batch that has ended, with its results. Raises ObjectNotFound, InvalidRequest, RelayUnavailable."""

    def write() -> Json:
        batch = _find(caller.user_id, batch_id)
        if batch.status not in Batch.ENDED:
            message = "This message batch has not ended. Cancel it first, and delete it when its status is “ended”."
            raise InvalidRequest(message, code="batch_not_ended", param="message_batch_id")
        storage.delete(batch)
        return {"id": batch.batch_id, "type": "message_batch_deleted"}

    return await snapshot_cache.in_file_thread(write)


async def fetch_results(exchange: Exchange, caller: Caller, batch_id: str) -> Download:
    """The results of a batch that has ended, as JSON lines. Raises ObjectNotFound, InvalidRequest, StorageFull,
    RelayUnavailable.
    """

    def read() -> storage.Results | None:
        batch = _find(caller.user_id, batch_id)
        if not storage.has_ended(batch):
            message = "This message batch has not ended. Its results can be fetched when its status is “ended”."
            raise InvalidRequest(message, code="batch_not_ended", param="message_batch_id")
        return storage.open_results(batch)

    try:
        found = await snapshot_cache.in_file_thread(read)
    except OSError as error:
        raise StorageFull("The portal's disk does not give the results. Tell the portal's administrator.") from error
    if found is None:
        message = "The results of this message batch are stored no longer: they are kept for 29 days."
        raise ObjectNotFound(message, param="message_batch_id")
    return Download(exchange, found.read, found.size, f"{batch_id}_results.jsonl", "application/x-jsonl", found.close)
