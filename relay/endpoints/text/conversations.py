"""/v1/conversations: stored by the portal, independent of the channel that answers.

Every function raises RelayUnavailable, and ObjectNotFound for objects of other users.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from portal.lib.json import Json, objects_of, text_of
from portal.lib.texts import whole_number
from relay.endpoints.errors import invalid
from relay.endpoints.text.conversation_lookup import response_lifetime
from relay.endpoints.text.own_objects import check_own
from relay.endpoints.text.response_turn import CONVERSATION_LIFETIME
from relay.errors import InvalidRequest, ObjectNotFound
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import Conversation
from relay.protocols.fields import BadRequest
from relay.protocols.naming.references import Reference, items_named
from relay.protocols.responses.compaction import check_summaries
from relay.storage import conversations

_MAX_ITEMS: Final = 20  # of one request, as at OpenAI


def _lifetime(run: Runtime) -> timedelta:
    return response_lifetime(run) or CONVERSATION_LIFETIME


def _row(caller: Caller, conversation_id: str) -> Conversation:
    row = conversations.find_conversation(caller.user_id, conversation_id)
    if row is None:
        raise ObjectNotFound(
            f"There is no conversation “{conversation_id[:80]}” of your account, or it is no longer kept.",
            param="conversation_id",
        )
    return row


def _item_exists() -> InvalidRequest:
    return InvalidRequest(
        "An item with one of these ids is in the conversation already. Leave the ids out.", param="items"
    )


def metadata_of(body: Json) -> Json:
    """The `metadata` of a request. Raises InvalidRequest."""
    found = body.get("metadata")
    if found is None:
        return {}
    if (
        not isinstance(found, dict)
        or len(found) > 16
        or not all(isinstance(value, str) and len(value) <= 512 and len(name) <= 64 for name, value in found.items())
    ):
        raise InvalidRequest(
            "The field “metadata” must be an object of at most 16 texts of at most 512 characters.", param="metadata"
        )
    return found


def _items(body: Json, required: bool) -> list[Json]:
    found = body.get("items")
    if found is None and not required:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found) or (required and not found):
        raise InvalidRequest("The field “items” must be a list of items.", param="items")
    if len(found) > _MAX_ITEMS:
        raise InvalidRequest(f"At most {_MAX_ITEMS} items can be added at once.", param="items")
    for index, item in enumerate(found):
        kind = item.get("type") or ("message" if "role" in item else None)
        if not isinstance(kind, str) or (kind == "message" and not isinstance(item.get("content"), (str, list))):
            raise InvalidRequest(f"items[{index}] needs a “type”, or a “role” and “content”.", param=f"items[{index}]")
    try:
        check_summaries(found, "items")
    except BadRequest as bad:
        raise invalid(bad) from None
    return found


async def _check_own(caller: Caller, items: Sequence[Json], named: Sequence[Reference]) -> None:
    """Raise InvalidRequest where items name what is not the user's own. Raises RelayUnavailable."""
    try:
        await check_own(caller.user_id, [*named, *items_named(items, "items")])
    except BadRequest as bad:
        raise invalid(bad) from None


async def create_conversation(caller: Caller, run: Runtime, body: Json, named: Sequence[Reference]) -> Json:
    """`named`: the objects of an account that the body names, which may be the user's own."""
    items, metadata = _items(body, False), metadata_of(body)
    await _check_own(caller, items, named)
    try:
        row = await snapshot_cache.in_thread(
            conversations.create_conversation, caller.user_id, items, metadata, _lifetime(run)
        )
    except conversations.ItemExists:
        raise _item_exists() from None
    return conversations.conversation_object(row)


async def retrieve_conversation(caller: Caller, conversation_id: str) -> Json:
    return conversations.conversation_object(await snapshot_cache.in_thread(_row, caller, conversation_id))


async def update_conversation(caller: Caller, run: Runtime, conversation_id: str, body: Json) -> Json:
    metadata = metadata_of(body)

    def write() -> Conversation:
        row = _row(caller, conversation_id)
        conversations.set_metadata(row, metadata, _lifetime(run))
        return row

    return conversations.conversation_object(await snapshot_cache.in_thread(write))


async def delete_conversation(caller: Caller, conversation_id: str) -> Json:
    await snapshot_cache.in_thread(lambda: conversations.delete_conversation(_row(caller, conversation_id)))
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


async def add_items(
    caller: Caller, run: Runtime, conversation_id: str, body: Json, named: Sequence[Reference]
) -> list[Json]:
    """`named`: as for `create_conversation`."""
    items = _items(body, True)
    await _check_own(caller, items, named)
    try:
        return await snapshot_cache.in_thread(
            lambda: conversations.add_items(_row(caller, conversation_id), items, _lifetime(run))
        )
    except conversations.ItemExists:
        raise _item_exists() from None
    except conversations.TooManyItems:
        raise InvalidRequest(
            f"A conversation has at most {conversations.MAX_ITEMS:,} items. Begin a new one.", param="items"
        ) from None


async def list_items(caller: Caller, conversation_id: str, query: dict[str, str]) -> Json:
    """One page of the items: as many as are asked for, unless they are too large together. Raises InvalidRequest."""

    def read() -> Json:
        row = _row(caller, conversation_id)
        page = list_page([{"id": item_id} for item_id in conversations.item_ids(row)], query)
        shown = conversations.read_items(row, [text_of(item, "id") for item in objects_of(page, "data")])
        more = bool(page["has_more"]) or len(shown) < len(objects_of(page, "data"))
        return {**page, "data": shown, "last_id": text_of(shown[-1], "id") if shown else None, "has_more": more}

    return await snapshot_cache.in_thread(read)


async def retrieve_item(caller: Caller, conversation_id: str, item_id: str) -> Json:
    item = await snapshot_cache.in_thread(lambda: conversations.find_item(_row(caller, conversation_id), item_id))
    if item is None:
        raise ObjectNotFound(f"There is no item “{item_id[:80]}” in this conversation.", param="item_id")
    return item


async def delete_item(caller: Caller, conversation_id: str, item_id: str) -> Json:
    def write() -> Json | None:
        row = _row(caller, conversation_id)
        return conversations.conversation_object(row) if conversations.delete_item(row, item_id) else None

    found = await snapshot_cache.in_thread(write)
    if found is None:
        raise ObjectNotFound(f"There is no item “{item_id[:80]}” in this conversation.", param="item_id")
    return found


def list_page(items: Sequence[Json], query: dict[str, str], maximum: int = 100, default: int = 20) -> Json:
    """One page of a list by `limit`, `order` (newest first by default) and `after`. Raises InvalidRequest."""
    order, after = query.get("order", "desc"), query.get("after", "")
    limit = whole_number(query.get("limit", default), 1, maximum)
    if order not in {"asc", "desc"}:
        raise InvalidRequest("The parameter “order” must be asc or desc.", param="order")
    if limit is None:
        raise InvalidRequest(f"The parameter “limit” must be between 1 and {maximum}.", param="limit")
    found = list(items) if order == "asc" else list(reversed(items))
    if after:
        at = next((index for index, item in enumerate(found) if text_of(item, "id") == after), None)
        if at is None:
            raise InvalidRequest(f"There is nothing with the id “{after[:80]}” in this list.", param="after")
        found = found[at + 1 :]
    shown = found[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": text_of(shown[0], "id") if shown else None,
        "last_id": text_of(shown[-1], "id") if shown else None,
        "has_more": len(found) > len(shown),
    }
