"""Reads and writes stored responses of /v1/responses. Synchronous: called in threads, or by pages and commands."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from django.db.models import Q

from portal.lib import clock
from portal.lib.json import Json, decode, decode_object, encode, object_of, objects_of, text_of
from portal.lib.processes import is_dead
from relay.models import Conversation, StoredResponse
from relay.models.byte_count import texts_of

_ID: Final = re.compile(r"[!-~]{1,120}")
# Ids of items that are kept as they are: they are a part of a path (`..` is another one).
_ITEM_ID: Final = re.compile(r"[A-Za-z0-9_][\w.:=+-]{0,119}", re.ASCII)
# What an upstream may be asked for by id: long enough not to be counted from 0 (`resp_0`), which another request's
# response could be called as well. vLLM's have 16 characters after the prefix, OpenAI's 48, LiteLLM's up to 300.
_UPSTREAM_ID: Final = re.compile(r"[!-~]{16,512}")
_ITEMS_WITH_STATUS: Final = frozenset(("message", "function_call", "function_call_output"))
_LOOKED_THROUGH: Final = 500  # responses, newest first, for what the user names of their output
_MOST_LOOKED_THROUGH: Final = 32 * 1024 * 1024  # characters of that
RUNNING: Final = ("queued", "in_progress")  # values of `status`
# Begins the ids of Gemini's interactions, which have rows of the same table and are no responses
# (`relay.storage.apis.interactions`).
INTERACTION: Final = "int_"


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A response that a new one continues."""

    response_id: str
    channel_id: int | None  # of the channel that answered
    key_id: int | None
    upstream_id: str  # by which it is named at its upstream; empty: the upstream does not keep it
    running: bool  # not answered yet
    created: float  # seconds since 1970
    tokens: int  # of the conversation up to its end, as the upstream reported them; 0: it did not


def is_id(text: str) -> bool:
    """Whether a text can be the id of something stored."""
    return _ID.fullmatch(text) is not None


def is_upstream_id(text: str) -> bool:
    """Whether an upstream's id of a response can be trusted to be that of one response alone."""
    return _UPSTREAM_ID.fullmatch(text) is not None


def find_response(user_id: int, response_id: str) -> StoredResponse | None:
    """Return a stored response of a user that has not expired."""
    if not is_id(response_id) or response_id.startswith(INTERACTION):
        return None
    return StoredResponse.objects.filter(user=user_id, response_id=response_id, expires_at__gt=clock.now()).first()


def made_for(user_id: int, names: Collection[str]) -> set[str]:
    """Return those ids that are in the output of a user's stored responses, of the last so many.

    They are ids of items, and of the containers in which code ran.
    """
    rows = StoredResponse.objects.filter(user=user_id, expires_at__gt=clock.now()).order_by("-pk")
    rows = rows.exclude(response_id__startswith=INTERACTION)
    left, found, characters = {name for name in names if name}, set[str](), 0
    for text in texts_of(rows[:_LOOKED_THROUGH], "output"):
        if any(name in text for name in left):
            found |= left & _ids_in(text)
            left -= found
        characters += len(text)
        if not left or characters > _MOST_LOOKED_THROUGH:
            break
    return found


def _ids_in(output: str) -> set[str]:
    """The ids in the output of a response, as JSON."""
    items = objects_of({"output": decode(output)}, "output")
    named = [one for item in items for one in (item, object_of(item, "environment"))]
    return {text_of(one, name) for one in named for name in ("id", "container_id")}


def find_turn(user_id: int, response_id: str) -> StoredTurn | None:
    """Return the response that a new one continues, None when it is not, or no longer, stored for this user."""
    if not is_id(response_id) or response_id.startswith(INTERACTION):
        return None
    columns = ("channel_id", "api_key_id", "upstream_keeps", "upstream_id", "status", "created_at", "body")
    rows = StoredResponse.objects.filter(user=user_id, response_id=response_id, expires_at__gt=clock.now())
    row = rows.values_list(*columns).first()
    if row is None:
        return None
    channel, key, keeps, upstream_id, status, created, body = row
    known_as = (upstream_id or response_id) if keeps else ""
    return StoredTurn(
        response_id,
        channel,
        key,
        known_as if is_upstream_id(known_as) else "",
        status in RUNNING,
        created.timestamp(),
        _tokens_of(body),
    )


def _tokens_of(body: str) -> int:
    try:
        usage = _body.decode(body).usage
    except (msgspec.DecodeError, ValueError, RecursionError):
        return 0
    return max(0, usage.input_tokens) + max(0, usage.output_tokens) if usage is not None else 0


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Body(msgspec.Struct):
    usage: _Usage | None = None


_body: Final = msgspec.json.Decoder(_Body)


def input_of(row: StoredResponse) -> list[Json]:
    """Return the items of a turn's input."""
    found = decode(row.input or "[]")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def output_of(row: StoredResponse) -> list[Json]:
    """Return the items of a turn's output."""
    return objects_of(decode_object(row.body) or {}, "output")


def response_body(row: StoredResponse) -> str:
    """Return the response as JSON. Marks it failed first when the worker that makes it is gone.

    One that runs at an upstream of its own goes on there: it is settled first.
    """
    if row.status in RUNNING and row.owner and not runs_at_upstream(row) and is_dead(row.owner):
        end_response(row, "The portal was stopped while it made this response. Send the request again.")
    return row.body


def runs_at_upstream(row: StoredResponse) -> bool:
    """Whether it goes on at its upstream without a worker that follows it, as interactions do."""
    return bool(row.upstream_id) and row.response_id.startswith(INTERACTION)


def end_response(row: StoredResponse, message: str, code: str = "server_error", status: str = "failed") -> None:
    """End a response that is not answered yet, with `status` "failed" or "cancelled".

    One that runs at an upstream of its own has to be ended there: when it is cancelled, it keeps whoever does that.
    """
    body = decode_object(row.body) or {}
    body["status"] = status
    told = {"code": code, "message": message} if status == "failed" else None
    if row.response_id.startswith(INTERACTION):
        body.update({"errors": [told]} if told is not None else {})
    else:
        body["error"] = told
    row.owner = row.owner if status == "cancelled" and runs_at_upstream(row) else ""
    row.body, row.status = encode(body).decode(), status
    StoredResponse.objects.filter(pk=row.pk, status__in=RUNNING).update(body=row.body, status=status, owner=row.owner)


def create_queued(
    user_id: int,
    response: Json,
    items: Sequence[Json],
    request_id: str,
    owner: str,
    previous_id: str,
    conversation_id: str,
    keep: timedelta,
) -> None:
    """Store a response that `owner`, a worker, will make in the background. `items`: the input.

    `keep`: until it expires.
    """
    now = clock.now()
    StoredResponse.objects.create(
        user_id=user_id,
        response_id=text_of(response, "id"),
        request_id=request_id,
        model=text_of(response, "model")[:120],
        status=text_of(response, "status"),
        previous_id=previous_id,
        conversation_id=conversation_id,
        input=encode(items).decode(),
        body=encode(response).decode(),
        owner=owner,
        created_at=now,
        expires_at=now + keep,
    )


def set_running(user_id: int, response_id: str) -> bool:
    """Mark a queued response as in progress; returns whether it still is to be made."""
    row = StoredResponse.objects.filter(user=user_id, response_id=response_id, status="queued").first()
    if row is None:
        return False
    body = decode_object(row.body) or {}
    body["status"] = "in_progress"
    queued = StoredResponse.objects.filter(pk=row.pk, status="queued")
    return bool(queued.update(status="in_progress", body=encode(body).decode()))


def cancel_response(pk: int) -> None:
    """Mark a response as cancelled, if it still exists and is not answered yet."""
    row = StoredResponse.objects.filter(pk=pk).first()
    if row is not None:
        end_response(row, "", status="cancelled")


def fail_response(user_id: int, response_id: str, message: str, code: str) -> None:
    """Mark a response as failed, if it still exists and is not answered yet."""
    row = StoredResponse.objects.filter(user=user_id, response_id=response_id, status__in=RUNNING).first()
    if row is not None:
        end_response(row, message, code)


def delete_response(user_id: int, response_id: str) -> StoredTurn | None:
    """Delete a stored response of a user. Returns what it was, None when there is none."""
    found = find_turn(user_id, response_id)
    if found is not None:
        StoredResponse.objects.filter(user=user_id, response_id=response_id).delete()
    return found


def with_ids(items: Sequence[Json], fresh: str, taken: set[str] | None = None) -> list[Json]:
    """Return items completed with what is needed to list and fetch them: id, type, status, content as a list.

    New ids are made of `fresh` and the index of the item. `taken`: ids that are replaced, because other items have
    them; those of the result are added. Upstreams may call every message `msg_0`.
    """
    prefixes = {
        "message": "msg",
        "function_call": "fc",
        "function_call_output": "fco",
        "reasoning": "rs",
        "custom_tool_call": "ctc",
        "custom_tool_call_output": "ctco",
    }
    found: list[Json] = []
    for index, item in enumerate(items):
        kind = text_of(item, "type") or "message"
        item_id = text_of(item, "id")
        if _ITEM_ID.fullmatch(item_id) is None or (taken is not None and item_id in taken):
            item_id = f"{prefixes.get(kind, 'item')}_{fresh}{index:04x}"
        if taken is not None:
            taken.add(item_id)
        whole: Json = {"id": item_id, "type": kind, **item}
        whole["id"] = item_id
        if kind == "message":
            content = item.get("content")
            whole["content"] = (
                [{"type": "output_text" if item.get("role") == "assistant" else "input_text", "text": content}]
                if isinstance(content, str)
                else content
            )
        if kind in _ITEMS_WITH_STATUS:
            whole.setdefault("status", "completed")
        found.append(whole)
    return found


def delete_expired(now: datetime) -> int:
    """Delete responses and conversations that have expired. Returns how many rows were deleted."""
    responses, _ = StoredResponse.objects.filter(
        pk__in=list(StoredResponse.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:1000])
    ).delete()
    conversations, _ = Conversation.objects.filter(
        pk__in=list(Conversation.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:200])
    ).delete()
    return responses + conversations


def fail_orphans() -> None:
    """Mark background responses as failed whose worker is gone, and with it their requests to upstreams."""
    at_upstream = Q(response_id__startswith=INTERACTION) & ~Q(upstream_id="")
    for row in StoredResponse.objects.filter(~at_upstream, status__in=RUNNING).exclude(owner="")[:200]:
        response_body(row)
