"""Errors of Gemini's Interactions API. Pure.

`{"error": {"code", "message"}}` with a code that is a word; in streams an event of the type `error`.
Source: ai.google.dev/gemini-api/docs/api-errors, google-genai 3.6.1; November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of
from relay.protocols.events import typed_event

_CODES: Final[Mapping[int, str]] = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    416: "out_of_range",
    429: "rate_limit_exceeded",
    499: "cancelled",
    503: "unavailable",
    504: "deadline_exceeded",
}
# The portal's own codes, where one of the API says more than the status does.
_BY_CODE: Final[Mapping[str, str]] = {
    "insufficient_quota": "quota_exceeded",
    "model_not_found": "model_not_found",
}
# The codes of errors in streams, which have no status, by the portal's types and codes.
_IN_STREAMS: Final[Mapping[str, int]] = {
    "authentication_error": 401,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "permission_error": 403,
    "rate_limit_error": 429,
    "no_available_channel": 503,
    "relay_unavailable": 503,
    "upstream_timeout": 504,
}
_DOMAIN: Final = "airelays"


def error_code(status: int, code: str | None) -> str:
    """The API's code for an HTTP status. `code`: the portal's."""
    return _BY_CODE.get(code or "") or _CODES.get(status) or ("invalid_request" if 400 <= status < 500 else "internal")


def error_object(status: int, message: str, code: str | None, param: str | None = None) -> Json:
    """An error of an HTTP status. The portal's own code is its `reason`."""
    error: Json = {"code": error_code(status, code), "message": message}
    if code:
        metadata: Json = {"metadata": {"field": param}} if param else {}
        error["details"] = [{"reason": code.upper(), "domain": _DOMAIN, **metadata}]
    return error


def error_body(status: int, message: str, code: str | None, param: str | None = None) -> bytes:
    """The body of a response with an error."""
    return encode({"error": error_object(status, message, code, param)})


def is_error_body(body: bytes) -> bool:
    """Whether a body is an error of this API."""
    error = object_of(decode_object(body) or {}, "error")
    return isinstance(error.get("code"), str) and isinstance(error.get("message"), str) and "type" not in error


def error_event(error: Json) -> bytes:
    """The event by which a stream ends that cannot go on."""
    return typed_event("error", encode({"event_type": "error", "error": error}))


def error_event_of(body: bytes) -> bytes:
    """The same of an error's body, for streams whose head has been sent."""
    return error_event(object_of(decode_object(body) or {}, "error"))


def stream_error(message: str, kind: str, code: str | None, param: str | None) -> bytes:
    """The same of an error of the portal. `kind`: its type."""
    status = _IN_STREAMS.get(code or "") or _IN_STREAMS.get(kind, 500)
    return error_event(error_object(status, message, code, param))
