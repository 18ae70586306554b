"""Reads and writes interactions of Gemini's API that are stored. Synchronous: called in threads.

They are rows of the table of responses, whose `output` is the log of the events of a stream, and whose `body` is the
interaction without its input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from portal import limits
from portal.lib import clock
from portal.lib.json import Json, decode, decode_object, encode, int_of, object_of, text_of
from portal.lib.processes import is_dead
from relay.models import StoredResponse, Token, UsageRecord
from relay.storage.responses import (
    INTERACTION,
    RUNNING,
    StoredTurn,
    end_response,
    is_id,
    is_upstream_id,
    response_body,
    runs_at_upstream,
)

_GONE: Final = "cancelled"
_LATE: Final = timedelta(seconds=limits.INTERACTION_SECONDS + 600)  # after which no worker follows an interaction
_CLAIMED_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class StoredInteraction:
    """An interaction that a new one continues."""

    turn: StoredTurn
    environment_id: str  # of the account at the upstream, in which it ran; empty: none


@dataclass(frozen=True, slots=True)
class Accepted:
    """An interaction that an upstream has begun in the background."""

    user_id: int
    interaction_id: str
    request_id: str
    model: str
    channel_id: int
    key_id: int
    upstream_id: str
    previous_id: str
    token_id: int  # that pays for it
    owner: str  # the worker that asks for its end
    keep: timedelta  # until it expires


def state_of(status: str) -> str:
    """The `status` of a row for one of an interaction, which may be longer than the column."""
    return "incomplete" if status == "requires_continuation" else status[:16]


def find_interaction(user_id: int, interaction_id: str) -> StoredResponse | None:
    """Return an interaction of a user that has not expired."""
    if not is_id(interaction_id) or not interaction_id.startswith(INTERACTION):
        return None
    rows = StoredResponse.objects.filter(user=user_id, response_id=interaction_id, expires_at__gt=clock.now())
    return rows.first()


def find_previous(user_id: int, interaction_id: str) -> StoredInteraction | None:
    """Return the interaction that a new one continues; None when it is not, or no longer, stored for this user."""
    row = find_interaction(user_id, interaction_id)
    if row is None:
        return None
    body = decode_object(row.body) or {}
    usage = object_of(body, "usage")
    counted = ("total_input_tokens", "total_tool_use_tokens", "total_output_tokens", "total_thought_tokens")
    known_as = row.upstream_id if row.upstream_keeps else ""
    turn = StoredTurn(
        interaction_id,
        row.channel_id,
        row.api_key_id,
        known_as if is_upstream_id(known_as) else "",
        row.status in RUNNING,
        row.created_at.timestamp(),
        sum(int_of(usage, name) for name in counted),
    )
    return StoredInteraction(turn, text_of(body, "environment_id"))


def shown(user_id: int, interaction_id: str) -> tuple[Json, bytes, object] | None:
    """The interaction, the log of its events, and its input."""
    row = find_interaction(user_id, interaction_id)
    if row is None:
        return None
    body = decode_object(response_body(row)) or {}
    return body, (row.output or "").encode(), decode(row.input or "null")


def create_accepted(accepted: Accepted, interaction: Json, given: object) -> None:
    """Store an interaction that runs. `given`: its input."""
    now = clock.now()
    StoredResponse.objects.create(
        user_id=accepted.user_id,
        response_id=accepted.interaction_id,
        request_id=accepted.request_id,
        model=accepted.model[:120],
        channel_id=accepted.channel_id,
        api_key_id=accepted.key_id or None,
        upstream_keeps=True,
        upstream_id=accepted.upstream_id,
        status="in_progress",
        previous_id=accepted.previous_id,
        input=encode(given).decode(),
        output="[]",
        body=encode(interaction).decode(),
        owner=accepted.owner,
        token_id=accepted.token_id,
        created_at=now,
        expires_at=now + accepted.keep,
    )


def update_running(user_id: int, interaction_id: str, body: str) -> bool:
    """Store how far an interaction has come; returns whether it is still wanted."""
    rows = StoredResponse.objects.filter(user=user_id, response_id=interaction_id, status__in=RUNNING)
    return bool(rows.update(body=body))


def store_cancelled(user_id: int, interaction_id: str, body: str) -> bool:
    """Store what a cancelled interaction had come to; returns whether it is still there."""
    rows = StoredResponse.objects.filter(user=user_id, response_id=interaction_id, status=_GONE)
    return bool(rows.update(body=body, owner=""))


def fail(user_id: int, interaction_id: str, message: str, code: str) -> None:
    """Mark an interaction as failed, if it still exists and has not ended; nobody follows it any more."""
    rows = StoredResponse.objects.filter(user=user_id, response_id=interaction_id)
    row = rows.filter(status__in=RUNNING).first()
    if row is not None:
        end_response(row, message, code)
    else:
        rows.exclude(owner="").update(owner="")


def delete_interaction(user_id: int, interaction_id: str) -> StoredTurn | None:
    """Delete an interaction of a user. Returns what it was, None when there is none.

    One that runs has no id at its upstream then: whoever follows it cancels it there first.
    """
    found = find_previous(user_id, interaction_id)
    if found is None:
        return None
    StoredResponse.objects.filter(user=user_id, response_id=interaction_id).delete()
    return replace(found.turn, upstream_id="") if found.turn.running else found.turn


# -- those whose worker is gone ----------------------------------------------------------------------------------------


def is_interrupted(row: StoredResponse) -> bool:
    """Whether nobody follows an interaction that may still run at its upstream."""
    return bool(row.owner) and runs_at_upstream(row) and (is_dead(row.owner) or row.created_at < clock.now() - _LATE)


def claim_interrupted(owner: str) -> list[StoredResponse]:
    """Claim interactions whose worker is gone, for the worker `owner`. They tell the one that they had."""
    found: list[StoredResponse] = []
    rows = StoredResponse.objects.filter(response_id__startswith=INTERACTION).exclude(owner="").exclude(upstream_id="")
    for row in rows.order_by("pk"):
        if len(found) < _CLAIMED_AT_ONCE and row.owner != owner and is_interrupted(row):
            mine = StoredResponse.objects.filter(pk=row.pk, owner=row.owner)
            found += [row] if mine.update(owner=owner) else []
    return found


def put_back(row: StoredResponse, owner: str) -> None:
    """Let any worker claim an interaction once more. `owner`: whose it is now."""
    StoredResponse.objects.filter(pk=row.pk, owner=owner).update(owner=row.owner)


def payer_of(row: StoredResponse) -> Token | None:
    """The token that pays for an interaction, also when it is revoked."""
    return Token.objects.select_related("user").filter(pk=row.token_id or 0).first()


def is_recorded(row: StoredResponse) -> bool:
    """Whether its request has a usage record, with which it was charged."""
    return UsageRecord.objects.filter(request_id=row.request_id).exists()


def exists(row: StoredResponse) -> bool:
    """Whether it was not deleted meanwhile."""
    return StoredResponse.objects.filter(user=row.user_id, response_id=row.response_id).exists()
