"""Pass-through endpoints: legacy completions, embeddings, moderations, images, audio, rerank."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import msgspec
from django.http import HttpResponse
from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.json import decode_object, encode
from relay.billing.estimate import estimate_others, most_text
from relay.endpoints.errors import invalid, refused_parameter
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.pipeline import check_end, check_large, serve
from relay.gateway.replies import Answer, EventStream
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.gateway.stream import stream_answer
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols.chat_completions.answer import chunks_of, whole_completion
from relay.protocols.chat_completions.request import conversation_key
from relay.protocols.chat_completions.stream import error_event
from relay.protocols.codec import Codec
from relay.protocols.fields import BadRequest, Fields, as_object, one_count, one_limit, read_document, read_model
from relay.protocols.multipart import MultipartForm, Part, parse_form
from relay.protocols.passthrough import answers, conversion, requests
from relay.protocols.passthrough.answers import AnswerReader
from relay.protocols.passthrough.audio import AudioLength, audio_length
from relay.protocols.passthrough.completions import CompletionStream
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.speech import HEAD, spoken
from relay.protocols.passthrough.stream import ByteStream, TypedStream
from relay.protocols.sse import is_stream
from relay.protocols.usage import Delivered
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.transport.body import Pieces

_REFUSED: Final = frozenset((400, 404, 415, 422, 501))  # statuses with which a parameter's value is refused
_NO_AUDIO: Final = re.compile(r"json|text/|html|xml|javascript")  # content types of errors and of sign-in pages
_MEDIA: Final = ("images.", "audio.")  # endpoints with streams of their own
_SHOWN: Final = ("image", "images", "mask")  # pictures that a request for one has
_MOST_PER_PICTURE: Final = 8_000  # tokens, as OpenAI's models look at one closely (November 2026)
_ONE_FILE: Final = frozenset(("audio.transcriptions", "audio.translations", "images.variations"))
# Fields in which other servers take the address of audio, in place of the file whose length is measured (Groq's API
# reference, November 2026).
_ADDRESSES: Final = frozenset(("url", "file_url", "audio_url"))
_COUNTED: Final = frozenset(("prompt", "input", "query", "documents", "image", "images", "mask"))


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """The definition of one endpoint."""

    endpoint: str  # its name among `relay.providers.apis.PATHS`
    parse: Callable[[requests.Values], PassthroughRequest]
    read: AnswerReader
    members: frozenset[str]  # of a request that are decoded
    model: str = ""  # the default model
    files: tuple[str, ...] = ()  # names of the file fields of its form
    form: bool = False  # requests may be forms


def _spec(
    endpoint: str,
    parse: Callable[[requests.Values], PassthroughRequest],
    read: AnswerReader,
    members: str,
    model: str = "",
    files: str = "",
    form: bool = False,
) -> EndpointSpec:
    return EndpointSpec(endpoint, parse, read, frozenset(members.split()), model, tuple(files.split()), form)


def _parse_transcription(values: requests.Values) -> PassthroughRequest:
    return requests.parse_transcription(values, AudioLength(0, 0, 0))


_IMAGES: Final = "prompt n quality size stream partial_images"
_TRANSCRIPTION: Final = "stream response_format"
PASSTHROUGH_ENDPOINTS: Final = {
    spec.endpoint: spec
    for spec in (
        _spec(
            "completions",
            requests.parse_completions,
            answers.read_completion,
            "prompt max_tokens n best_of echo stream stream_options",
        ),
        _spec("embeddings", requests.parse_embeddings, answers.read_embeddings, "input encoding_format"),
        _spec("moderations", requests.parse_moderations, answers.read_moderation, "input", "omni-moderation-latest"),
        _spec("images.generations", requests.parse_generation, answers.read_images, _IMAGES, "gpt-image-1"),
        _spec(
            "images.edits",
            requests.parse_generation,
            answers.read_images,
            _IMAGES,
            "gpt-image-1",
            "image image[]",
            True,
        ),
        _spec("images.variations", requests.parse_images, answers.read_images, _IMAGES, "dall-e-2", "image", True),
        _spec("audio.speech", requests.parse_speech, answers.read_transcription, "input stream_format speed"),
        _spec(
            "audio.transcriptions", _parse_transcription, answers.read_transcription, _TRANSCRIPTION, "", "file", True
        ),
        _spec("audio.translations", _parse_transcription, answers.read_transcription, _TRANSCRIPTION, "", "file", True),
        _spec("rerank", requests.parse_rerank, answers.read_rerank, "query documents"),
    )
}


@dataclass(slots=True)
class _Request:
    """A request to a pass-through endpoint, as JSON or as a form."""

    spec: EndpointSpec
    model: str
    parsed: PassthroughRequest
    body: bytes  # as the client sent it, but for a model that the path names
    fields: Fields  # members or form fields, undecoded
    form: MultipartForm | None = None
    content_type: str = ""
    pictures: int = 0  # that it shows the model
    dropped: list[str] = field(default_factory=list)

    def upstream_body(
        self, channel: ChannelView, model: str, clamp: int | None = None, floats: bool = False
    ) -> tuple[bytes | Pieces, list[str]]:
        """The body for an upstream that knows the model as `model`, and the parameters that are dropped.

        `clamp`: limits the tokens of a completion. `floats`: the upstream refuses vectors in Base64, which are then
        packed here.
        """
        policy = channel.policy(self.spec.endpoint)
        if floats:
            policy = {**policy, "encoding_format": "drop"}
        if self.form is not None:
            dropped = [name for name, action in policy.items() if action == "drop" and name in self.fields]
            if not dropped and bytes(self.fields.get("model", b"")) == encode(model):
                return self.body, []
            return self.form.edited({"model": model.encode()}, set(dropped)), dropped
        fields, dropped = parameters.apply(policy, self.fields, channel.strips_nulls)
        completes = self.spec.endpoint == "completions"
        ask_usage = channel.stream_usage and self.parsed.stream and completes and not self.parsed.include_usage
        clamp = clamp if completes else None  # other answers cannot be limited
        if (
            fields is self.fields
            and not ask_usage
            and clamp is None
            and bytes(fields.get("model", b"")) == encode(model)
        ):
            return self.body, dropped
        fields = {**fields, "model": msgspec.Raw(encode(model))}
        if clamp is not None:
            fields["max_tokens"] = msgspec.Raw(b"%d" % clamp)
        if ask_usage:
            options = as_object(fields.get("stream_options"))
            options["include_usage"] = msgspec.Raw(b"true")
            fields["stream_options"] = msgspec.Raw(encode(options))
        return encode(fields), dropped


async def pass_through(exchange: Exchange, caller: Caller, run: Runtime, endpoint: str) -> HttpResponseBase:
    """Serve one request. Raises RelayError if no part of an answer has been sent; the record is on disk by then."""
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, endpoint, body, PASSTHROUGH_ENDPOINTS[endpoint].model)
    content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
    try:
        request = await _parse(PASSTHROUGH_ENDPOINTS[endpoint], body, content_type, exchange.model_in_path)
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
        conversation="" if request.form is not None else conversation_key(request.fields),
        units=parsed.units,
        audio_between=parsed.audio_between,
        exact=parsed.exact,
        error_event=error_event if endpoint == "completions" else None,
        most_input=partial(requests.most_input, endpoint, parsed, request.body, request.form is not None),
        least_input=partial(requests.least_input, request.body) if endpoint == "completions" else None,
    )
    return await serve(exchange, caller, run, gateway_request, partial(_try, request))


def _most_prompt(request: _Request) -> int | None:
    """The tokens that the prompt can have; None where it can fill the model's context."""
    parsed = request.parsed
    if parsed.unbounded:
        return None
    text = parsed.prompt_tokens - (parsed.units.image_input if request.pictures else 0)
    return (text if request.form is not None else most_text(text)) + request.pictures * _MOST_PER_PICTURE


def _with_pictures(request: _Request) -> _Request:
    """The request with the pictures that it shows the model counted."""
    request.pictures = sum(requests.entries(request.fields.get(name)) for name in _SHOWN)
    if request.form is not None:
        request.pictures += sum(1 for part in request.form.parts if part.filename is not None)
    request.parsed = requests.with_pictures(request.parsed, request.pictures)
    return request


async def _parse(spec: EndpointSpec, body: bytes, content_type: str, model_in_path: str) -> _Request:
    """Raises BadRequest."""
    if spec.form and content_type.lower().startswith("multipart/"):
        form = parse_form(body, content_type)
        texts = form.parameters(spec.members | {"model"})
        fields = {name: msgspec.Raw(encode(text)) for name, text in texts.items()}
        model = model_in_path or texts.get("model", "").strip() or spec.model
        if not model:
            raise BadRequest(
                "The field “model” is missing: name a model from GET /v1/models.", "model", "missing_required_parameter"
            )
        file = _file(spec, form)
        values = {name: text for name, text in texts.items() if name in spec.members}
        parsed = spec.parse(values)
        if spec.endpoint.startswith("audio."):
            parsed = requests.parse_transcription(values, await _length(form, file))
            return _Request(spec, model, parsed, form.body, fields, form, content_type)
        return _with_pictures(_Request(spec, model, parsed, form.body, fields, form, content_type))
    if spec.form and spec.endpoint.startswith("audio."):
        raise BadRequest(
            "Send the audio as multipart/form-data, in the field “file”; SDKs do so when they are given a file.",
            "file",
            "invalid_multipart",
        )
    body, fields, _ = read_document(body, model_in_path)
    body, fields = one_count(*one_limit(body, fields, "max_tokens"))
    model, parsed = read_model(fields, spec.model), spec.parse(requests.values_of(fields, spec.members))
    if not spec.form and (others := estimate_others(fields, _COUNTED).tokens):
        parsed = replace(parsed, prompt_tokens=parsed.prompt_tokens + others)
    request = _Request(spec, model, parsed, body, fields)
    return _with_pictures(request) if spec.endpoint.startswith("images.") else request


def _file(spec: EndpointSpec, form: MultipartForm) -> Part:
    """The first of the files that a form is about. What is measured is what the upstream reads. Raises BadRequest."""
    name, files = spec.files[0], form.files(*spec.files)
    if not files:
        raise BadRequest(
            f"The file “{name}” is missing: send it as a field of the form.", name, "missing_required_parameter"
        )
    if any(part.start == part.end for part in files):
        raise BadRequest(f"The file “{name}” is empty. Send one with content.", name)
    if spec.endpoint in _ONE_FILE and sum(1 for part in form.parts if part.filename is not None) > 1:
        raise BadRequest(f"The form has more than one file. Send “{name}” alone.", name)
    for part in form.parts:
        if part.filename is None and (part.name in spec.files or (part.name in _ADDRESSES and name == "file")):
            raise BadRequest(
                f"The form has “{part.name}” as a text. Send the file itself, in the field “{name}”, and no address.",
                part.name,
            )
    return files[0]


async def _length(form: MultipartForm, file: Part) -> AudioLength:
    return await asyncio.to_thread(audio_length, bytes(form.content(file)))


def _check_channel(run: Runtime, request: _Request, channel: ChannelView) -> RelayError | None:
    endpoint = request.spec.endpoint
    if not run.health.serves_api(channel, endpoint):
        message = (
            f"The model “{request.model[:100]}” cannot be used at /v1/{endpoint.replace('.', '/')}: no channel of it "
            "serves that. Use another endpoint or another model."
        )
        return UnsupportedEndpoint(message, param="model")
    policy = channel.policy(endpoint)
    name = parameters.refused(policy, request.fields) if policy else ""
    return refused_parameter(name) if name else None


async def _try(request: _Request, attempt: Attempt) -> HttpResponseBase:
    """Make one attempt. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer cannot be recorded."""
    channel, record = attempt.channel, attempt.record
    record.sent = True
    try:
        upstream = await _open(request, attempt)
    except Failure as failure:
        if not _refuses_base64(request, failure):
            raise
        upstream = await _open(request, attempt, floats=True)
        record.dropped.remove("encoding_format")  # the client gets what it asked for
    try:
        codec = await _codec(request, channel, upstream)
        if codec is None:
            return await _plain(request, attempt, upstream)
        return await stream_answer(attempt, upstream, codec)
    except BaseException:
        upstream.close()
        raise


async def _open(request: _Request, attempt: Attempt, floats: bool = False) -> UpstreamAnswer:
    channel, name = attempt.channel, attempt.candidate.route.upstream_name
    body, attempt.record.dropped = request.upstream_body(channel, name, attempt.record.charge.clamp, floats)
    content_type = request.content_type if request.form is not None else ""
    return await attempt.open(request.spec.endpoint, body, content_type)


def _refuses_base64(request: _Request, failure: Failure) -> bool:
    """Whether an upstream refused the encoding that OpenAI's SDKs ask for unless told otherwise.

    It is asked once more without it, which a client's own words in the error can cause for its own request only.
    """
    if request.parsed.encoding != "base64" or request.spec.endpoint != "embeddings" or failure.status not in _REFUSED:
        return False
    text = f"{failure.error.param} {failure.error.message} {failure.detail} {failure.whole}".lower()
    return "encoding_format" in text or "base64" in text


async def _codec(request: _Request, channel: ChannelView, upstream: UpstreamAnswer) -> Codec | None:
    """The codec for a streamed answer; None when the answer is read as a whole."""
    parsed, endpoint = request.parsed, request.spec.endpoint
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
        return TypedStream(max(1, parsed.units.images), parsed.units, parsed.whole)
    if endpoint == "audio.speech" and not parsed.stream and not _NO_AUDIO.search(upstream.content_type):
        return ByteStream(content_type=upstream.content_type or "audio/mpeg", whole=parsed.whole)
    return None


async def _plain(request: _Request, attempt: Attempt, upstream: UpstreamAnswer) -> HttpResponseBase:
    spec, parsed = request.spec, request.parsed
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
        raise attempt.error_in_body(text)
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
    media = spoken(audio[:HEAD], len(audio), parsed.whole, complete=True)
    await attempt.finish(audio, None, Delivered(len(audio), float, media=lambda: media))
    if parsed.stream:
        events = conversion.stream_of_audio(audio, parsed.prompt_tokens, media.output)
        return EventStream(partial(attempt.exchange.write_last, events))
    return HttpResponse(audio, content_type=content_type)
