"""What an upstream's failure means: another try or not, and what the client is told if every try fails. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

from portal.lib.redact import clean_upstream_message
from relay.errors import (
    CredentialsExhausted,
    NoAvailableChannel,
    RelayError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefused,
)


class FailureClass(Enum):
    """Classes of upstream failures; `retry` says whether another channel or key may succeed."""

    CLIENT = ("client", False)  # the request is wrong everywhere
    KEY_DEAD = ("key_dead", True)
    KEY_FORBIDDEN_MODEL = ("key_forbidden_model", True)
    BILLING = ("billing", True)  # the account behind the key has no money
    RATE = ("rate", True)
    OVERLOAD = ("overload", True)
    TRANSIENT = ("transient", True)
    TIMEOUT = ("timeout", False)  # the upstream may have accepted, and billed, the request
    CONFIG = ("config", True)

    def __init__(self, word: str, retry: bool) -> None:
        self.word = word
        self.retry = retry


class Failure(Exception):
    """One attempt failed. `error` is what the client is told when no other attempt is left."""

    def __init__(self, kind: FailureClass, error: RelayError, status: int = 0, detail: str = "") -> None:
        super().__init__(detail or error.message)
        self.kind, self.error, self.status, self.detail = kind, error, status, detail


class _Error(msgspec.Struct):
    message: object = None
    type: object = None
    code: object = None
    param: object = None


class _Envelope(msgspec.Struct):
    error: _Error | str | None = None
    message: object = None
    type: object = None
    code: object = None
    param: object = None
    detail: object = None


_envelope: Final = msgspec.json.Decoder(_Envelope)
_BILLING: Final = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "exceeded_current_quota_error",
    "insufficient_user_quota",
    "arrearage",
}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRY_AGAIN: Final = re.compile(r"try again in ((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)", re.I)
KEYS_MESSAGE: Final = "The upstream did not accept the portal's credentials for this model. Tell the portal's administrator; a retry will not help."


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """An upstream's error object in one shape, whatever shape it had."""

    message: str
    type: str
    code: str | None
    param: str | None


def read_error(body: bytes) -> UpstreamError | None:
    """`{"error": {…}}`, `{"error": "…"}`, a flat object, `{"detail": …}` or `[{…}]`; None for anything else, such as HTML."""
    text = body.strip()
    if text.startswith(b"["):
        text = text[1:-1]
    try:
        envelope = _envelope.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    inner: _Error
    if isinstance(envelope.error, _Error):
        inner = envelope.error
    elif isinstance(envelope.error, str):
        inner = _Error(envelope.error, envelope.type, envelope.code, envelope.param)
    elif envelope.message is not None or envelope.detail is not None:
        inner = _Error(envelope.message if envelope.message is not None else envelope.detail, envelope.type, envelope.code, envelope.param)
    else:
        return None
    message = inner.message if isinstance(inner.message, str) else msgspec.json.encode(inner.message).decode() if inner.message else ""
    code = str(inner.code) if isinstance(inner.code, (str, int)) and not isinstance(inner.code, bool) else None
    return UpstreamError(
        clean_upstream_message(message) or "The upstream gave no reason.",
        inner.type if isinstance(inner.type, str) and inner.type else "",
        clean_upstream_message(code, 64) if code else None,
        inner.param if isinstance(inner.param, str) else None,
    )


def retry_after(headers: Mapping[str, str], message: str = "") -> float | None:
    """Seconds until another try makes sense, from the headers or the text of a refusal."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * factor
        except ValueError:
            continue
        if 0 <= seconds < 86_400 * 31:
            return seconds
    match = _TRY_AGAIN.search(message)
    return sum(float(number) * _UNIT[unit] for number, unit in _DURATION.findall(match.group(1))) if match else None


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The meaning of an answer that is not a completion: any status of 300 and more, or a 200 that carries an error object."""
    error = read_error(body)
    detail = f"HTTP {status}: {error.message if error else 'no error object in the answer'}"[:300]
    wait = retry_after(headers, error.message if error else "")
    code = (error.code or "").lower() if error else ""
    kind_word = error.type.lower() if error else ""
    if status != 401 and status < 500 and (code in _BILLING or kind_word in _BILLING or status == 402):
        return Failure(FailureClass.BILLING, CredentialsExhausted(KEYS_MESSAGE), status, detail)
    if status in {401, 403}:
        return Failure(FailureClass.KEY_DEAD, CredentialsExhausted(KEYS_MESSAGE), status, detail)
    if status == 429:
        message = "Every upstream for this model is at its rate limit. Try again after the time in Retry-After."
        return Failure(FailureClass.RATE, UpstreamRateLimited(message, retry_after=wait if wait is not None else 5), status, detail)
    if status in {503, 529, 498}:
        message = "The upstream for this model is overloaded. Try again after the time in Retry-After."
        return Failure(FailureClass.OVERLOAD, NoAvailableChannel(message, retry_after=wait if wait is not None else 5), status, detail)
    if (status in {404, 405} and error is None) or 300 <= status < 400:
        message = "The upstream does not serve this kind of request at the configured address. Tell the portal's administrator."
        return Failure(FailureClass.CONFIG, UpstreamFailed(message), status, detail)
    if status == 404 and error is not None:
        return Failure(FailureClass.KEY_FORBIDDEN_MODEL, _refused(status, error), status, detail)
    if 400 <= status < 500 and status not in {408, 409, 425} and error is not None:
        return Failure(FailureClass.CLIENT, _refused(status, error), status, detail)
    failed = UpstreamFailed("The upstream failed on this request. Try again; if it keeps failing, try another model.", retry_after=wait)
    return Failure(FailureClass.TRANSIENT, failed, status, detail)


def _refused(status: int, error: UpstreamError) -> UpstreamRefused:
    return UpstreamRefused(status, error.message, error.type or "invalid_request_error", error.code, error.param)


def stream_error(data: bytes) -> tuple[UpstreamFailed, str]:
    """An error object inside a running stream: what the client is sent, and a line for the record."""
    error = read_error(data)
    if error is None:
        return UpstreamFailed("The upstream ended the answer with an error. Try again."), "error event"
    out = UpstreamFailed(error.message, code=error.code or "upstream_error", param=error.param)
    if error.type:
        out.wire_type = error.type
    return out, f"error event: {error.message}"[:300]
