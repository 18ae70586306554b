"""Errors of Anthropic's Messages API. Pure.

`{"type": "error", "error": {"type", "message", "details"}, "request_id"}`; in a stream, as an event named `error`.

Source: Anthropic's API reference and its SDK 2.14, November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.protocols.events import typed_event

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# The portal's codes of errors that another status stands for in streams, which have none.
_CODES: Final[Mapping[str, str]] = {
    "no_available_channel": "overloaded_error",
    "overloaded": "overloaded_error",
    "upstream_timeout": "timeout_error",
    "insufficient_quota": "rate_limit_error",
    "rate_limit_exceeded": "rate_limit_error",
    "context_length_exceeded": "invalid_request_error",
    "model_not_found": "not_found_error",
}
TYPES: Final = frozenset((*_TYPES.values(), "invalid_request_error", "api_error"))


def error_type(status: int, code: str | None, kind: str = "") -> str:
    """Anthropic's type for an error of a status and a code. `kind`: of the error itself, kept if it is one of them.

    `status`: 0 where there is none.
    """
    if code in _CODES:
        return _CODES[code or ""]
    if kind in TYPES:
        return kind
    if status in _TYPES:
        return _TYPES[status]
    return "invalid_request_error" if 400 <= status < 500 else "api_error"


def is_error_body(body: bytes) -> bool:
    """Whether a body is an error of this API."""
    found = decode_object(body) or {}
    return found.get("type") == "error" and bool(text_of(object_of(found, "error"), "message"))


def error_object(kind: str, message: str, code: str | None, param: str | None, request_id: str = "") -> Json:
    """`code`: the portal's, which stands where Anthropic's own codes do; `param`: the field at fault, beside it."""
    error: Json = {"type": kind, "message": message}
    if code:
        error["details"] = {"error_code": code, **({"param": param} if param else {})}
    found: Json = {"type": "error", "error": error}
    if request_id:
        found["request_id"] = request_id
    return found


def error_body(status: int, message: str, code: str | None, param: str | None, request_id: str) -> bytes:
    """The body of a response with an error."""
    return encode(error_object(error_type(status, code), message, code, param, request_id))


def error_event(body: bytes) -> bytes:
    """The event of an error, from the error's body."""
    return typed_event("error", body)


def stream_failure(message: str, kind: str, code: str | None) -> bytes:
    """The event that ends a stream which cannot continue. `kind`: the type of the error, in whosever words."""
    found = error_type(400 if kind == "invalid_request_error" else 0, code, kind)
    return error_event(encode(error_object(found, message, code, None)))
