"""What an upstream's failure means: another try or not, what cools down for how long, and what the client is told if
every try fails. Pure.

The rules are data: the administrator's own, the vendor's, and those of `relay.providers.failures`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from portal.lib.redaction.redact import redact
from relay.errors import (
    CredentialsExhausted,
    LoopDetected,
    ModelNotFound,
    NoAvailableChannel,
    RelayError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefused,
)
from relay.protocols.errors import UpstreamError, read_error, read_text
from relay.providers import rate_limits, retry_after
from relay.providers.failures import GENERIC, SIZES, CooldownScope, FailureClass, Rule
from relay.providers.subject import lacks_path, lacks_scope, names_a_parameter
from relay.providers.vendors import VENDORS

KEYS_MESSAGE: Final = (
    "The upstream did not accept the portal's credentials for this model. Tell the portal's administrator; a retry "
    "will not help."
)
MONEY_MESSAGE: Final = (
    "The portal's account at the upstream of this model has no money left. Tell the portal's administrator, or use "
    "another model; a retry will not help."
)
_DETAIL: Final = 300
_LIMITS: Final = frozenset((FailureClass.RATE, FailureClass.QUOTA_WINDOW))
_PAGES: Final = {404: FailureClass.CONFIG, 405: FailureClass.CONFIG, 413: FailureClass.TOO_LARGE}
_UNNAMED: Final = 502  # the status of an error inside a 200 that says nothing of one
_UNPROVEN_WAIT: Final = 60.0  # seconds that a text is believed at most when no code stands beside it
# Statuses of refusals that are about a parameter if they name one.
_ABOUT_PARAMETERS: Final = frozenset((400, 403, 404, 405, 409, 410, 413, 415, 422, 424))
# What is told to nobody but staff.
_ABOUT_ACCOUNTS: Final = frozenset(
    (FailureClass.KEY_DEAD, FailureClass.KEY_FORBIDDEN_MODEL, FailureClass.BILLING, FailureClass.QUOTA_WINDOW)
)
# The statuses that codes and types of errors stand for, where they come inside a 200 that names none.
_STATUS_OF_WORD: Final = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "authentication_error": 401,
    "authenticationerror": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "permissiondeniederror": 403,
    "not_found_error": 404,
    "not_found": 404,
    "notfounderror": 404,
    "request_too_large": 413,
    "unprocessableentityerror": 422,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "ratelimiterror": 429,
    "resource_exhausted": 429,
    "server_error": 500,
    "api_error": 500,
    "internal": 500,
    "internalservererror": 500,
    "internal_server_error": 500,
    "notimplementederror": 501,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# The status of a failure inside a 200 that its rule's words alone tell, where the rule has this status.
_STATUS_OF_CLASS: Final = {
    FailureClass.CLIENT: 400,
    FailureClass.CONTENT: 400,
    FailureClass.TOO_LARGE: 400,
    FailureClass.KEY_DEAD: 401,
    FailureClass.BILLING: 402,
    FailureClass.KEY_FORBIDDEN_MODEL: 404,
    FailureClass.RATE: 429,
    FailureClass.QUOTA_WINDOW: 429,
    FailureClass.OVERLOAD: 503,
}
# What the account pays for is too little for the prompt, not for the answer.
_LONG_PROMPT: Final = re.compile(r"^prompt tokens|long context", re.I)
# With these, a body that is a sentence and no JSON speaks of the request.
_TEXT_STATUSES: Final = frozenset((400, 413, 415, 422))
# What servers say of a path that they do not have.
_NO_PATH: Final = re.compile(r"((page|path|route|resource|url|endpoint) )?not found\.?|method not allowed\.?", re.I)


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
        detail = redact(detail)
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
        # The wait is from a header or a member of the error, and not read from a text, which may quote the request.
        self.wait_named = wait is not None
        # The part of the wait that a smaller request of anybody has to wait, too; 0: it would have been served.
        self.shared_part = 1.0
        # The upstream's error code.
        self.code = ""
        # The rule goes by a code that the vendor reserves for this, not by the status or the text alone.
        self.reserved = False
        # All that the upstream said, for decisions that concern nothing but the request (`continuations`).
        self.whole = ""
        # It came inside a 200 that names no status; this one is what its words stand for.
        self.implied = False
        # It is about a part of the request, such as a tool's model, so that nothing cools down.
        self.about_part = False
        # What the upstream said, None: nothing that is known to be an error.
        self.said: UpstreamError | None = None


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
    if error is None and status in _TEXT_STATUSES:
        error = read_text(body)
    quoted = read_error(error.quoted) if error is not None and error.quoted else None
    if inside_200:
        status, rule, implied = _read_inside_200(provider, error, extra)
    else:
        rule, implied = find_rule(provider, status, error, extra), False
    detail = (
        f"HTTP {'200 with an error: ' if inside_200 else ''}{status}: "
        f"{error.message if error else 'no error object in the answer'}{f': {quoted.message}' if quoted else ''}"
    )[:_DETAIL]
    ordered = rule is not None and rule in extra
    kind, cooldown, certain, reserved = FailureClass.TRANSIENT, None, True, False
    if rule is not None:
        kind, cooldown, certain = rule.kind, rule.cooldown, rule.certain and error is not None
        reserved = rule.reserved and error is not None
    if error is None and kind in {FailureClass.CLIENT, FailureClass.KEY_FORBIDDEN_MODEL}:
        # A page, or nothing: whatever answered there is no API of this kind, or something that stands before it.
        kind, cooldown = _PAGES.get(status, FailureClass.TRANSIENT), None
    elif error is not None and not ordered:
        if kind is FailureClass.CLIENT and _lacks_path(status, error):
            kind = FailureClass.CONFIG
        elif status == 501 and kind is FailureClass.TRANSIENT and not lacks_path(status, error):
            kind = FailureClass.CLIENT  # vLLM, to a value of a parameter that a model does not take
        elif (
            kind.scope is not CooldownScope.NOTHING
            and names_a_parameter(error)
            and (status in _ABOUT_PARAMETERS or (implied and status == _UNNAMED))
        ):
            kind, cooldown, reserved = FailureClass.CLIENT, None, False
    stated = wait = rate_limits.stated_wait(headers, error, now, kind)
    shared_part = 1.0
    if kind in _LIMITS and error is not None and not ordered:
        texts = [said.own for said in (error, quoted) if said is not None]
        shared_part = min(rate_limits.shared_part(text, headers) for text in texts)
        if any(rate_limits.exceeds_limit(text, wait) for text in texts):
            kind = FailureClass.TOO_LARGE
    if wait is None:
        wait = rate_limits.told_wait(error, now, kind, status, rule.zone if rule is not None else "UTC")
        if wait is None and rule is not None and rule.resets and status in rate_limits.TIMED_STATUSES:
            wait = retry_after.from_rule(rule.resets, now)
        if wait is not None and not (reserved or ordered):
            wait = min(wait, _UNPROVEN_WAIT)
    shown = _with_quoted(error, quoted) if error is not None else None
    sized = kind in _LIMITS and not shared_part
    public = _larger_than_rest(kind, wait) if sized else public_error(kind, status, shown, wait)
    failure = Failure(kind, public, status, detail, wait, cooldown, certain, ordered=ordered)
    failure.wait_named, failure.shared_part = stated is not None, shared_part
    failure.code = (error.code or "") if error is not None else ""
    failure.whole = error.whole if error is not None else ""
    failure.reserved, failure.implied, failure.said = reserved, implied, error
    failure.about_part = kind is FailureClass.KEY_FORBIDDEN_MODEL and error is not None and lacks_scope(error)
    return failure


def _with_quoted(error: UpstreamError, quoted: UpstreamError | None) -> UpstreamError:
    """An error with what the vendor behind a relay said, for the client, unless that may be about an account.

    It is shown only: what is quoted may be a client's own words, and decides nothing.
    """
    if quoted is None:
        return error
    vendors = (rule for vendor in VENDORS.values() for rule in vendor.failures)
    for rule in chain(GENERIC, vendors):
        told = rule.kind in _ABOUT_ACCOUNTS and (rule.words or rule.text is not None)
        if told and rule.fits(rule.provider, min(rule.status, default=400), quoted.words, quoted.own):
            return error
    return replace(error, message=f"{error.message.rstrip(' .:')}: {quoted.message}")


def blame_request(failure: Failure) -> Failure:
    """The failure when it turned out to be about a part of the request: a model that a tool of it names.

    A refusal is told to the client; a limit stays one, for this request.
    """
    if failure.kind is FailureClass.KEY_FORBIDDEN_MODEL and failure.said is not None:
        error = public_error(FailureClass.CLIENT, failure.status, failure.said, None)
        failure = Failure(FailureClass.CLIENT, error, failure.status, failure.detail)
    failure.about_part = True
    return failure


def _read_inside_200(
    provider: str, error: UpstreamError | None, extra: Sequence[Rule]
) -> tuple[int, Rule | None, bool]:
    """The status of an error inside a 200, the rule that fits, and whether the status is implied by the words alone."""
    status = _status_in(error)
    if status:
        return status, find_rule(provider, status, error, extra), False
    rule = find_rule(provider, 0, error, extra)
    if error is not None and (rule is None or (rule.kind is FailureClass.CLIENT and rule not in extra)):
        status = max((_STATUS_OF_WORD[word] for word in error.words if word in _STATUS_OF_WORD), default=0)
        if status and (rule is None or status < 500):
            return status, find_rule(provider, status, error, extra), True
    usual = _STATUS_OF_CLASS.get(rule.kind, _UNNAMED) if rule is not None else _UNNAMED
    if rule is not None and rule.status and usual not in rule.status:
        usual = min(rule.status)
    return usual, rule, True


def _lacks_path(status: int, error: UpstreamError) -> bool:
    """Whether an error without any code is what frameworks say of a path that they do not have (FastAPI)."""
    return status in {404, 405} and not error.words and not error.param and bool(_NO_PATH.fullmatch(error.own))


def rules_of(provider: str) -> tuple[Rule, ...]:
    """The built-in rules for channels of a vendor, in order: about sizes, its own, then those for every vendor."""
    vendor = VENDORS.get(provider)
    return SIZES + (vendor.failures if vendor is not None else ()) + GENERIC


def find_rule(provider: str, status: int, error: UpstreamError | None, extra: Sequence[Rule] = ()) -> Rule | None:
    """The first rule that fits. `status`: 0 for an error inside a 200 that names none."""
    words, text = (error.words, error.own) if error else (frozenset[str](), "")
    for rule in extra:
        if rule.fits(provider, status or 502, words, text):
            return rule
    for rule in rules_of(provider):
        if rule.fits(provider, status, words, text):
            return rule
    return None


def _status_in(error: UpstreamError | None) -> int:
    """The status that an error inside a 200 names (OpenRouter, vLLM): 0 when it names none."""
    named = [int(word) for word in error.words if word.isascii() and word.isdigit() and len(word) == 3] if error else []
    return max((status for status in named if 400 <= status < 600), default=0)


def public_error(kind: FailureClass, status: int, error: UpstreamError | None, wait: float | None) -> RelayError:
    """What the client is told when this was the last try."""
    if kind is FailureClass.TOO_LARGE and error is not None and _LONG_PROMPT.search(error.own):
        message = (
            "The upstream's account does not pay for a prompt as long as this request's. Make it shorter, or use "
            "another model."
        )
        return UpstreamRefused(400, message, "invalid_request_error", "context_length_exceeded", None)
    if kind is FailureClass.TOO_LARGE and status in {402, 403}:
        message = (
            "The upstream's account cannot pay for an answer as long as this request asks for. Lower max_tokens, or "
            "use another model."
        )
        return UpstreamRefused(400, message, "invalid_request_error", "max_tokens_too_high", "max_tokens")
    if kind is FailureClass.TOO_LARGE and error is None:
        message = "The upstream takes no request of this size. Make it smaller, or use another model."
        return UpstreamRefused(413, message, "invalid_request_error", "request_too_large", None)
    if kind in {FailureClass.CLIENT, FailureClass.CONTENT, FailureClass.TOO_LARGE} and error is not None:
        # Never 401 or 402: the client's token and wallet are fine.
        kept = 400 <= status < 500 and status not in {401, 402} and not (kind is FailureClass.CONTENT and status == 403)
        said = status if kept else 400
        code = error.code or ("content_filter" if kind is FailureClass.CONTENT else None)
        return UpstreamRefused(said, error.message, error.type or "invalid_request_error", code, error.param)
    if kind is FailureClass.LOOP:
        return LoopDetected.behind()
    if kind is FailureClass.BILLING:
        return CredentialsExhausted(MONEY_MESSAGE)
    if kind is FailureClass.KEY_DEAD or (kind is FailureClass.KEY_FORBIDDEN_MODEL and status in {401, 403, 429}):
        return CredentialsExhausted(KEYS_MESSAGE)
    if kind is FailureClass.KEY_FORBIDDEN_MODEL:
        message = (
            "No upstream of this portal serves the model at the moment. Choose another one from GET /v1/models, or "
            "tell the portal's administrator."
        )
        return ModelNotFound(message, param="model")
    if kind is FailureClass.RATE:
        return UpstreamRateLimited(
            f"Every upstream for this model is at its rate limit. {_try_again(wait)}", retry_after=wait
        )
    if kind is FailureClass.QUOTA_WINDOW:
        message = "Every upstream for this model has used up its quota for now. Use another model, or try again later."
        limited = UpstreamRateLimited(message, retry_after=wait)
        limited.retry = False
        return limited
    if kind is FailureClass.OVERLOAD:
        return NoAvailableChannel(f"The upstream for this model is overloaded. {_try_again(wait)}", retry_after=wait)
    if kind is FailureClass.CONFIG:
        return UpstreamFailed(
            "The upstream does not serve this kind of request at the configured address. Tell the portal's "
            "administrator."
        )
    return UpstreamFailed(
        "The upstream failed on this request. Try again; if it keeps failing, try another model.", retry_after=wait
    )


def _larger_than_rest(kind: FailureClass, wait: float | None) -> RelayError:
    """What the client is told of a limit that has room left, but not for this request."""
    what = "rate limit" if kind is FailureClass.RATE else "quota"
    again = "in a moment" if wait is None else "after the time in Retry-After"
    limited = UpstreamRateLimited(
        f"This request is larger than what is left of the upstream's {what}. Send a smaller one, or try again {again}.",
        retry_after=wait,
    )
    if kind is FailureClass.QUOTA_WINDOW:
        limited.retry = False
    return limited


def _try_again(wait: float | None) -> str:
    """When a retry makes sense. Without a time of the upstream's, its client's own pauses are better than our guess."""
    return "Try again in a moment." if wait is None else "Try again after the time in Retry-After."


def stream_error(data: bytes, provider: str) -> tuple[UpstreamFailed, str]:
    """An error object inside an answer that has begun: what the client is sent, and a line for the record.

    `provider`: the vendor's key.
    """
    error = read_error(data)
    if error is None:
        return UpstreamFailed("The upstream ended the answer with an error. Try again."), "error event"
    detail = f"error event: {error.message}"[:_DETAIL]
    failure = classify(200, {}, data, provider, inside_200=True)
    if failure.kind in {FailureClass.KEY_DEAD, FailureClass.BILLING}:  # the portal's account is not the client's
        return UpstreamFailed(failure.error.message, code=CredentialsExhausted.code), detail
    shown = _with_quoted(error, read_error(error.quoted) if error.quoted else None)
    out = UpstreamFailed(shown.message, code=error.code or "upstream_error", param=error.param)
    if error.type:
        out.public_type = error.type
    return out, detail
