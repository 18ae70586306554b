"""POST /v1beta/models/{model}:generateContent, :streamGenerateContent and :countTokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode
from relay.billing.estimate import PromptSize, estimate_contents, estimate_kinds
from relay.billing.ledger.rows import RowWrite
from relay.endpoints.errors import invalid
from relay.endpoints.overrides import rules_of, sent_fields
from relay.endpoints.text.endpoint import check_text_channel, overridden_text, try_text, unseal
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.access.authorization import permitted_model
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import COMPLETED, Outcome
from relay.gateway.pipeline import check_end, check_large, count_request, serve
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols.codec import BrokenOff
from relay.protocols.error_objects import is_error_object
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.gemini.answer import Framing, parse_gemini_answer, stream_of
from relay.protocols.gemini.client import MEMBERS, GeminiClient
from relay.protocols.gemini.counting import bare_count_body, counted_request, upstream_count_body, with_counted
from relay.protocols.gemini.request import GeminiRequest, parse_gemini_request
from relay.protocols.gemini.stream import GeminiStream
from relay.protocols.prompts.searches import most_searches
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.providers.overrides.answers import answer_count
from relay.providers.overrides.apply import to_fields
from relay.providers.vendors import VENDORS

_ENDPOINT: Final = "generate_content"
_STREAM: Final = "generate_content.stream"
_COUNT: Final = "generate_content.count_tokens"
# What a stream is sent while it waits. Google's SDK for Python takes a comment for an answer that it cannot read; blank
# lines are nothing to it, and to any reader of JSON.
_SIGN_OF_LIFE: Final = b"\r\n"
_ESTIMATED: Final = (b"x-airelays-estimated", b"totalTokens")


async def generate_content(
    exchange: Exchange, caller: Caller, run: Runtime, model: str, sse: bool | None
) -> HttpResponseBase:
    """Serve one request. `sse`: whether the stream is one of events, otherwise a list; None: the answer is no stream.

    Raises RelayError if no part of an answer has been sent; the record is on disk by then.
    """
    body = await _body(exchange, caller, run, model, _ENDPOINT)
    try:
        parsed = parse_gemini_request(body, model, sse is not None, bool(sse))
    except BadRequest as bad:
        raise invalid(bad) from None
    request = GeminiTextRequest(parsed)
    size = request.size()
    exchange.sign_of_life = _SIGN_OF_LIFE
    wanted = GatewayRequest(
        endpoint=_ENDPOINT,
        model=model,
        check_channel=partial(check_text_channel, run, request),
        stream=parsed.stream,
        prompt_tokens=size.tokens,
        most_prompt=partial(parsed.at_most, size.most),
        output_limit=parsed.output_limit,
        choices=parsed.choices,
        error_event=_error_event if sse else None,
        most_input=parsed.most_input,
        least_input=parsed.least_input,
        units=Usage(searches=most_searches(parsed.fields)),
        input_parts=request.media,
        dearer_input=lambda: None if parsed.at_most(0) is None else request.media(),
        thinking=parsed.thinking(),
        hour_writes=False,  # its clients mark nothing that is to be kept
        overridden=partial(overridden_text, run, request),
    )
    return await serve(exchange, caller, run, wanted, partial(try_text, request))


async def count_tokens(exchange: Exchange, caller: Caller, run: Runtime, model: str) -> HttpResponseBase:
    """Count the tokens of a request, free of charge: by an upstream that speaks the API, or by an estimate.

    Raises RelayError.
    """
    body = await _body(exchange, caller, run, model, _COUNT)
    try:
        parsed = parse_gemini_request(counted_request(body), model, False, False)
    except BadRequest as bad:
        raise invalid(bad) from None
    found = permitted_model(caller, snapshot_cache.snapshot, model, exchange.wall)
    counting = {route.channel.id for route in caller.routes(found) if run.health.serves_api(route.channel, _COUNT)}
    estimate = partial(_estimate, exchange, GeminiTextRequest(parsed))
    if not counting:
        await count_request(exchange, caller, run)
        return estimate()

    def check_channel(channel: ChannelView) -> RelayError | None:
        if channel.id in counting:
            return None
        return UnsupportedEndpoint("The upstream of this model does not count tokens.", param="model")

    wanted = GatewayRequest(_COUNT, model, check_channel)
    return await serve(exchange, caller, run, wanted, partial(_count, body, estimate))


async def _body(exchange: Exchange, caller: Caller, run: Runtime, model: str, endpoint: str) -> bytes:
    exchange.model_in_path = model
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, endpoint, body)
    return body


def _error_event(body: bytes) -> bytes:
    return Framing(sse=True).entry(body)


def _estimate(exchange: Exchange, request: GeminiTextRequest) -> Answer:
    """An estimate in place of an upstream's count. A header says that it is one."""
    exchange.reply_headers.append(_ESTIMATED)
    return Answer(encode({"totalTokens": request.size().tokens}))


async def _count(body: bytes, estimate: Callable[[], Answer], attempt: Attempt) -> HttpResponseBase:
    """Send the request to the upstream's own endpoint."""
    if not attempt.run.health.serves_api(attempt.channel, _COUNT):  # it has denied this since it was chosen
        await attempt.exchange.committed(attempt.record.submit(Outcome(COMPLETED, 200)))
        return estimate()
    try:
        bare = VENDORS[attempt.channel.provider].counts_bare
        name = attempt.candidate.route.upstream_name
        sent = with_counted(body, partial(_changed, attempt))
        upstream = await attempt.open(_COUNT, bare_count_body(sent) if bare else upstream_count_body(sent, name))
        text = await upstream.read_all()
    finally:
        attempt.close()
    found = decode_object(text)
    answered = found is not None and "totalTokens" in found
    if found is not None and is_error_object(found, answered):
        raise attempt.error_in_body(text)
    if not answered:
        raise attempt.unreadable_answer(text, "a CountTokensResponse")
    attempt.answered()
    await attempt.finish(text, None)
    return Answer(text)


def _changed(attempt: Attempt, fields: Fields) -> Fields:
    """The members of the request that is counted, as the channel would be sent them."""
    channel = attempt.channel
    sent, dropped = parameters.apply(channel.policy(_ENDPOINT), fields, channel.strips_nulls)
    if rules := rules_of(attempt, _ENDPOINT):
        sent, ignored = to_fields(rules, sent)
        dropped += ignored
    attempt.record.dropped = list(dict.fromkeys(dropped))
    return sent


class GeminiTextRequest:
    """A generateContent request, for the common text endpoint."""

    api = _ENDPOINT
    demands_limit = False
    client_names = MEMBERS
    parameters_renamed = True  # an upstream's rules name the parameters of its own API
    unserved_message = "The upstream of this model serves no chat. Use another endpoint or another model."

    def __init__(self, parsed: GeminiRequest) -> None:
        self.parsed, self.fields, self.stream = parsed, parsed.fields, parsed.stream
        self.output_limit, self.choices = parsed.output_limit, parsed.choices
        self.stream_type = Framing(parsed.sse).content_type
        self.left_out: list[str] = []
        self.unsealed = False
        self._client: GeminiClient | None = None

    def size(self) -> PromptSize:
        """The estimated tokens of its prompt."""
        parsed = self.parsed
        return estimate_contents(parsed.own_text + parsed.others, parsed.files)

    def media(self) -> Usage:
        """The estimated tokens of sound and pictures in its contents."""
        return estimate_kinds(self.parsed.files)

    @property
    def client(self) -> GeminiClient:
        if self._client is None:
            parsed = self.parsed
            body = decode_object(parsed.body) or {}
            self._client = GeminiClient(body, parsed.model, time_ordered_hex(), parsed.sse)
        return self._client

    async def prepare(self, attempt: Attempt, native: bool) -> None:
        """Every channel is sent the same."""

    def amend(self, attempt: Attempt, failure: Failure) -> bool:
        return unseal(self, attempt, failure)

    async def open(self, attempt: Attempt) -> _OpenedContent:
        """Send the request to a channel that speaks the API. Raises Failure, Ended, CancelledError."""
        channel, record, parsed = attempt.channel, attempt.record, self.parsed
        fields, record.dropped = parameters.apply(channel.policy(_ENDPOINT), parsed.fields, channel.strips_nulls)
        fields, _ = sent_fields(attempt, _ENDPOINT, fields, record.dropped)
        body = parsed.upstream_body(record.charge.clamp, fields)
        api, query = (_STREAM, "alt=sse") if parsed.stream else (_ENDPOINT, "")
        choices = parsed.choices if fields is parsed.fields else answer_count(fields)
        return _OpenedContent(parsed, attempt, await attempt.open(api, body, query=query), choices)

    def events_of(self, answer: Json) -> bytes:
        return stream_of(answer, Framing(self.parsed.sse))

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        return ()


class _OpenedContent:
    """An answer of an upstream, for a client of the same API: its bytes pass through."""

    def __init__(self, parsed: GeminiRequest, attempt: Attempt, upstream: UpstreamAnswer, choices: int) -> None:
        """`choices`: how many candidates the upstream was asked for."""
        self.upstream, self.received = upstream, b""
        self._parsed, self._attempt, self._choices = parsed, attempt, choices

    def codec(self) -> GeminiStream:
        return GeminiStream(Framing(self._parsed.sse), self._choices)

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        text = await self.upstream.read_all()
        self.upstream.close()
        answer = parse_gemini_answer(text)
        if answer is None:
            raise self._attempt.unreadable_answer(text, "a GenerateContentResponse")
        if answer.error is not None:
            raise self._attempt.error_in_body(answer.error)
        return text, answer.usage

    def rows(self) -> Sequence[RowWrite]:
        return ()

    def so_far(self) -> None:
        """Answers are not stored."""

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        return ()
