"""Tells error objects from answers where both come with the status 200, in the forms that vendors use. Pure.

`{"error": …}` (OpenAI, OpenRouter), `{"object": "error"}` (vLLM, SGLang), `{"type": "error"}` (Anthropic),
`{"detail": …}` (FastAPI), `{"code", "message"}` (DashScope, SiliconFlow), `{"code", "msg"}` (Zhipu), `{"error_code",
"error_msg"}` (Baidu), `{"errors": […]}` (Cloudflare), `{"Response": {"Error": {…}}}` (Tencent), `base_resp`
with a `status_code` (MiniMax), and events named `error`. In streams also a line `error: {…}` (llama.cpp), a list with
an error in it (Google), and a sentence (proxies and frameworks).
`relay.protocols.errors` reads what they say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from portal.lib.json import Json, decode, decode_object, encode, object_of, text_of
from portal.lib.redaction.redact import clean_upstream_message
from relay.protocols.errors import Told
from relay.protocols.events import UNREADABLE, payload

_EVENT_NAME: Final = re.compile(rb"(?:^|[\r\n])event:[ ]?([^\r\n]*)")
_ERROR_LINE: Final = re.compile(rb"(?:^|[\r\n])error:[ ]?([^\r\n]+)")
_SAYS_ERROR: Final = re.compile(r"error|fail|exception|timed? ?out|refused|denied", re.I)
_BARE: Final = (b"{", b"[")  # with which no line of an event begins
_KEEP_ALIVE: Final = 64  # bytes; shorter data without an object is a sign of life, such as `data: ping`
_SUCCESS: Final = frozenset(("0", "200", "ok", "success"))  # values of `code` that mean no error
_TEXTS: Final = ("type", "object", "model", "size", "id")  # of an entry that is an error, beside what it says
_NO_ANSWER: Final = ("detail", "errors", "error_code", "error_msg")


class Envelope(msgspec.Struct):
    """The members of an answer that tell whether it is an error; base class of the answers that are decoded."""

    error: msgspec.Raw = msgspec.Raw()
    kind: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="object")
    type: msgspec.Raw = msgspec.Raw()
    detail: msgspec.Raw = msgspec.Raw()
    errors: msgspec.Raw = msgspec.Raw()
    error_code: msgspec.Raw = msgspec.Raw()
    error_msg: msgspec.Raw = msgspec.Raw()
    code: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    msg: msgspec.Raw = msgspec.Raw()
    base_resp: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Response")

    def is_error(self, answered: bool) -> bool:
        """`answered`: the member that holds the answer is there."""
        if answered and not (self.error or self.type or self.base_resp):
            return bool(self.kind) and decode(self.kind) == "error"
        found = {"error": self.error, "object": self.kind, "type": self.type, "base_resp": self.base_resp}
        if not answered:
            found |= {name: getattr(self, name) for name in _MEMBERS} | {"Response": self.response}
        return is_error_object({name: decode(raw) for name, raw in found.items() if raw}, answered)


_MEMBERS: Final = tuple(name for name in Envelope.__struct_fields__ if name not in {"kind", "response"})


def is_error_object(found: Mapping[str, object], answered: bool) -> bool:
    """Whether a JSON object is an error. `answered`: the member that holds the answer is there.

    Healthy answers may have an empty `error`, and `code` and `message` beside what they answer.
    """
    if states(found.get("error")) or found.get("object") == "error" or found.get("type") == "error":
        return True
    if str(object_of(found, "base_resp").get("status_code") or 0) != "0":
        return True
    if answered:
        return False
    code = found.get("code")
    if (
        states(code)
        and str(code).lower() not in _SUCCESS
        and (states(found.get("message")) or states(found.get("msg")))
    ):
        return True
    return any(states(found.get(name)) for name in _NO_ANSWER) or "Error" in object_of(found, "Response")


def error_of_entry(entry: object, answered: bool) -> bytes | None:
    """The error that an entry of an answer's list is, or has, as a body of its own; None for another entry.

    `answered`: the member that holds the answer is in the entry.
    """
    if not isinstance(entry, dict) or not is_error_object(entry, answered):
        return None
    return encode({"error": entry["error"]} if states(entry.get("error")) else entry)


def told_entry(entry: Mapping[str, object], body: bytes, told: Told) -> dict[str, object]:
    """An entry that is an error as the client is told it: with its error cleaned, and no text that is not.

    `body`: of its error, as `error_of_entry` has it.
    """
    plain = {name: value for name, value in entry.items() if isinstance(value, (bool, int, float))}
    texts = {name: clean_upstream_message(text_of(entry, name), 200) for name in _TEXTS if text_of(entry, name)}
    return {**texts, **plain, "error": told(body)}


def clean_member(holder: Json, told: Told) -> bytes | None:
    """Put what the client is told in place of the `error` of an object; returns the error as a body of its own.

    It keeps its form: a text, or an object with no members but those that it had. None: it has no error.
    """
    error = holder.get("error")
    if not states(error):
        return None
    body = encode({"error": error})
    shown = told(body)
    if isinstance(error, dict):
        shown = {name: value for name, value in shown.items() if name in error or name == "message"}
    holder["error"] = shown if isinstance(error, dict) else shown["message"]
    return body


def states(value: object) -> bool:
    """Whether a member says something: not null, false, 0 or empty, nor an object of such members."""
    return any(map(states, value.values())) if isinstance(value, dict) else bool(value)


def event_name(event: bytes) -> str:
    """The name in an event's `event` line; empty when it has none."""
    names = _EVENT_NAME.findall(event)
    return names[-1].strip().decode("latin-1") if names else ""


def named_error(event: bytes) -> bytes | None:
    """The error object of an event that is named `error`, has a line of this name, or is a bare object without a field
    name; None for other events.
    """
    if b"error" in event:
        line = _ERROR_LINE.search(event)
        if line is not None:
            return _error_of(line[1])
        if b"event:" in event and event_name(event) == "error":
            return _error_of(payload(event))
    if event[:1] in _BARE:
        found = decode_object(event)
        return event.strip() if found is not None and is_error_object(found, False) else None
    return None


def unreadable_error(event: bytes, data: bytes) -> bytes | None:
    """The error object behind an event whose data is no JSON object; None for data without content (`data: ping`)."""
    named = named_error(event)
    if named is not None:
        return named
    found = decode(data)
    if isinstance(found, list):
        errors = [entry for entry in found if isinstance(entry, dict) and is_error_object(entry, False)]
        if errors:
            return encode(errors[0])
    if b"{" in data:
        return UNREADABLE
    text = found if isinstance(found, str) else data.decode("utf-8", "replace")
    return _error_of(text.encode()) if len(data) > _KEEP_ALIVE or _SAYS_ERROR.search(text) else None


def _error_of(data: bytes) -> bytes:
    """An error object as it is, or one with a text as its message."""
    if decode_object(data) is not None:
        return data
    return encode({"error": {"message": data.decode("utf-8", "replace"), "type": "server_error", "code": None}})
