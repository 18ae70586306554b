"""/v1/batches. `relay.endpoints.batches.runner` runs them."""

from __future__ import annotations

from collections.abc import Mapping

from portal.lib.json import Json, object_of, text_of
from portal.lib.texts import whole_number
from relay.endpoints.batches import runner
from relay.endpoints.files.files import expiry_seconds
from relay.endpoints.text.conversations import metadata_of
from relay.errors import InvalidRequest, ObjectNotFound
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import Batch
from relay.storage import batches
from relay.storage.batch_input import ENDPOINTS


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
    runner.wake()
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
    runner.wake()
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
