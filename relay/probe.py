"""Tests of a channel by hand: one real request, or the list of the models that its upstream offers. Not for the request path."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import httpx
import msgspec
from asgiref.sync import async_to_sync
from django.conf import settings

from portal.lib.redact import clean_upstream_message
from relay.gateway.client import USER_AGENT, ConnectRefused, Upstreams
from relay.gateway.failure import FailureClass, classify, read_error
from relay.gateway.load import allowances
from relay.models import ApiKey, Channel
from relay.providers.demo import DemoTransport
from relay.providers.table import PROVIDERS
from relay.wire.chat import parse_chat_answer

_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_WORDS: Final = {
    FailureClass.CLIENT: "The upstream refused the test request",
    FailureClass.KEY_DEAD: "The upstream does not accept this key. Check that it is whole, active and of this vendor",
    FailureClass.KEY_FORBIDDEN_MODEL: "The upstream does not know this model, or the key may not use it",
    FailureClass.BILLING: "The account behind this key has no money or quota left",
    FailureClass.RATE: "The key is at its rate limit now. Test again later",
    FailureClass.OVERLOAD: "The upstream is overloaded. Test again later",
    FailureClass.CONFIG: "Nothing answers at this address as an API. Check the base URL; most end in /v1",
    FailureClass.TRANSIENT: "The upstream failed",
}


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`message` is one sentence for a person; `latency_ms` is None when nothing answered."""

    ok: bool
    message: str
    latency_ms: int | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class ModelList:
    """Names in order, or, when they could not be had, why."""

    names: tuple[str, ...]
    error: str = ""


class _Entry(msgspec.Struct):
    id: str = ""


class _List(msgspec.Struct):
    data: list[_Entry]


def probe_channel(channel: Channel, key: ApiKey | None, model: str) -> ProbeResult:
    """Send one short chat request to the upstream's `model` with one key."""
    return async_to_sync(_probe)(channel, _headers(channel, key), model, allowances())


def fetch_models(channel: Channel, key: ApiKey | None) -> ModelList:
    """Ask the upstream for its models."""
    return async_to_sync(_fetch)(channel, _headers(channel, key), allowances())


def _headers(channel: Channel, key: ApiKey | None) -> dict[str, str]:
    """Raises portal.lib.crypto.Undecryptable."""
    provider = PROVIDERS[channel.provider]
    auth = {provider.auth_header: provider.auth_prefix + key.secret()} if key else {}
    return {"user-agent": USER_AGENT, "accept-encoding": "identity", **auth}


async def _request(channel: Channel, method: str, path: str, headers: dict[str, str], allowed: tuple[object, ...], body: object = None) -> httpx.Response:
    upstreams = Upstreams(lambda: allowed, 4, settings.CONFIG.upstream_ca_file)  # type: ignore[arg-type, return-value]
    transport: httpx.AsyncBaseTransport = DemoTransport() if channel.provider == "demo" else upstreams.transport(channel.proxy_url)
    base = "http://demo.invalid" if channel.provider == "demo" else channel.effective_base_url
    try:
        async with asyncio.timeout(90), httpx.AsyncClient(transport=transport, timeout=_TIMEOUT, follow_redirects=False) as client:
            return await client.request(method, base + path, headers=headers, json=body)
    finally:
        await upstreams.close()


def _unreachable(error: Exception) -> str:
    if isinstance(error, ConnectRefused):
        return "The host name stands for an address that channels may not use. A superuser can allow it under “Allowed upstream addresses”."
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return "The upstream did not answer in time. Check the base URL, the firewall and the proxy."
    if isinstance(error, httpx.ConnectError):
        return f"The upstream cannot be reached: {error}. Check the base URL and that the upstream runs."
    return f"The connection failed: {error or type(error).__name__}."


async def _probe(channel: Channel, headers: dict[str, str], model: str, allowed: tuple[object, ...]) -> ProbeResult:
    body = {"model": model, "messages": [{"role": "user", "content": "Reply with the word OK."}]}
    began = time.monotonic()
    try:
        response = await _request(channel, "POST", PROVIDERS[channel.provider].chat_path, headers, allowed, body)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
        return ProbeResult(False, _unreachable(error))
    latency = round((time.monotonic() - began) * 1000)
    answer = parse_chat_answer(response.content) if response.status_code == 200 else None
    if answer is None or answer.is_error:
        return ProbeResult(False, explain(response.status_code, response), latency)
    reported = answer.model or "no model name"
    tokens = f", {answer.usage.input} + {answer.usage.output} tokens" if answer.usage else ", no usage reported"
    return ProbeResult(True, f"Answered in {latency} ms as “{clean_upstream_message(reported, 120)}”{tokens}.", latency, reported)


async def _fetch(channel: Channel, headers: dict[str, str], allowed: tuple[object, ...]) -> ModelList:
    try:
        response = await _request(channel, "GET", PROVIDERS[channel.provider].models_path, headers, allowed)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
        return ModelList((), _unreachable(error))
    if response.status_code != 200:
        return ModelList((), explain(response.status_code, response))
    try:
        listed = msgspec.json.decode(response.content, type=_List)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ModelList((), "The upstream answered, but not with a list of models. Type the model names by hand.")
    return ModelList(tuple(sorted({entry.id for entry in listed.data if entry.id})))


def explain(status: int, response: httpx.Response) -> str:
    """An upstream's failure in words."""
    failure = classify(status if status >= 300 else 502, response.headers, response.content)
    error = read_error(response.content)
    said = f": “{error.message}”" if error else ""
    return f"{_WORDS.get(failure.kind, 'The upstream failed')} (HTTP {status}){said}."[:500]
