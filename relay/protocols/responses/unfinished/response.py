"""The response of an answer that broke off: what is stored of it, and what of that a later turn is told. Pure."""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, objects_of, text_of
from relay.protocols.codec import BrokenOff

UNFINISHED: Final = frozenset(("failed", "cancelled"))  # statuses


def broken_response(so_far: Json, end: BrokenOff) -> Json:
    """The response of an answer that broke off. `so_far`: with the items that have arrived."""
    error: Json | None = {"code": end.code or "server_error", "message": end.message} if end.message else None
    return {**so_far, "status": end.status, "error": error, "incomplete_details": None, "completed_at": None}


def usable_items(response: Json) -> list[Json]:
    """The items of a response that can be told to a model in a later turn.

    Of one that broke off, not a call that lacks some of its arguments, nor reasoning without what it led to.
    """
    output = objects_of(response, "output")
    if text_of(response, "status") not in UNFINISHED:
        return output
    found = [item for item in output if text_of(item, "type") == "message" or text_of(item, "status") != "incomplete"]
    while found and text_of(found[-1], "type") == "reasoning":
        found.pop()
    return found
