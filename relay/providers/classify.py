"""What an upstream's failure means: another try or not, what cools down for how long, and what the client is told if
every try fails. Pure.

The rules are data: the administrator's own, the vendor's, and those of `relay.providers.failures`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from relay.errors import (
    CredentialsExhausted,
    ModelNotFound,
    NoAvailableChannel,
    RelayError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefused,
)
from relay.protocols.errors import UpstreamError, read_error
from relay.providers import retry_after
from relay.providers.failures import GENERIC, FailureClass, Rule
from relay.providers.vendors import VENDORS

KEYS_MESSAGE: Final = (
    "The upstream did not accept the portal's credentials for this model. Tell the portal's administrator; a retry "
    "will not help."
)
_DETAIL: Final = 300


class Failure(Exception):
    """One attempt failed."""

    def __init__(
        self,
        kind: FailureClass,
        error: RelayError,
        status: int = 0,
        detail: str = "",
        wait: float | None = None,
        cooldown: float | None = None,
        certain: bool = True,
        unreachable: bool = False,
        ordered: bool = False,
        api: str = "",
    ) -> None:
        super().__init__(detail or error.message)
        # Its class.
        self.kind = kind
        # What the client is told when no other attempt is left.
        self.error = error
        # HTTP status of the answer, 0 when there was none.
        self.status = status
        # A line for the record.
        self.detail = detail
        # Seconds for which the upstream asked not to be called.
        self.wait = wait
        # Seconds that the rule names.
        self.cooldown = cooldown
        # An explicit rule says so, and not the status alone.
        self.certain = certain
        # Not even a connection came about.
        self.unreachable = unreachable
        # An administrator's rule says so.
        self.ordered = ordered
        # The API that the upstream does not have.
        self.api = api

    @property
    def guessed(self) -> bool:
        """That it is worth leaving the upstream alone, and for how long, is only our guess: it said neither."""
        if self.wait is not None or self.unreachable or self.ordered:
            return False
        return self.kind.counted or not self.certain or self.kind in {FailureClass.RATE, FailureClass.OVERLOAD}


def wait_of(headers: Mapping[str, str], error: UpstreamError | None, now: float) -> float | None:
    """Seconds until another try makes sense, from the headers, the members or the text of a refusal."""
    found = retry_after.from_headers(headers, now)
    if found is not None or error is None:
        return found
    for text in error.resets:
        seconds = retry_after.parse_wait(text, now)
        if seconds is not None:
            return retry_after.clamp(seconds)
    return retry_after.from_text(error.message, now)


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    provider: str = "",
    extra: Sequence[Rule] = (),
    now: float | None = None,
    inside_200: bool = False,
) -> Failure:
    """The meaning of an answer that is not a completion: any status of 300 and more, or, `inside_200`, an error object
    in a 200.

    `provider`: the vendor's key. `extra`: the administrator's rules. `now`: seconds since 1970.
    """
    now = time.time() if now is None else now
    error = read_error(body)
    if inside_200:
        status = _status_of(error)
    detail = (
        f"HTTP {'200 with an error: ' if inside_200 else ''}{status}: "
        f"{error.message if error else 'no error object in the answer'}"
    )[:_DETAIL]
    wait = wait_of(headers, error, now)
    rule = find_rule(provider, status, error, extra)
    kind, cooldown, certain = FailureClass.TRANSIENT, None, True
    if rule is not None:
        kind, cooldown, certain = rule.kind, rule.cooldown, rule.certain and error is not None
        if wait is None and rule.resets:
            wait = retry_after.from_rule(rule.resets, now)
    if error is None and kind in {FailureClass.CLIENT, FailureClass.KEY_FORBIDDEN_MODEL}:
        # A page, or nothing: whatever answered there is no API of this kind, or something that stands before it.
        kind, cooldown = FailureClass.CONFIG if status in {404, 405} else FailureClass.TRANSIENT, None
    return Failure(
        kind, public_error(kind, status, error, wait), status, detail, wait, cooldown, certain, ordered=rule in extra
    )


def rules_of(provider: str) -> tuple[Rule, ...]:
    """The built-in rules for channels of a vendor, in order: its own, then those for every vendor."""
    vendor = VENDORS.get(provider)
    return vendor.failures + GENERIC if vendor is not None else GENERIC


def find_rule(provider: str, status: int, error: UpstreamError | None, extra: Sequence[Rule] = ()) -> Rule | None:
    """The first rule that fits."""
    words, message = (error.words, error.message) if error else (frozenset[str](), "")
    for rules in (extra, rules_of(provider)):
        for rule in rules:
            if rule.fits(provider, status, words, message):
                return rule
    return None


def _status_of(error: UpstreamError | None) -> int:
    """The status that an error inside a 200 would have had: its code, where that is one (OpenRouter), or 502."""
    for word in error.words if error else ():
        if word.isdigit() and 400 <= int(word) < 600:
            return int(word)
    return 502


def public_error(kind: FailureClass, status: int, error: UpstreamError | None, wait: float | None) -> RelayError:
    """What the client is told when this was the last try."""
    if kind in {FailureClass.CLIENT, FailureClass.CONTENT, FailureClass.TOO_LARGE} and error is not None:
        said = status if 400 <= status < 500 and not (kind is FailureClass.CONTENT and status == 403) else 400
        code = error.code or ("content_filter" if kind is FailureClass.CONTENT else None)
        return UpstreamRefused(said, error.message, error.type or "invalid_request_error", code, error.param)
    if kind in {FailureClass.KEY_DEAD, FailureClass.BILLING} or (
        kind is FailureClass.KEY_FORBIDDEN_MODEL and status != 404
    ):
        return CredentialsExhausted(KEYS_MESSAGE)
    if kind is FailureClass.KEY_FORBIDDEN_MODEL:
        message = (
            "No upstream of this portal serves the model at the moment. Choose another one from GET /v1/models, or "
            "tell the portal's administrator."
        )
        return ModelNotFound(message, param="model")
    if kind is FailureClass.RATE:
        message = "Every upstream for this model is at its rate limit. Try again after the time in Retry-After."
        return UpstreamRateLimited(message, retry_after=wait if wait is not None else kind.cooldown)
    if kind is FailureClass.QUOTA_WINDOW:
        message = (
            "Every upstream for this model has used up its quota for now. Try again after the time in Retry-After, or "
            "use another model."
        )
        limited = UpstreamRateLimited(message, retry_after=wait if wait is not None else kind.cooldown)
        limited.retry = False
        return limited
    if kind is FailureClass.OVERLOAD:
        message = "The upstream for this model is overloaded. Try again after the time in Retry-After."
        return NoAvailableChannel(message, retry_after=wait if wait is not None else kind.cooldown)
    if kind is FailureClass.CONFIG:
        return UpstreamFailed(
            "The upstream does not serve this kind of request at the configured address. Tell the portal's "
            "administrator."
        )
    return UpstreamFailed(
        "The upstream failed on this request. Try again; if it keeps failing, try another model.", retry_after=wait
    )


def stream_error(data: bytes) -> tuple[UpstreamFailed, str]:
    """An error object inside a running stream: what the client is sent, and a line for the record."""
    error = read_error(data)
    if error is None:
        return UpstreamFailed("The upstream ended the answer with an error. Try again."), "error event"
    out = UpstreamFailed(error.message, code=error.code or "upstream_error", param=error.param)
    if error.type:
        out.public_type = error.type
    return out, f"error event: {error.message}"[:_DETAIL]
