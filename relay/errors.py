"""The errors that /v1 can answer with.

RelayError
├── InvalidRequest 400          the body or a field of it is wrong             (client's fault)
│   ├── RequestTooLarge 413
│   ├── UnsupportedContentEncoding 415
│   ├── UnsupportedParameter 422  what the upstream cannot honour
│   └── UnsupportedEndpoint 400   no channel of the model serves it
├── NotFound 404 · MethodNotAllowed 405 · NotImplementedHere 404
├── InvalidToken 401            unknown, malformed or missing token
│   └── TokenUnusable 401       expired or disabled
├── AddressBlocked 429          too many bad tokens from one address
├── Forbidden 403               address or model not allowed
├── InsufficientQuota 429       balance, quota or budget used up               (the caller can fix it)
├── RateLimited 429             a limit of requests, tokens or concurrency
├── ModelNotPriced 400          the model has no price                         (the operator can fix it)
├── NoAvailableChannel 503      no channel can serve the model now
│   ├── WarmChannelUnavailable 503  the one that has the conversation cached cannot, and no other shall
│   └── ConversionRefused 503   none that speaks the client's API can, and no other shall
├── UpstreamRefused 4xx         the upstream rejects the request               (client's fault)
├── UpstreamRateLimited 429     every channel is at its vendor's limit
├── LoopDetected 508            the request has come back, through other relays (the operator can fix it)
├── PlanAuthError 503           the sign-in behind a user's own plan does not do (its owner can fix it)
├── PlanLimitError 429          a usage window of a user's own plan is used up
├── PlanForbidden 403           a user's own plan does not include this
├── CredentialsExhausted 502    upstreams refuse our keys                      (the operator can fix it)
├── UpstreamFailed 502          unreachable, garbage, cut off
├── UpstreamTimeout 504
├── RelayUnavailable 503        our database is down or busy
│   └── Stopping 503            the portal is being stopped
├── StorageFull 503             the disk is full                               (the operator can fix it)
├── RequestEnded 403            token revoked, or ended by an administrator
└── InternalError 500           a fault of the portal

Each has a status, a public message and whether a retry by the client can help. A message is an English sentence that
says what to do; it names no upstream host, key or account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from portal.lib.json import encode

# Seconds that a client may be asked to wait before it tries again by itself. Of the official SDKs some do not wait
# longer, some come back at once instead, and Anthropic's (2.14) would sleep for hours without a word.
LONGEST_WAIT: Final = 120.0
_remedies: Mapping[str, str] = {}


def set_remedies(remedies: Mapping[str, str]) -> None:
    """Set the administrator's texts that are appended to the messages of errors, by code. For this process."""
    global _remedies  # replaced as a whole, so that no reader sees a half
    _remedies = remedies


class RelayError(Exception):
    """An error that the API answers with."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    should_retry: ClassVar[bool | None] = None  # for the header x-should-retry; None: the client decides

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.http_status = self.status
        self.public_type = self.type
        self.public_code = code if code is not None else self.code
        self.retry_after = float(retry_after) if retry_after is not None else None  # seconds
        self.retry = self.should_retry
        self.extra: Mapping[str, str] = {}  # further headers
        self.verbatim = b""  # the upstream's own body, where it speaks the client's API; empty: none

    @property
    def told(self) -> str:
        """The message, with what the administrator adds to it."""
        added = _remedies.get(self.public_code or "")
        return f"{self.message} {added}" if added else self.message

    def body(self) -> bytes:
        """The body of the response: `{"error": {"message", "type", "param", "code"}}`."""
        return encode(
            {
                "error": {
                    "message": self.told,
                    "type": self.public_type,
                    "param": self.param,
                    "code": self.public_code,
                }
            }
        )

    def event(self) -> bytes:
        """The same error as the last event of a stream."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if self.retry_after is not None:
            found["retry-after"] = str(max(1, math.ceil(self.retry_after)))
            if not self.retry_after.is_integer():  # clients that read milliseconds need not wait longer
                found["retry-after-ms"] = str(math.ceil(round(self.retry_after * 1000, 3)))
        retry = self.retry
        if retry is None and self.retry_after is not None and self.retry_after > LONGEST_WAIT:
            retry = False
        if retry is not None:
            found["x-should-retry"] = "true" if retry else "false"
        found.update(self.extra)
        return found


class InvalidRequest(RelayError):
    status, type, code = 400, "invalid_request_error", "invalid_value"


class RequestTooLarge(InvalidRequest):
    status, code = 413, "request_too_large"

    @classmethod
    def over(cls, limit: int) -> RequestTooLarge:
        """A body of more than `limit` bytes."""
        size = f"{limit / 1_048_576:.0f} MiB" if limit >= 1_048_576 else f"{limit} bytes"
        return cls(
            f"The request body is larger than the {size} that this portal accepts. Send less, or send files by URL."
        )


class UnsupportedContentEncoding(InvalidRequest):
    """The body is compressed in a way that the portal does not read."""

    status, code, should_retry = 415, "unsupported_content_encoding", False

    def __init__(self, message: str, accepted: str) -> None:
        super().__init__(message)
        self.extra = {"accept-encoding": accepted}  # RFC 9110, 12.5.3


class UnsupportedParameter(InvalidRequest):
    status, code = 422, "unsupported_parameter"


class UnsupportedEndpoint(InvalidRequest):
    """No channel of the model serves this endpoint."""

    code, should_retry = "unsupported_endpoint", False


class UnsupportedAudio(InvalidRequest):
    """The length of a recording, by which it is priced, cannot be measured."""

    code, should_retry = "unsupported_audio", False


class NotFound(RelayError):
    status, type, code = 404, "invalid_request_error", "unknown_url"


class ModelNotFound(NotFound):
    code = "model_not_found"


class RequestNotFound(NotFound):
    code = "request_not_found"


class ObjectNotFound(NotFound):
    """A file, response, conversation, upload or batch does not exist, or belongs to another user."""

    code = "not_found"


class MethodNotAllowed(RelayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> Mapping[str, str]:
        return {"allow": self.allow}


class NotImplementedHere(RelayError):
    """OpenAI has this endpoint, the portal does not. Not 501: SDKs would repeat the request."""

    status, type, code, should_retry = 404, "invalid_request_error", "not_implemented", False


class InvalidToken(RelayError):
    status, type, code = 401, "authentication_error", "invalid_api_key"

    def headers(self) -> Mapping[str, str]:
        return {**super().headers(), "www-authenticate": "Bearer"}


class TokenUnusable(InvalidToken):
    code = "token_disabled"


class AddressBlocked(RelayError):
    status, type, code = 429, "rate_limit_error", "ip_temporarily_blocked"


class Forbidden(RelayError):
    status, type, code = 403, "permission_error", "model_not_allowed"


class InsufficientQuota(RelayError):
    status, type, code, should_retry = 429, "insufficient_quota", "insufficient_quota", False
    renewed_at: float | None = None  # seconds since 1970, of a budget


class RateLimited(RelayError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class ConcurrencyLimited(RateLimited):
    code = "concurrency_limit_exceeded"


class ModelNotPriced(RelayError):
    status, type, code, should_retry = 400, "invalid_request_error", "model_not_priced", False


class NoAvailableChannel(RelayError):
    status, code = 503, "no_available_channel"


class WarmChannelUnavailable(NoAvailableChannel):
    code = "warm_channel_unavailable"


class ConversionRefused(NoAvailableChannel):
    code = "conversion_refused"


class UpstreamRefused(RelayError):
    """The upstream rejected the request with a 4xx: its status, type and code, and its message without secrets."""

    status, type = 400, "invalid_request_error"

    def __init__(self, status: int, message: str, type: str, code: str | None, param: str | None) -> None:
        super().__init__(message, param=param)
        self.http_status, self.public_type, self.public_code = status, type, code


class UpstreamRateLimited(RelayError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class LoopDetected(RelayError):
    status, code, should_retry = 508, "relay_loop", False

    @classmethod
    def behind(cls) -> LoopDetected:
        """The error where a relay behind an upstream says so."""
        return cls(
            "The way to this model leads back to a relay that the request had passed through. Tell the portal's "
            "administrator: the channel of this model, or one behind it, leads in a circle."
        )


class PlanAuthError(RelayError):
    """The sign-in behind a user's own plan does not do. `state`: why, as clients of AIRelays know it."""

    status, type, should_retry = 503, "authentication_error", False
    code = "upstream_auth_missing"

    def __init__(self, state: str, later: bool = False) -> None:
        """`later`: it may do in a moment."""
        super().__init__(_PLAN_LATER if later else _PLAN_STATES[state], code=f"upstream_auth_{state}")
        self.extra = {"x-airelays-upstream-auth": state}
        if later:
            self.retry = True


_PLAN_STATES: Final = {
    "missing": "No ChatGPT login found. Run `airelays login` first, or sign in on the portal's page “ChatGPT”.",
    "refresh_failed": (
        "The ChatGPT login could not be renewed. Run `airelays login`, or sign in again on the portal's page “ChatGPT”."
    ),
    "rejected": (
        "Upstream ChatGPT login is missing or expired. Run `airelays login` first, or sign in again on the portal's "
        "page “ChatGPT”."
    ),
    "account_mismatch": (
        "The ChatGPT login is now another account's than the one that signed in. Run `airelays login`, or sign in "
        "again on the portal's page “ChatGPT”."
    ),
    "incomplete": "The ChatGPT login does not include the use of the plan. Sign in again and give that consent.",
}
_PLAN_LATER: Final = "The ChatGPT login could not be renewed just now. Try again in a moment."


class PlanLimitError(RelayError):
    """A usage window of a user's own plan is used up."""

    status, type, code, should_retry = 429, "usage_limit_reached", "usage_limit_reached", False


class PlanForbidden(RelayError):
    """A user's own plan does not include this."""

    status, type, code, should_retry = 403, "permission_error", "plan_not_eligible", False


class CredentialsExhausted(RelayError):
    status, code, should_retry = 502, "upstream_credentials_exhausted", False


class UpstreamFailed(RelayError):
    status, code = 502, "upstream_error"


class UpstreamTruncated(UpstreamFailed):
    code = "upstream_truncated"


class UpstreamTimeout(RelayError):
    status, code = 504, "upstream_timeout"


class RelayUnavailable(RelayError):
    status, code = 503, "relay_unavailable"


class StorageFull(RelayError):
    """A file could not be written to disk."""

    status, code, should_retry = 503, "storage_unavailable", False


class Stopping(RelayUnavailable):
    """The portal is being stopped, and the grace period of this request is over."""


class RequestEnded(RelayError):
    """A running request was ended: its token or account was, its user cancelled it, or an administrator ended it."""

    status, type, code = 403, "permission_error", "request_ended"


class InternalError(RelayError):
    status, code = 500, "internal_error"

    def __init__(self) -> None:
        super().__init__(
            "The portal failed on this request. Try again; if it keeps happening, give its administrator the "
            "x-request-id of this answer."
        )


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How one API writes its errors."""

    api: str  # the first word of its name among `relay.providers.apis.PATHS`; empty: errors of upstreams are rewritten
    body: Callable[[RelayError, str], bytes]  # of an error, and the id of its request
    # Whether the body of an upstream's response is an error of this API.
    is_own: Callable[[bytes], bool] = lambda _body: False
    id_header: bytes = b""  # in which its clients look for the id of a request, beside x-request-id; empty: there alone


OPENAI_ERRORS: Final = ErrorShape("", lambda error, _request_id: error.body())
