"""The catalogue of error codes: meanings and remedies in the reader's language, which administrators may edit.
Synchronous.

The API's error messages are written where the errors are raised, because they contain details; an administrator's
remedy is appended to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.utils.translation import get_language, override
from django.utils.translation import gettext_lazy as _

from relay.models import ErrorText


@dataclass(frozen=True, slots=True)
class ErrorDescription:
    """One entry of the catalogue."""

    code: str
    status: int  # HTTP; 0: none of the portal's own
    who: str  # can fix it: "you" (the app or its user), "portal" (its operator) or "upstream"
    meaning: str
    remedy: str
    edited: bool = False  # by an administrator


WHO: Final[dict[str, Any]] = {
    "you": _("you or your app"),
    "portal": _("who runs this portal"),
    "upstream": _("the upstream"),
}
_BUILT_IN: Final[tuple[tuple[str, int, str, Any, Any], ...]] = (
    (
        "invalid_api_key",
        401,
        "you",
        _("The token is missing, mistyped, or of another portal."),
        _("Copy the token again from its page, without spaces, and check that the base URL is this portal's."),
    ),
    (
        "token_expired",
        401,
        "you",
        _("The token's time is over."),
        _("Create a new token, or ask the administrator to extend this one."),
    ),
    (
        "token_disabled",
        401,
        "you",
        _("The token, or the account behind it, is switched off."),
        _("Enable the token on its page. If the account is disabled, ask the administrator."),
    ),
    (
        "ip_temporarily_blocked",
        429,
        "you",
        _("Too many wrong tokens came from this address."),
        _("Correct the token; a valid one works at once. Otherwise wait as long as Retry-After says."),
    ),
    (
        "ip_not_allowed",
        403,
        "you",
        _("The token may be used from other addresses only."),
        _("Use a token that may be used from this address: create one, or ask the administrator to change this one."),
    ),
    (
        "open_relay_host",
        403,
        "you",
        _("The relay needs no token on its own machine, but was asked under a name that is not this machine's."),
        _("Use http://127.0.0.1 and its port as base URL, or send a token."),
    ),
    (
        "open_relay_origin",
        403,
        "you",
        _("A web page of another site sent the request without a token. The relay answers none of those."),
        _("If the page is yours, have its origin named in the setting CORS_ORIGINS, or send a token."),
    ),
    (
        "purpose_not_allowed",
        403,
        "you",
        _("The token is for other endpoints: images only, for example."),
        _("Use a token for this purpose, or one for everything."),
    ),
    (
        "model_not_allowed",
        403,
        "you",
        _("The model exists, but you have no permission for it, or the token is limited to other models."),
        _("Choose a model from the list of models, use another token, or ask the administrator for a permission."),
    ),
    ("model_not_found", 404, "you", _("No model has this name here."), _("Copy the name from the list of models.")),
    (
        "model_not_priced",
        400,
        "portal",
        _("The model has no price yet, so nobody may use it."),
        _("The administrator sets a price, or takes the vendor's list price."),
    ),
    (
        "unknown_url",
        404,
        "you",
        _("The address is none of the API's."),
        _("Use the base URL as it is shown under “Connect an app”."),
    ),
    (
        "method_not_allowed",
        405,
        "you",
        _("The address is right, the method is not."),
        _("See the API reference for the method."),
    ),
    (
        "invalid_json",
        400,
        "you",
        _("The body of the request is not JSON."),
        _("Check quotes, commas and the encoding; it must be UTF-8."),
    ),
    (
        "invalid_value",
        400,
        "you",
        _("A field of the request has a value that makes no sense."),
        _("The error's “param” names the field, its message what is expected."),
    ),
    (
        "missing_required_parameter",
        400,
        "you",
        _("A field that is needed is missing."),
        _("Add the field that “param” names."),
    ),
    (
        "unsupported_parameter",
        422,
        "you",
        _("The upstream of this model does not take the parameter."),
        _("Leave it out, or choose another model."),
    ),
    (
        "unsupported_endpoint",
        400,
        "you",
        _("No channel of this model serves this endpoint."),
        _("Choose a model that can do it: the list of models tells abilities."),
    ),
    (
        "unsupported_audio",
        400,
        "you",
        _("The length of the recording, by which it is priced, cannot be measured."),
        _("Convert it to FLAC, MP3, M4A, Ogg, WAV or WebM, and send that."),
    ),
    (
        "request_too_large",
        413,
        "you",
        _("The request, or a file in it, is larger than this portal takes."),
        _("Send less, or smaller images."),
    ),
    (
        "unsupported_content_encoding",
        415,
        "you",
        _("The request is compressed in a way that this portal does not read."),
        _("Send it as it is, or compressed with gzip, deflate or zstd."),
    ),
    (
        "not_found",
        404,
        "you",
        _("The file, response, conversation or batch is gone, or somebody else's."),
        _("List yours, and use an id from there."),
    ),
    (
        "request_not_found",
        404,
        "you",
        _("There is no receipt with this id among yours."),
        _("Take the id from the header x-request-id of the answer."),
    ),
    (
        "not_implemented",
        404,
        "portal",
        _("OpenAI has this endpoint, this portal does not."),
        _("There is nothing to be retried. Use another endpoint."),
    ),
    (
        "insufficient_quota",
        429,
        "you",
        _("The balance, the token's quota, or a budget is used up."),
        _("Redeem a code or ask for a top-up; raise the token's quota; or wait until the budget is renewed."),
    ),
    (
        "rate_limit_exceeded",
        429,
        "you",
        _("More requests or tokens in a minute or a day than are allowed, here or at the upstream."),
        _("Wait as long as Retry-After says, and send fewer at once."),
    ),
    (
        "concurrency_limit_exceeded",
        429,
        "you",
        _("More requests at the same time than are allowed."),
        _("Wait until one ends. A stream counts until its end."),
    ),
    (
        "no_available_channel",
        503,
        "portal",
        _("Every channel that serves the model is out of service or left alone for a while."),
        _("Try again after the time in Retry-After, or use another model."),
    ),
    (
        "warm_channel_unavailable",
        503,
        "portal",
        _("The channel that has the conversation cached cannot answer, and the model is set not to leave it."),
        _("Try again after the time in Retry-After, or begin a new conversation."),
    ),
    (
        "conversion_refused",
        503,
        "portal",
        _("No channel that speaks the app's API can answer, and the model is set not to convert requests."),
        _("Try again after the time in Retry-After, or set the app to the API of the model's vendor."),
    ),
    (
        "relay_loop",
        508,
        "portal",
        _("The request has passed through a relay and come back to one that had sent it on."),
        _("The administrator of that relay points its channel at the vendor itself. There is nothing to be retried."),
    ),
    (
        "upstream_auth_missing",
        503,
        "you",
        _("There is no sign-in for the user's own ChatGPT plan, or it does not do any more."),
        _("Sign in on the page ChatGPT, or with airelays login. x-airelays-upstream-auth says what is wrong."),
    ),
    (
        "usage_limit_reached",
        429,
        "upstream",
        _("A usage window of the user's own ChatGPT plan is used up."),
        _("Wait for the time in Retry-After, if there is one. Nothing else answers in its place."),
    ),
    (
        "plan_not_eligible",
        403,
        "upstream",
        _("The user's own ChatGPT plan does not include this use."),
        _("Read the terms that the page ChatGPT links, or use another model."),
    ),
    (
        "upstream_credentials_exhausted",
        502,
        "portal",
        _("The upstream refuses every key that this portal has for it."),
        _("The administrator replaces the keys. Your own token is fine."),
    ),
    (
        "upstream_error",
        502,
        "upstream",
        _("The upstream could not be reached, or answered nonsense."),
        _("Try again. If it stays, tell the administrator the request id."),
    ),
    (
        "upstream_truncated",
        502,
        "upstream",
        _("The upstream broke the answer off."),
        _("Try again. What was delivered may be billed, as the receipt says."),
    ),
    (
        "upstream_timeout",
        504,
        "upstream",
        _("The upstream took too long."),
        _("Try again, with a shorter prompt or a smaller answer, or with streaming."),
    ),
    (
        "relay_unavailable",
        503,
        "portal",
        _("The portal's database or Redis cannot be used, or the portal is being restarted."),
        _("Try again in a few seconds."),
    ),
    ("storage_unavailable", 503, "portal", _("The disk takes no more files."), _("The administrator makes room.")),
    (
        "request_ended",
        403,
        "portal",
        _("The request was ended: its token was revoked, its user cancelled it, or an administrator ended it."),
        _("Ask the administrator if you do not know why."),
    ),
    (
        "internal_error",
        500,
        "portal",
        _("A fault of the portal."),
        _("Try again. If it stays, tell the administrator the request id."),
    ),
)
CODES: Final = tuple(row[0] for row in _BUILT_IN)


def own_remedies() -> dict[str, str]:
    """The administrators' remedies by error code, for the API's messages; all languages in order. One query."""
    order = {code: at for at, (code, _name) in enumerate(settings.LANGUAGES)}
    found: dict[str, list[str]] = {}
    for row in sorted(ErrorText.objects.exclude(remedy=""), key=lambda row: order.get(row.language, len(order))):
        built_in = next((of[4] for of in _BUILT_IN if of[0] == row.code), None)
        with override(row.language):
            if str(built_in).strip() != row.remedy.strip():
                found.setdefault(row.code, []).append(" ".join(row.remedy.split()))
    return {code: " ".join(texts) for code, texts in found.items()}


def entries() -> list[ErrorDescription]:
    """The whole catalogue in the active language. One query."""
    language = (get_language() or "en").lower()
    own = {row.code: row for row in ErrorText.objects.filter(language=language)}
    found = [_entry(*row, own.pop(row[0], None)) for row in _BUILT_IN]
    return found + [
        ErrorDescription(code, 0, "upstream", row.meaning, row.remedy, True) for code, row in sorted(own.items())
    ]


def explained(code: str) -> ErrorDescription | None:
    """The entry of one code; None when it is unknown."""
    language = (get_language() or "en").lower()
    own = ErrorText.objects.filter(code=code, language=language).first()
    built_in = next((row for row in _BUILT_IN if row[0] == code), None)
    if built_in is None:
        return ErrorDescription(code, 0, "upstream", own.meaning, own.remedy, True) if own is not None else None
    return _entry(*built_in, own)


def _entry(code: str, status: int, who: str, meaning: Any, remedy: Any, own: ErrorText | None) -> ErrorDescription:
    if own is None:
        return ErrorDescription(code, status, who, str(meaning), str(remedy))
    return ErrorDescription(code, status, who, own.meaning or str(meaning), own.remedy or str(remedy), True)
