"""POST /v1beta/models/{model}:embedContent and :batchEmbedContents."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.json import decode_object, encode
from relay.billing.estimate import estimate_contents, estimate_kinds
from relay.endpoints.errors import invalid, refused_parameter
from relay.endpoints.overrides import added_by, override_vectors, route_rules, rules_of
from relay.endpoints.vectors import ask_vectors, vector_upstream
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest, Overridden
from relay.gateway.pipeline import check_end, check_large, serve
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView, Route
from relay.protocols.fields import BadRequest
from relay.protocols.gemini.embedding.answer import gemini_answer, read_embedded
from relay.protocols.gemini.embedding.request import EmbedRequest, parse_embed_request
from relay.protocols.passthrough.answers import read_embeddings
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.vectors import openai_answer
from relay.protocols.usage import LEAST_ADDED
from relay.protocols.vectors import VectorUpstream
from relay.providers import parameters
from relay.providers.vendors import VENDORS

_ONE: Final = "generate_content.embed"
_SEVERAL: Final = "generate_content.embed_batch"
_OPENAI: Final = "embeddings"


async def embed_content(exchange: Exchange, caller: Caller, run: Runtime, model: str, batch: bool) -> HttpResponseBase:
    """Serve one request. Raises RelayError if no part of an answer has been sent; the record is on disk by then."""
    endpoint = _SEVERAL if batch else _ONE
    exchange.model_in_path = model
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, endpoint, body)
    try:
        parsed = parse_embed_request(body, batch)
    except BadRequest as bad:
        raise invalid(bad) from None
    texts, files = parsed.texts, parsed.files
    size = estimate_contents("\n".join(texts).encode("utf-8", "replace"), files)
    wanted = GatewayRequest(
        endpoint=endpoint,
        model=model,
        check_channel=partial(_check_channel, run, parsed, endpoint),
        prompt_tokens=size.tokens,
        most_prompt=lambda: None if parsed.content.unbounded else size.most,
        exact=True,
        most_input=lambda: None if parsed.content.media or parsed.content.unbounded else parsed.size + LEAST_ADDED,
        input_parts=lambda: estimate_kinds(files),
        dearer_input=lambda: None if parsed.content.unbounded else estimate_kinds(files),
        overridden=partial(_overridden, run, parsed, endpoint),
    )
    return await serve(exchange, caller, run, wanted, partial(_try, parsed, endpoint))


def _check_channel(run: Runtime, parsed: EmbedRequest, endpoint: str, channel: ChannelView) -> RelayError | None:
    if run.health.serves_api(channel, endpoint):
        own = channel.policy(endpoint)
        names = (parameters.refused_value(own, one) for one in parsed.requests) if own else ()
        name = next(filter(None, names), "")
        return refused_parameter(name) if name else None
    upstream = vector_upstream(run, channel)
    if upstream is None and not run.health.serves_api(channel, _OPENAI):
        return UnsupportedEndpoint("The upstream of this model makes no vectors. Use another model.", param="model")
    try:
        body, _ = parsed.openai_request("")
        if upstream is not None:
            upstream.request(body, "")
            return None
    except BadRequest as bad:
        return invalid(bad)
    policy = channel.policy(_OPENAI)
    name = parameters.refused_value(policy, body) if policy else ""
    return refused_parameter(name) if name else None


def _overridden(run: Runtime, parsed: EmbedRequest, endpoint: str, public: str, route: Route) -> Overridden | None:
    """What a route's channel makes of a request, by its overrides; None: nothing."""
    native = run.health.serves_api(route.channel, endpoint)
    upstream = None if native else vector_upstream(run, route.channel)
    rules = route_rules(route, endpoint if native else upstream.api if upstream is not None else _OPENAI, public)
    times = len(parsed.requests) if native else 1
    return Overridden(0, added=added_by(rules) * times, unsure=True) if rules else None


async def _try(parsed: EmbedRequest, endpoint: str, attempt: Attempt) -> HttpResponseBase:
    """Make one attempt. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer cannot be recorded."""
    attempt.record.sent = True
    try:
        if attempt.run.health.serves_api(attempt.channel, endpoint):
            return await _pass(parsed, endpoint, attempt)
        upstream = vector_upstream(attempt.run, attempt.channel)
        return await (_convert(parsed, attempt) if upstream is None else _ask(parsed, upstream, attempt))
    finally:
        attempt.close()


async def _pass(parsed: EmbedRequest, endpoint: str, attempt: Attempt) -> HttpResponseBase:
    sent, policy = parsed, attempt.channel.policy(endpoint)
    if policy or rules_of(attempt, endpoint):
        whole, requests = parsed.copied()
        dropped = [name for one in requests for name in parameters.apply_to(policy, one)]
        attempt.record.dropped = list(dict.fromkeys((*dropped, *override_vectors(attempt, endpoint, requests))))
        sent = replace(parsed, whole=whole, requests=requests)
    bare = VENDORS[attempt.channel.provider].embeds_bare
    upstream = await attempt.open(endpoint, sent.upstream_body(attempt.candidate.route.upstream_name, bare))
    text = await upstream.read_all()
    found = read_embedded(text, len(parsed.requests))
    if found is None:
        raise attempt.unreadable_answer(text, f"an answer of {endpoint}")
    if found.error is not None:
        raise attempt.error_in_body(found.error)
    attempt.answered()
    await attempt.finish(text, found.usage)
    return Answer(text)


async def _ask(parsed: EmbedRequest, upstream: VectorUpstream, attempt: Attempt) -> HttpResponseBase:
    """Have vectors made by an upstream that speaks neither this API nor OpenAI's."""
    name = attempt.candidate.route.upstream_name
    body, attempt.record.dropped = parsed.openai_request(name)
    found = await ask_vectors(attempt, upstream, upstream.request(body, name), len(parsed.requests))
    answer = gemini_answer(openai_answer(found, name), parsed.batch)
    attempt.answered()
    await attempt.finish(answer, found.usage)
    return Answer(answer)


async def _convert(parsed: EmbedRequest, attempt: Attempt) -> HttpResponseBase:
    channel, record = attempt.channel, attempt.record
    body, lost = parsed.openai_request(attempt.candidate.route.upstream_name)
    record.dropped = [*lost, *parameters.apply_to(channel.policy(_OPENAI), body)]
    record.dropped += override_vectors(attempt, _OPENAI, [body])
    upstream = await attempt.open(_OPENAI, encode(body))
    text = await upstream.read_all()
    found = read_embeddings(text, PassthroughRequest(inputs=len(parsed.requests), encoding="float"))
    if found is None:
        raise attempt.unreadable_answer(text, "an answer of embeddings")
    if found.is_error:
        raise attempt.error_in_body(found.body)
    answer = gemini_answer(decode_object(found.body) or {}, parsed.batch)
    if read_embedded(answer, len(parsed.requests)) is None:
        raise attempt.unreadable_answer(text, "an answer of embeddings")
    attempt.answered()
    await attempt.finish(answer, found.usage)
    return Answer(answer)
