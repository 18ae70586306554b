"""Interactions as objects: their members that the portal sets, their states, and reading complete ones. Pure.

Source: google-genai 3.6.1 (`interactions.Interaction`), ai.google.dev/gemini-api/docs/interactions; November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from portal.lib.json import Json, decode, encode, object_of, objects_of, text_of
from portal.lib.redaction.redact import clean_upstream_message
from relay.protocols.characters import read_typed
from relay.protocols.error_objects import Envelope
from relay.protocols.fields import Fields
from relay.protocols.interactions.usage import SEARCH, parse_interaction_usage, searches_in
from relay.protocols.usage import Usage, present

RUNNING: Final = frozenset(("queued", "in_progress"))
FAILED: Final = "failed"
_TOLD: Final = 900  # characters of what went wrong
REASONS: Final = ("errors", "error")
UNSAID: Final = b'{"error":{"message":"The upstream failed, and did not say why. Try again.","code":"internal"}}'

_members: Final = msgspec.json.Decoder(Fields)


class _Interaction(Envelope):
    id: object = None
    model: object = None
    status: object = None
    steps: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()


_interaction: Final = msgspec.json.Decoder(_Interaction)


@dataclass(frozen=True, slots=True)
class InteractionAnswer:
    """What the portal needs of an interaction that an upstream answers with."""

    id: str
    status: str
    usage: Usage | None
    error: bytes | None = None  # what went wrong, as an error object

    @property
    def running(self) -> bool:
        return self.status in RUNNING


def parse_interaction(body: bytes) -> InteractionAnswer | None:
    """Read an interaction; None for what is none. An error object that came with the status 200 has no `status`."""
    try:
        found = read_typed(_interaction, body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    answered = isinstance(found.status, str) and bool(found.status)
    if found.is_error(answered and not present(found.error)):
        return InteractionAnswer("", "", None, body)
    if not answered:
        return None
    status, name = str(found.status), found.id if isinstance(found.id, str) else ""
    usage = parse_interaction_usage(found.usage) if present(found.usage) else None
    model = found.model if isinstance(found.model, str) else ""
    if usage is not None and not usage.searches and SEARCH.encode() in bytes(found.steps):
        usage = replace(usage, searches=searches_in(objects_of({"": decode(found.steps)}, ""), model))
    error = error_of(object_of({"found": decode(body)}, "found")) if status == FAILED else None
    return InteractionAnswer(name, status, usage, error)


def error_of(interaction: Json) -> bytes:
    """The error object of an interaction that has failed: its own, or that of a step."""
    own = [*objects_of(interaction, "errors"), object_of(interaction, "error")]
    of_steps = [object_of(step, "error") for step in objects_of(interaction, "steps")]
    found = next((error for error in (*own, *of_steps) if error.get("message") or error.get("code")), None)
    return encode({"error": found}) if found is not None else UNSAID


def with_members(body: bytes, own: Mapping[str, object]) -> bytes:
    """An interaction with these members, and all others as their bytes; without words about the portal's account."""
    found = _members.decode(body)
    theirs, ours = text_of({"id": decode(found.get("id", b"null"))}, "id").encode(), text_of(dict(own), "id").encode()
    for name in REASONS if theirs and ours else ():
        if name in found:  # nobody can use the upstream's id
            found[name] = msgspec.Raw(bytes(found[name]).replace(theirs, ours))
    for name, value in own.items():
        found[name] = msgspec.Raw(encode(value))
    for name in (*REASONS, "steps"):
        if name in found and (name != "steps" or b'"error"' in bytes(found[name])):
            found[name] = msgspec.Raw(encode(_clean(name, decode(found[name]))))
    return encode(found)


def clean_errors(interaction: Json) -> None:
    """Take words about the portal's account out of what went wrong, in place."""
    for name in (*REASONS, "steps"):
        if name in interaction:
            interaction[name] = _clean(name, interaction[name])


def _clean(name: str, value: object) -> object:
    if isinstance(value, list):
        return [_clean(name, entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if name == "steps":
        return {**value, "error": _clean("error", value["error"])} if "error" in value else value
    if isinstance(value.get("message"), str):
        return {**value, "message": clean_upstream_message(text_of(value, "message"), _TOLD)}
    return value
