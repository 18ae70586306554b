"""Pass-through endpoints: legacy completions, embeddings, moderations, images, audio, rerank."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from functools import partial
from typing import Final

from django.http import HttpResponse
from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.json import decode, decode_object, encode
from relay.billing.estimate import most_text
from relay.endpoints.errors import invalid, refused_parameter
from relay.endpoints.files.file_inputs import FileInputs
from relay.endpoints.overrides import added_by, note_added, route_rules, rules_of
from relay.endpoints.passthrough_request import PASSTHROUGH_ENDPOINTS, ClientRequest, EndpointSpec, parse_request
from relay.endpoints.vectors import ask_vectors, vector_upstream
from relay.errors import RelayError, UnsupportedAudio, UnsupportedEndpoint
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest, Overridden
from relay.gateway.pipeline import check_access, check_end, check_large, serve
from relay.gateway.replies import Answer, EventStream
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView, Route
from relay.gateway.stream import stream_answer
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols.chat_completions.answer import chunks_of, whole_completion
from relay.protocols.chat_completions.request import conversation_key
from relay.protocols.chat_completions.stream import error_event
from relay.protocols.codec import Codec
from relay.protocols.fields import BadRequest
from relay.protocols.naming.sessions import ids_in_body
from relay.protocols.passthrough import conversion, requests
from relay.protocols.passthrough.completions import CompletionStream
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.speech import Speech
from relay.protocols.passthrough.stream import ByteStream, TypedStream
from relay.protocols.passthrough.vectors import openai_answer
from relay.protocols.sse import is_stream
from relay.protocols.usage import Delivered
from relay.protocols.vectors import VectorRequest, VectorUpstream
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass

_REFUSED: Final = frozenset((400, 404, 415, 422, 501))  # statuses with which a parameter's value is refused
_NO_AUDIO: Final = re.compile(r"json|text/|html|xml|javascript")  # content types of errors and of sign-in pages
_UNMEASURED: Final = (
    "The length of this recording cannot be measured, so its price cannot be told: its format is not known here, or it "
    "holds more than a recording. Convert it, for example with “ffmpeg -i recording -ac 1 -ar 16000 recording.flac”, "
    "and send that."
)
_MEDIA: Final = ("images.", "audio.")  # endpoints with streams of their own
_MOST_PER_PICTURE: Final = 8_000  # tokens, as OpenAI's models look at one closely (November 2026)


async def pass_through(
    exchange: Exchange, caller: Caller, run: Runtime, endpoint: str, read: bytes | None = None
) -> HttpResponseBase:
    """Serve one request. Raises RelayError if no part of an answer has been sent; the record is on disk by then.

    `read`: its body, where it has been read.
    """
    body = await exchange.read_body(run.config.max_body_bytes) if read is None else read
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, endpoint, body, PASSTHROUGH_ENDPOINTS[endpoint].model)
    content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
    try:
        request = await parse_request(PASSTHROUGH_ENDPOINTS[endpoint], body, content_type, exchange.model_in_path)
        if request.names_files:
            check_access(exchange, caller, endpoint, request.model)
            await request.find_files(FileInputs(caller, run.config.max_request_file_bytes))
    except BadRequest as bad:
        raise invalid(bad) from None
    parsed = request.parsed
    gateway_request = GatewayRequest(
        endpoint=endpoint,
        model=request.model,
        check_channel=partial(_check_channel, run, request),
        stream=parsed.stream,
        prompt_tokens=parsed.prompt_tokens,
        most_prompt=partial(_most_prompt, request),
        output_limit=parsed.output_limit,
        choices=parsed.choices,
        session=None if request.form is not None else partial(ids_in_body, request.fields),
        conversation="" if request.form is not None else conversation_key(request.fields),
        units=parsed.units,
        audio_between=parsed.audio_between,
        unmeasured=UnsupportedAudio(_UNMEASURED, param="file") if parsed.unread is not None else None,
        exact=parsed.exact,
        error_event=error_event if endpoint == "completions" else None,
        most_input=partial(_most_input, request),
        least_input=partial(requests.least_input, request.body) if endpoint == "completions" else None,
        dearer_input=lambda: None if parsed.unbounded else parsed.units,
        put_in=request.put_files_in if request.files is not None else None,
        overridden=partial(_overridden, run, request),
    )
    return await serve(exchange, caller, run, gateway_request, partial(_try, request))


def _most_prompt(request: ClientRequest) -> int | None:
    """The tokens that the prompt can have; None where it can fill the model's context."""
    parsed = request.parsed
    if parsed.unbounded:
        return None
    text = parsed.prompt_tokens - (parsed.units.image_input if request.pictures else 0)
    return (text if request.form is not None else most_text(text)) + request.pictures * _MOST_PER_PICTURE


def _most_input(request: ClientRequest) -> int | None:
    """The tokens of input that a request cannot exceed, with the files that have been put in."""
    is_form = request.form is not None
    return requests.most_input(request.spec.endpoint, request.parsed, request.body, is_form)


def _check_channel(run: Runtime, request: ClientRequest, channel: ChannelView) -> RelayError | None:
    endpoint = request.spec.endpoint
    if (upstream := _converted_by(run, request, channel)) is not None:
        try:
            _vector_request(request, upstream, channel, "")
        except BadRequest as bad:
            return invalid(bad)
    elif not run.health.serves_api(channel, endpoint):
        message = (
            f"The model “{request.model[:100]}” cannot be used at /v1/{endpoint.replace('.', '/')}: no channel of it "
            "serves that. Use another endpoint or another model."
        )
        return UnsupportedEndpoint(message, param="model")
    policy = channel.policy(endpoint)
    name = parameters.refused(policy, request.fields) if policy else ""
    return refused_parameter(name) if name else None


def _overridden(run: Runtime, request: ClientRequest, public: str, route: Route) -> Overridden | None:
    """What a route's channel makes of a request, by its overrides; None: nothing. `public`: the model's name."""
    if (upstream := _converted_by(run, request, route.channel)) is not None:
        rules = route_rules(route, upstream.api, public)
        return Overridden(0, added=added_by(rules) * request.parsed.inputs, unsure=True) if rules else None
    rules = route_rules(route, request.spec.endpoint, public)
    try:
        return request.terms(route.channel, rules) if rules else None
    except BadRequest:  # of what the client sent, under a name that the API reads; no channel is asked for that
        return None


def _converted_by(run: Runtime, request: ClientRequest, channel: ChannelView) -> VectorUpstream | None:
    """The API that makes vectors for the request, where it is not the client's."""
    return vector_upstream(run, channel) if request.spec.endpoint == "embeddings" else None


def _vector_request(
    request: ClientRequest, upstream: VectorUpstream, channel: ChannelView, model: str
) -> tuple[VectorRequest, list[str]]:
    """The request in another API, and the parameters that are dropped before. Raises BadRequest."""
    fields, dropped = parameters.apply(channel.policy("embeddings"), request.fields, channel.strips_nulls)
    return upstream.request({name: decode(raw) for name, raw in fields.items()}, model), dropped


async def _embed(request: ClientRequest, upstream: VectorUpstream, attempt: Attempt) -> HttpResponseBase:
    """Have vectors made by an upstream that speaks another API."""
    name, parsed = attempt.candidate.route.upstream_name, request.parsed
    asked, attempt.record.dropped = _vector_request(request, upstream, attempt.channel, name)
    found = await ask_vectors(attempt, upstream, asked, parsed.inputs)
    answer = request.spec.read(encode(openai_answer(found, request.model)), parsed)
    if answer is None:
        raise attempt.unreadable_answer(b"", f"an answer of {asked.api}")
    shown = answer.body
    if answer.usage is None:  # which clients rely on
        usage = encode({"prompt_tokens": parsed.prompt_tokens, "total_tokens": parsed.prompt_tokens})
        shown = shown[:-1] + b',"usage":' + usage + b"}"
    attempt.answered()
    await attempt.finish(shown, answer.usage)
    return Answer(shown)


async def _try(request: ClientRequest, attempt: Attempt) -> HttpResponseBase:
    """Make one attempt. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer cannot be recorded."""
    record = attempt.record
    parsed = request.parsed
    if rules := rules_of(attempt, request.spec.endpoint):
        note_added(attempt, rules)
        try:
            parsed = request.parsed_as(request.overridden(attempt.channel, rules)[0])
        except BadRequest as bad:
            raise Failure(FailureClass.CLIENT, invalid(bad), detail=bad.message) from None
    parsed = requests.made_by(parsed, attempt.candidate.route.upstream_name)
    record.sent, record.units = True, parsed.units
    if (converting := _converted_by(attempt.run, request, attempt.channel)) is not None:
        return await _embed(request, converting, attempt)
    try:
        upstream = await _open(request, attempt)
    except Failure as failure:
        if not _refuses_base64(request, failure):
            raise
        upstream = await _open(request, attempt, floats=True)
        record.dropped.remove("encoding_format")  # the client gets what it asked for
    try:
        codec = await _codec(request.spec.endpoint, parsed, attempt, upstream)
        if codec is None:
            return await _plain(request.spec, parsed, attempt, upstream)
        return await stream_answer(attempt, upstream, codec)
    except BaseException:
        upstream.close()
        raise


async def _open(request: ClientRequest, attempt: Attempt, floats: bool = False) -> UpstreamAnswer:
    channel, name = attempt.channel, attempt.candidate.route.upstream_name
    rules = rules_of(attempt, request.spec.endpoint)
    body, attempt.record.dropped = request.upstream_body(channel, name, attempt.record.charge.clamp, floats, rules)
    content_type = request.content_type if request.form is not None else ""
    return await attempt.open(request.spec.endpoint, body, content_type)


def _refuses_base64(request: ClientRequest, failure: Failure) -> bool:
    """Whether an upstream refused the encoding that OpenAI's SDKs ask for unless told otherwise.

    It is asked once more without it, which a client's own words in the error can cause for its own request only.
    """
    if request.parsed.encoding != "base64" or request.spec.endpoint != "embeddings" or failure.status not in _REFUSED:
        return False
    text = f"{failure.error.param} {failure.error.message} {failure.detail} {failure.whole}".lower()
    return "encoding_format" in text or "base64" in text


async def _codec(endpoint: str, parsed: PassthroughRequest, attempt: Attempt, upstream: UpstreamAnswer) -> Codec | None:
    """The codec for a streamed answer; None when the answer is read as a whole."""
    channel = attempt.channel
    if (parsed.stream or "event-stream" in upstream.content_type) and await upstream.is_json():
        return None
    if endpoint == "completions" and parsed.stream:
        return CompletionStream(
            drop_usage=channel.stream_usage and not parsed.include_usage,
            watch_finish=not channel.sends_done,
            choices=parsed.choices,
            echoed=parsed.echoed,
        )
    if parsed.stream and "event-stream" in upstream.content_type and endpoint != "completions":
        heard = parsed.heard if parsed.unread is not None else None
        return TypedStream(max(1, parsed.units.images), parsed.units, parsed.whole, attempt.told, heard, parsed.images)
    if endpoint == "audio.speech" and not parsed.stream and not _NO_AUDIO.search(upstream.content_type):
        return ByteStream(content_type=upstream.content_type or "audio/mpeg", whole=parsed.whole)
    return None


async def _plain(
    spec: EndpointSpec, parsed: PassthroughRequest, attempt: Attempt, upstream: UpstreamAnswer
) -> HttpResponseBase:
    text = await upstream.read_all()
    upstream.close()
    if spec.endpoint == "completions":
        text, error = whole_completion(text)
        if error is not None:
            raise attempt.error_in_body(error)
    elif spec.endpoint.startswith(_MEDIA) and is_stream(text):
        whole, error = conversion.whole_answer(spec.endpoint, text, parsed)
        if error is not None:
            raise attempt.error_in_body(error)
        if not whole:
            raise attempt.unreadable_answer(text, f"a whole answer of {spec.endpoint}")
        text = whole
        if spec.endpoint == "audio.speech":
            return await _speech(attempt, parsed, text, conversion.audio_type(text))
    elif spec.endpoint == "audio.speech" and text and not _NO_AUDIO.search(upstream.content_type):
        return await _speech(attempt, parsed, text, upstream.content_type)
    answer = spec.read(text, parsed)
    if answer is None:
        raise attempt.unreadable_answer(text, f"an answer of {spec.endpoint}")
    if answer.is_error or spec.endpoint == "audio.speech":  # speech that is JSON
        raise attempt.error_in_body(answer.body if answer.is_error else text)
    if answer.clean is not None:
        answer = replace(answer, body=answer.clean(answer.body, attempt.told))
    attempt.answered()
    await attempt.finish(answer.body, answer.usage, answer.delivered)
    if spec.endpoint == "completions" and parsed.stream and (found := decode_object(answer.body)) is not None:
        found = {**found, "object": "text_completion"}
        return EventStream(partial(attempt.exchange.write_last, chunks_of(found, parsed.include_usage)))
    if spec.endpoint.startswith(_MEDIA) and parsed.stream:
        return EventStream(partial(attempt.exchange.write_last, conversion.stream_of(spec.endpoint, answer.body)))
    if "json" in upstream.content_type or answer.body.lstrip()[:1] == b"{":
        return Answer(answer.body)
    if "event-stream" in upstream.content_type:
        return HttpResponse(answer.body, content_type="text/plain; charset=utf-8")
    return HttpResponse(answer.body, content_type=upstream.content_type or "text/plain; charset=utf-8")


async def _speech(attempt: Attempt, parsed: PassthroughRequest, audio: bytes, content_type: str) -> HttpResponseBase:
    """Answer with speech that came in the other form: as events where audio was asked for, or as audio."""
    attempt.answered()
    media = (await asyncio.to_thread(Speech.of, audio, content_type)).usage(parsed.whole, True)
    await attempt.finish(audio, None, Delivered(len(audio), float, media=lambda: media))
    if parsed.stream:
        events = conversion.stream_of_audio(audio, parsed.prompt_tokens, media.output)
        return EventStream(partial(attempt.exchange.write_last, events))
    return HttpResponse(audio, content_type=content_type)
