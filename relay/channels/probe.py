"""Sends single requests to the upstream of a channel: a test, a balance, a model list. Not for the request path."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
from asgiref.sync import async_to_sync
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from portal.lib.crypto import Undecryptable
from portal.lib.json import decode_object
from portal.lib.net import Allowance
from portal.lib.redaction.redact import clean_upstream_message
from portal.services.outside import NotAnswering
from relay.channels.base_urls import other_base_urls
from relay.channels.connection import client_of, waiting_for_upstream, why_unreachable
from relay.channels.probe_requests import overrides_of, short_request
from relay.models import AllowedUpstream, ApiKey, Channel
from relay.models.channel import KeyGivenElsewhere, UnusableKey
from relay.models.failure_rule import rules_in_force
from relay.protocols.errors import read_error
from relay.providers.accounts.balances import Balance, BalanceSource, read_balance
from relay.providers.classify import Failure, classify
from relay.providers.credentials.contract import BadKey, Signer
from relay.providers.failures import FailureClass, Rule
from relay.providers.model_facts import ModelFacts, facts_of_entry, listed_models
from relay.providers.vendors import VENDORS
from relay.transport.body import USER_AGENT

_MAX_BYTES: Final = 8 << 20  # of an answer
_MESSAGE_TOKENS: Final = 64  # of a test's answer, where the API demands a limit
# What a failed test means for the person who runs it, by class of failure.
_EXPLANATIONS: Final = {
    FailureClass.CLIENT: gettext_noop("The upstream refused the test request"),
    FailureClass.KEY_DEAD: gettext_noop(
        "The upstream does not accept this key. Check that it is whole, active and of this vendor"
    ),
    FailureClass.KEY_FORBIDDEN_MODEL: gettext_noop("The upstream does not know this model, or the key may not use it"),
    FailureClass.CONTENT: gettext_noop("The upstream's content filter refused the test request"),
    FailureClass.QUOTA_WINDOW: gettext_noop("The key has used up its quota for now"),
    FailureClass.TOO_LARGE: gettext_noop("The limits of this key are too small even for a test"),
    FailureClass.BILLING: gettext_noop("The account behind this key has no money or quota left"),
    FailureClass.RATE: gettext_noop("The key is at its rate limit now. Test again later"),
    FailureClass.OVERLOAD: gettext_noop("The upstream is overloaded. Test again later"),
    FailureClass.CONFIG: gettext_noop("Nothing answers at this address as an API. Check the base URL; most end in /v1"),
    FailureClass.LOOP: gettext_noop("The upstream leads back to this portal. Point the channel at the vendor itself"),
    FailureClass.TRANSIENT: gettext_noop("The upstream failed"),
}


_NO_LIST: Final = gettext_noop("The upstream answered, but not with a list of models. Type the model names by hand.")
_WEB_PAGE: Final = gettext_noop(
    "The address answered with a web page or a redirect, not as an API: the base URL is probably wrong. Most end in /v1"
)
# How servers say that an address is none of theirs: OpenAI's “Invalid URL (POST /v1/x)”, and web frameworks.
_NO_ADDRESS: Final = re.compile(
    r"invalid url|unknown (url|request url|path|endpoint|route)|no route|^not found|cannot (get|post)|"
    r"method not allowed|page not found|there is nothing at",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of a test."""

    ok: bool
    message: str  # one sentence in the reader's language
    latency_ms: int | None = None  # None: no answer
    model: str = ""  # as the upstream named it in its answer
    first_token_ms: int | None = None  # None: not streamed
    tokens: tuple[int, int] | None = None  # of the prompt and the answer; None: not reported
    failure: Failure | None = None  # how the failure is classified, None: passed, or no answer
    base_url: str = ""  # of the channel, where another one on its host answered; empty: its own is right
    misaddressed: Misaddressed | None = None  # it failed, since no API of this kind answers there


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models that an upstream lists."""

    names: tuple[str, ...]  # sorted
    error: str = ""  # why they could not be fetched, in the reader's language
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)  # what it says of them, by name
    base_url: str = ""  # of the channel, where another one on its host answered; empty: its own is right
    misaddressed: Misaddressed | None = None  # it failed, since no API of this kind answers there


@dataclass(frozen=True, slots=True)
class Misaddressed:
    """An answer that is not of the API that was asked for."""

    moved_to: str = ""  # the address that it redirects to


def probe_channel(channel: Channel, key: ApiKey | None, model: str, streamed: bool = False) -> ProbeResult:
    """Send one short request to an upstream's `model` with one key. Raises portal.lib.crypto.Undecryptable.

    `streamed` measures the time to the first token, too.
    """
    rules = rules_in_force()
    signed, allowed = signed_with(channel, key), AllowedUpstream.allowances()
    try:
        with waiting_for_upstream(channel):
            return async_to_sync(_probe)(channel, signed, model, allowed, rules, streamed)
    except NotAnswering as error:
        return ProbeResult(False, why_unreachable(error))


def probe_addresses(channel: Channel, key: ApiKey | None, model: str) -> ProbeResult:
    """Do the same, and where nothing answers as an API try the other base URLs that may be meant, on the same host.

    The result names the one that answered. Raises portal.lib.crypto.Undecryptable.
    """
    result = probe_channel(channel, key, model)
    if result.misaddressed is None:
        return result
    for other in other_addresses(channel, key, result.misaddressed):
        found = probe_channel(other, key, model)
        if found.ok:
            return replace(found, base_url=other.base_url)
    return result


def other_addresses(channel: Channel, key: ApiKey | None, misaddressed: Misaddressed) -> Iterator[Channel]:
    """Yield unsaved copies of a channel with other base URLs on its host, for which the key was given, too."""
    if channel.vendor.built_in:
        return
    for url in other_base_urls(channel.effective_base_url, channel.vendor, misaddressed.moved_to):
        other = copy(channel)
        other.base_url = url
        if key is None or key.is_for(other):
            yield other


def fetch_balance(channel: Channel, key: ApiKey) -> Balance | None:
    """Fetch the balance of a key's account. None when the vendor reports none, or the request failed."""
    vendor = VENDORS.get(channel.provider)
    if vendor is None or vendor.balance is None:
        return None
    signed, allowed = signed_with(channel, key), AllowedUpstream.allowances()
    try:
        with waiting_for_upstream(channel):
            return async_to_sync(_balance)(channel, (vendor.balance, *vendor.more_balances), signed, allowed)
    except NotAnswering:
        return None


def fetch_models(channel: Channel, key: ApiKey | None) -> ModelList:
    """Fetch the model list of a channel's upstream. Raises portal.lib.crypto.Undecryptable.

    Where nothing answers as an API, the other base URLs that may be meant are tried, too, on the same host.
    """
    signed, allowed = signed_with(channel, key), AllowedUpstream.allowances()
    listed = _list(channel, signed, allowed)
    if listed.misaddressed is not None:
        for other in other_addresses(channel, key, listed.misaddressed):
            found = _list(other, signed, allowed)
            if not found.error:
                return replace(found, base_url=other.base_url)
    return listed


def _list(channel: Channel, signed: Signed, allowed: Sequence[Allowance]) -> ModelList:
    try:
        with waiting_for_upstream(channel):
            return async_to_sync(_fetch)(channel, signed, allowed)
    except NotAnswering as error:
        return ModelList((), why_unreachable(error))


@dataclass(frozen=True, slots=True)
class Signed:
    """How requests with a key are signed."""

    headers: dict[str, str] = field(repr=False)
    signer: Signer | None = None


def signed_with(channel: Channel, key: ApiKey | None) -> Signed:
    """Raises portal.lib.crypto.Undecryptable."""
    own = {"user-agent": USER_AGENT, "accept-encoding": "identity", **channel.vendor.headers}
    overrides = overrides_of(channel)
    headers = overrides.headers(own) if overrides is not None else own
    if key is None:
        return Signed(headers)
    secret, credentials = key.secret_for(channel), channel.vendor.credentials
    try:
        signer = credentials.signer(secret, settings.CONFIG.google_token_uris)
    except BadKey as bad:
        raise UnusableKey(str(bad)) from None
    return Signed({**headers, **credentials.headers(secret)}, signer)


def why_unusable(error: Undecryptable) -> str:
    """Say to a person why a stored key cannot be used, and what to do."""
    if isinstance(error, KeyGivenElsewhere):
        return _(
            "The key was given for another address and is not sent to this one. Enter it again, or change the address "
            "back."
        )
    if isinstance(error, UnusableKey):
        return _(str(error))
    return _("The key cannot be decrypted with the configured encryption keys. Enter it again.")


async def _probe(
    channel: Channel,
    signed: Signed,
    model: str,
    allowed: Sequence[Allowance],
    rules: Sequence[Rule],
    streamed: bool,
) -> ProbeResult:
    asked = short_request(channel, model, streamed)
    began = time.monotonic()
    first: int | None = None
    scanner = asked.scanner
    try:
        async with client_of(channel, allowed, signed.signer) as client:
            async with client.stream("POST", asked.path, headers=signed.headers, json=asked.body) as response:
                pieces, size = [], 0
                async for piece in response.aiter_raw():
                    pieces.append(piece)
                    size += len(piece)
                    if size > _MAX_BYTES:
                        return ProbeResult(
                            False,
                            _("The upstream's answer to one word is longer than %(n)d MiB. Check the base URL.")
                            % {"n": _MAX_BYTES >> 20},
                            _since(began),
                        )
                    scanner.feed(piece)
                    if first is None and scanner.started:
                        first = _since(began)
            content = b"".join(pieces)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
        return ProbeResult(False, why_unreachable(error))
    latency = _since(began)
    good = 200 <= response.status_code < 300
    if good and streamed and scanner.error is None and scanner.started:
        return ProbeResult(
            True,
            _("Answered in %(took)d ms, the first token after %(first)d ms.") % {"took": latency, "first": first},
            latency,
            "",
            first,
        )
    answer = asked.read(content) if good else None
    if answer is None or answer.error is not None:
        failed = content if answer is None else answer.error or content
        if good and scanner.error is not None:
            failed = scanner.error
        failure = classify(
            response.status_code,
            response.headers,
            failed,
            channel.provider,
            rules,
            inside_200=response.status_code < 300,
        )
        wrong = _misaddressed(response, content)
        message = explain_failure(response.status_code, failure, failed, misaddressed=wrong is not None)
        return ProbeResult(False, message, latency, failure=failure, misaddressed=wrong)
    reported = answer.model or _("no model name")
    values = {"took": latency, "name": clean_upstream_message(reported, 120)}
    if answer.usage:
        message = _("Answered in %(took)d ms as “%(name)s”, %(in)d + %(out)d tokens.") % {
            **values,
            "in": answer.usage.input,
            "out": answer.usage.output,
        }
    else:
        message = _("Answered in %(took)d ms as “%(name)s”, no usage reported.") % values
    tokens = (answer.usage.input, answer.usage.output) if answer.usage else None
    return ProbeResult(True, message, latency, reported, tokens=tokens)


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def url_of(channel: Channel, path: str) -> str:
    """A path for a client of the channel: relative to its base URL, or, with a leading //, to its host."""
    return str(httpx.URL(channel.effective_base_url).join(path[1:])) if path.startswith("//") else path.lstrip("/")


async def _balance(
    channel: Channel, sources: Sequence[BalanceSource], signed: Signed, allowed: Sequence[Allowance]
) -> Balance | None:
    """What the first of the sources says that says something."""
    try:
        async with client_of(channel, allowed, signed.signer) as client:
            for source in sources:
                answers: list[object] = []
                for path in source.paths:
                    response = await client.get(url_of(channel, path), headers=signed.headers)
                    if response.status_code != 200:
                        break
                    try:
                        answers.append(msgspec.json.decode(response.content))
                    except (msgspec.DecodeError, ValueError, RecursionError):
                        break
                if len(answers) == len(source.paths) and (found := read_balance(source, answers)) is not None:
                    return found
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
        pass
    return None


def list_address(channel: Channel, path: str) -> str:
    """Where a list of models is: at the channel's address, or at the vendor's other host for it."""
    vendor = channel.vendor
    url, (own, other) = httpx.URL(channel.effective_base_url), vendor.models_host
    official = urlsplit(vendor.address_form).netloc.rpartition("}")[2]  # such as “.amazonaws.com”
    if own and official and url.host.startswith(own) and url.host.endswith(official):
        return str(url.copy_with(host=other + url.host.removeprefix(own)).join(path.lstrip("/")))
    return url_of(channel, path)


async def _fetch(channel: Channel, signed: Signed, allowed: Sequence[Allowance]) -> ModelList:
    try:
        async with client_of(channel, allowed, signed.signer) as client:
            first, *more_paths = channel.vendor.models_paths
            response = await client.get(list_address(channel, first), headers=signed.headers)
            others = [await client.get(list_address(channel, path), headers=signed.headers) for path in more_paths]
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
        return ModelList((), why_unreachable(error))
    if response.status_code != 200:
        failure = classify(
            response.status_code,
            response.headers,
            response.content,
            channel.provider,
            inside_200=response.status_code < 300,
        )
        wrong = _misaddressed(response, response.content)
        message = explain_failure(response.status_code, failure, response.content, misaddressed=wrong is not None)
        return ModelList((), message, misaddressed=wrong)
    entries = listed_models(response.content)
    if entries is None:
        wrong = _misaddressed(response, response.content)
        return ModelList((), f"{_(_WEB_PAGE)}." if wrong is not None else _(_NO_LIST), misaddressed=wrong)
    for more in others:
        entries |= (listed_models(more.content) or {}) if more.status_code == 200 else {}
    facts = {name: facts_of_entry(entry) for name, entry in entries.items()}
    return ModelList(tuple(sorted(facts)), facts=facts)


def _misaddressed(response: httpx.Response, body: bytes) -> Misaddressed | None:
    """Whether an answer says that the address is wrong: a redirect, no JSON object, or an address that it lacks."""
    status = response.status_code
    if 300 <= status < 400:
        return Misaddressed(response.headers.get("location", ""))
    error = read_error(body)
    unknown = status in {404, 405} and (error is None or _NO_ADDRESS.search(error.message) is not None)
    return Misaddressed() if unknown or (decode_object(body) is None and status < 500) else None


def explain_failure(status: int, failure: Failure, body: bytes, *, misaddressed: bool = False) -> str:
    """Explain an upstream's failure in the reader's language."""
    error = read_error(body)
    quoted = f": “{error.message}”" if error else ""
    # A 404 means the model: a test asks for nothing else that could be missing.
    kind = FailureClass.KEY_FORBIDDEN_MODEL if status == 404 and failure.kind is FailureClass.CLIENT else failure.kind
    said = _EXPLANATIONS.get(kind, _EXPLANATIONS[FailureClass.TRANSIENT])
    if misaddressed:
        said = _EXPLANATIONS[FailureClass.CONFIG] if error else _WEB_PAGE
    return f"{_(said)} (HTTP {status}){quoted}."[:500]
