"""Errors in events of the Realtime API, and in the frame that closes a connection. Pure.

Upstreams quote keys, hosts and accounts in them, as in answers over HTTP. Source: OpenAI's Realtime reference and what
its server was seen to send, November 2026: a key that it does not accept is told after the handshake, by an `error`
event and the code 3000 with a reason such as `invalid_request_error.invalid_api_key`; a session that has lasted for
its longest time ends with 1001.

An error is what stands where the API itself puts one. Events also repeat what clients have written, such as the
parameters of their tools and their metadata, and what the MCP servers of clients answer: that is not the upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from portal.lib.json import Json, encode, object_of, text_of
from portal.lib.redaction.redact import clean_upstream_message
from relay.protocols.characters import read_whole_object
from relay.protocols.errors import own_words

_ERROR: Final = '"error"'
_WORDS: Final = re.compile(r"([a-z]\w{1,60})\.([a-z]\w{1,60})")  # the type and the code of an error
_MEMBERS: Final = ("type", "code", "message", "param")  # of an error that is no object of its own
_REASON_BYTES: Final = 120  # a frame has room for 123
_ENDS: Final = frozenset(("response.done", "response.failed"))
_ENDINGS: Final = frozenset((1000, 1001))  # normal, and a server or a session that ends


def read_event(text: str) -> Json | None:
    """An event of the upstream that may have an error in it, decoded; None for all others, which are not decoded.

    Empty when it cannot be decoded.
    """
    return (read_whole_object(text.encode("utf-8", "surrogatepass")) or {}) if _ERROR in text else None


def errors_of(event: Json) -> list[tuple[Json, str]]:
    """Where an event has errors of the upstream: the objects that hold them, and their names there.

    An `error` event whose message stands beside its type holds it itself, under the empty name.
    """
    kind, response = text_of(event, "type"), object_of(event, "response")
    holders = [object_of(response, "status_details")] if kind in _ENDS else []
    if kind in _ENDS and text_of(response, "status") == "failed":
        holders.append(response)
    if is_error(event) or (kind.endswith(".failed") and "mcp" not in kind):
        holders.append(event)
    found = [(holder, "error") for holder in holders if _is_told(holder.get("error"))]
    if not found and is_error(event) and event.get("message"):
        found.append((event, ""))
    return found


def _is_told(error: object) -> bool:
    return isinstance(error, (dict, str)) and bool(error)


def error_body(holder: Json, name: str) -> bytes:
    """An error of an event, as the body of an answer over HTTP has it."""
    if not name:
        return encode({"error": {member: holder.get(member) for member in _MEMBERS if member != "type"}})
    code = holder.get("code") if isinstance(holder[name], str) else None  # vLLM
    return encode({"error": holder[name]} if code is None else {"error": holder[name], "code": code})


def replace_error(holder: Json, name: str, error: Json) -> None:
    """Put what the client is told in place of an error. The client's own id of the event at fault is kept."""
    if name and isinstance(holder[name], str):  # clients of such a server expect a text
        holder[name] = error["message"]
        return
    before = object_of(holder, name)
    event_id = before.get("event_id")
    about = {"event_id": event_id if isinstance(event_id, str) else None}
    holder["error"] = {**error, **(about if is_error(holder) or "event_id" in before else {})}
    if not name:
        for member in _MEMBERS[1:]:
            holder.pop(member, None)


def is_about_audio(event: Json) -> bool:
    """Whether an `error` event refuses one about the buffer of audio, not one that asks for a response.

    The upstream's own words tell: in what it quotes are the client's.
    """
    error = object_of(event, "error") or event
    words = (
        text_of(error, "code"),
        text_of(error, "type"),
        text_of(error, "param"),
        own_words(text_of(error, "message")),
    )
    return any("input_audio_buffer" in text.lower().replace(" ", "_") for text in words)


def is_error(event: Json) -> bool:
    """Whether an event of the upstream refuses one of the client's, or says that the session has failed."""
    return text_of(event, "type") == "error"


def is_normal_end(code: int) -> bool:
    """Whether an upstream that closes a connection with this code has not failed."""
    return code in _ENDINGS


def close_body(code: int, reason: str) -> bytes:
    """What a close frame says, as the body of an answer with an error."""
    words = _WORDS.fullmatch(reason.strip())
    error: Json = {"message": f"The connection was closed with {code}: {reason}" if reason else f"closed with {code}"}
    if words is not None:
        error.update(type=words[1], code=words[2])
    return encode({"error": error})


def shown_reason(reason: str) -> str:
    """A reason of the upstream for the client's close frame, without keys, hosts and accounts."""
    cleaned = clean_upstream_message(reason, _REASON_BYTES)
    return cleaned.encode()[:_REASON_BYTES].decode("utf-8", "ignore")


def first_error(event: Json) -> bytes:
    """The first error of an event, as the body of an answer over HTTP has it; empty when there is none."""
    return next((error_body(holder, name) for holder, name in errors_of(event)), b"")


def clean_errors(event: Json, told: Callable[[bytes], Json]) -> None:
    """Clean all errors of an event in place. `told`: what the client is told of an error, from its body."""
    for holder, name in errors_of(event):
        replace_error(holder, name, told(error_body(holder, name)))
