"""Responses and conversations that are kept here. Synchronous: called in threads, or by pages and commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from portal.lib import clock
from portal.lib.json import Json, decode, decode_object, encode, objects_of, text_of
from portal.lib.processes import is_dead
from relay.models import Conversation, StoredResponse

_MOST_TURNS: Final = 2000
_WITH_STATUS: Final = frozenset(("message", "function_call", "function_call_output"))
RUNNING: Final = ("queued", "in_progress")


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """What a next turn must know of the one that it names. `items`: everything that was said, this turn included."""

    response_id: str
    channel_id: int | None
    key_id: int | None
    upstream_keeps: bool
    running: bool
    items: list[Json]


def live(user_id: int, response_id: str) -> StoredResponse | None:
    return StoredResponse.objects.filter(user=user_id, response_id=response_id, expires_at__gt=clock.now()).first()


def turn(user_id: int, response_id: str) -> StoredTurn | None:
    """The turn and what came before it, None when it is not (or no longer) kept for this user."""
    row = newest = live(user_id, response_id)
    if row is None or newest is None:
        return None
    rows: list[StoredResponse] = []
    while row is not None and len(rows) < _MOST_TURNS:
        rows.append(row)
        if row.conversation_id:
            break
        row = live(user_id, row.previous_id) if row.previous_id else None
    items: list[Json] = []
    for found in reversed(rows):
        items += [*input_of(found), *output_of(found)]
    return StoredTurn(response_id, newest.channel_id, newest.api_key_id, newest.upstream_keeps, newest.status in RUNNING, items)


def input_of(row: StoredResponse) -> list[Json]:
    found = decode(row.input or "[]")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def output_of(row: StoredResponse) -> list[Json]:
    return objects_of(decode_object(row.body) or {}, "output")


def shown(row: StoredResponse) -> str:
    """The response as its user gets it. One whose worker is gone has failed."""
    if row.status in RUNNING and row.owner and is_dead(row.owner):
        fail(row, "The portal was stopped while it made this response. Send the request again.")
    return row.body


def fail(row: StoredResponse, message: str, code: str = "server_error", status: str = "failed") -> None:
    """Write down that a response will not come any more."""
    body = decode_object(row.body) or {}
    body["status"] = status
    body["error"] = {"code": code, "message": message} if status == "failed" else None
    row.body, row.status, row.owner = encode(body).decode(), status, ""
    StoredResponse.objects.filter(pk=row.pk, status__in=RUNNING).update(body=row.body, status=status, owner="")


def begin(user_id: int, response: Json, items: Sequence[Json], request_id: str, owner: str, previous_id: str, conversation_id: str, keep: timedelta) -> None:
    """A response that will be made in the background."""
    now = clock.now()
    StoredResponse.objects.create(
        user_id=user_id, response_id=text_of(response, "id"), request_id=request_id, model=text_of(response, "model")[:120], status=text_of(response, "status"),
        previous_id=previous_id, conversation_id=conversation_id, input=encode(items).decode(), body=encode(response).decode(), owner=owner, created_at=now, expires_at=now + keep,
    )  # fmt: skip


def set_running(user_id: int, response_id: str) -> None:
    row = StoredResponse.objects.filter(user=user_id, response_id=response_id, status="queued").first()
    if row is not None:
        body = decode_object(row.body) or {}
        body["status"] = "in_progress"
        StoredResponse.objects.filter(pk=row.pk, status="queued").update(status="in_progress", body=encode(body).decode())


def cancel(pk: int) -> None:
    row = StoredResponse.objects.filter(pk=pk).first()
    if row is not None:
        fail(row, "", status="cancelled")


def failed(user_id: int, response_id: str, message: str, code: str) -> None:
    row = StoredResponse.objects.filter(user=user_id, response_id=response_id).first()
    if row is not None:
        fail(row, message, code)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted, and where the upstream keeps it, too."""

    channel_id: int | None
    key_id: int | None
    upstream_keeps: bool


def forget(user_id: int, response_id: str) -> Forgotten | None:
    row = live(user_id, response_id)
    if row is None:
        return None
    row.delete()
    return Forgotten(row.channel_id, row.api_key_id, row.upstream_keeps)


def named(items: Sequence[Json], fresh: str) -> list[Json]:
    """Items each of which has an id, so that it can be listed and fetched. `fresh`: what new ids are made of."""
    prefixes = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs", "custom_tool_call": "ctc", "custom_tool_call_output": "ctco"}
    found: list[Json] = []
    for index, item in enumerate(items):
        kind = text_of(item, "type") or "message"
        item_id = text_of(item, "id") or f"{prefixes.get(kind, 'item')}_{fresh}{index:04x}"
        whole: Json = {"id": item_id, "type": kind, **item}
        if kind == "message":
            content = item.get("content")
            whole["content"] = [{"type": "output_text" if item.get("role") == "assistant" else "input_text", "text": content}] if isinstance(content, str) else content
        if kind in _WITH_STATUS:
            whole.setdefault("status", "completed")
        found.append(whole)
    return found


# -- conversations ---------------------------------------------------------------------------------------------------


def sweep(now: datetime) -> int:
    """Delete what has been kept long enough. Returns how many rows went."""
    gone, _ = StoredResponse.objects.filter(pk__in=list(StoredResponse.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:1000])).delete()
    left, _ = Conversation.objects.filter(pk__in=list(Conversation.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:200])).delete()
    return gone + left


def end_orphans() -> None:
    """Responses in the background whose worker is gone have failed."""
    for row in StoredResponse.objects.filter(status__in=RUNNING).exclude(owner="")[:200]:
        shown(row)
