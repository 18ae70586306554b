"""Errors of Google's APIs. Pure.

`{"error": {"code", "message", "status", "details"}}`: the HTTP status, a name of `google.rpc.Code`, and typed details.
Source: google.rpc.Status, ai.google.dev/gemini-api/docs/troubleshooting, google-genai 3.6.1; November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of

_STATUSES: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# The status of errors in streams, which have none of their own, by the portal's types and codes.
_BY_TYPE: Final[Mapping[str, int]] = {
    "authentication_error": 401,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "permission_error": 403,
    "rate_limit_error": 429,
    "unsupported_error": 501,
}
_BY_CODE: Final[Mapping[str, int]] = {
    "model_not_found": 404,
    "no_available_channel": 503,
    "relay_unavailable": 503,
    "upstream_error": 502,
    "upstream_timeout": 504,
    "upstream_truncated": 502,
}
_DOMAIN: Final = "airelays"  # of reasons that are the portal's own


def status_name(status: int) -> str:
    """The name of `google.rpc.Code` for an HTTP status."""
    return _STATUSES.get(status) or ("INVALID_ARGUMENT" if 400 <= status < 500 else "INTERNAL")


def error_object(
    status: int, message: str, code: str | None, param: str | None = None, retry_after: float | None = None
) -> Json:
    """An error of an HTTP status. `code`: the portal's. `retry_after`: seconds."""
    details: list[Json] = []
    if code:
        metadata: Json = {"metadata": {"field": param}} if param else {}
        info: Json = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code.upper(), "domain": _DOMAIN}
        details.append({**info, **metadata})
    if retry_after is not None:
        delay = f"{max(retry_after, 0.001):.3f}".rstrip("0").rstrip(".")
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay}s"})
    error: Json = {"code": status, "message": message, "status": status_name(status)}
    return {"error": {**error, "details": details} if details else error}


def error_body(
    status: int, message: str, code: str | None, param: str | None = None, retry_after: float | None = None
) -> bytes:
    """The body of a response with an error."""
    return encode(error_object(status, message, code, param, retry_after))


def is_error_body(body: bytes) -> bool:
    """Whether a body is an error of Google's."""
    error = object_of(decode_object(body) or {}, "error")
    return isinstance(error.get("code"), int) and isinstance(error.get("message"), str) and "status" in error


def stream_error(message: str, kind: str, code: str | None, param: str | None) -> Json:
    """The error that ends a stream which cannot continue. `kind`: the portal's type of it."""
    status = _BY_CODE.get(code or "") or _BY_TYPE.get(kind, 500)
    return error_object(status, message, code, param)
