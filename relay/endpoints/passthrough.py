"""Endpoints whose bodies pass through: legacy completions, embeddings, moderations, images, audio, rerank."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from tinytag import TinyTag, TinyTagException

from portal.lib.json import encode
from relay.billing.estimate import estimate_text
from relay.endpoints.errors import invalid, refused_parameter
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.attempt import Attempt
from relay.gateway.exchange import Exchange, GatewayRequest
from relay.gateway.pipeline import check_end, serve
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.gateway.stream import stream_answer
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols.chat_completions.request import conversation_key
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.codec import DONE, Codec
from relay.protocols.fields import BadRequest, Fields, as_object, read_fields, read_model
from relay.protocols.multipart import MultipartForm, Part, parse_form
from relay.protocols.passthrough import answers, requests
from relay.protocols.passthrough.answers import AnswerReader
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.stream import ByteStream, TypedStream
from relay.protocols.token_estimate import text_units
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.transport.body import Pieces

_BYTES_PER_SECOND: Final = 4000  # of audio whose length cannot be read: 32 kbit/s, so that it is rather too long than too short
_MAX_SECONDS: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Surface:
    """One endpoint. `members`: what is looked at in a request. `model`: the one that is meant when none is named. `files`: names of the file fields of its form."""

    endpoint: str
    ask: Callable[[requests.Values], PassthroughRequest]
    read: AnswerReader
    members: frozenset[str]
    model: str = ""
    files: tuple[str, ...] = ()
    form: bool = False


def _surface(
    endpoint: str, ask: Callable[[requests.Values], PassthroughRequest], read: AnswerReader, members: str, model: str = "", files: str = "", form: bool = False
) -> Surface:
    return Surface(endpoint, ask, read, frozenset(members.split()), model, tuple(files.split()), form)


def _unheard(values: requests.Values) -> PassthroughRequest:
    return requests.parse_transcription(values, 0)


_IMAGES: Final = "prompt n quality size stream partial_images"
_HEARD: Final = "stream response_format"
SURFACES: Final = {
    surface.endpoint: surface
    for surface in (
        _surface("completions", requests.parse_completions, answers.read_completion, "prompt max_tokens n best_of stream stream_options"),
        _surface("embeddings", requests.parse_embeddings, answers.read_embeddings, "input encoding_format"),
        _surface("moderations", requests.parse_moderations, answers.read_moderation, "input", "omni-moderation-latest"),
        _surface("images.generations", requests.parse_generation, answers.read_images, _IMAGES, "gpt-image-1"),
        _surface("images.edits", requests.parse_generation, answers.read_images, _IMAGES, "gpt-image-1", "image image[]", True),
        _surface("images.variations", requests.parse_images, answers.read_images, _IMAGES, "dall-e-2", "image", True),
        _surface("audio.speech", requests.parse_speech, answers.read_transcription, "input stream_format"),
        _surface("audio.transcriptions", _unheard, answers.read_transcription, _HEARD, "", "file", True),
        _surface("audio.translations", _unheard, answers.read_transcription, _HEARD, "", "file", True),
        _surface("rerank", requests.parse_rerank, answers.read_rerank, "query documents"),
    )
}


@dataclass(slots=True)
class _Request:
    """A request as it came: JSON with its members, or a form."""

    surface: Surface
    model: str
    asked: PassthroughRequest
    body: bytes
    fields: Fields
    form: MultipartForm | None = None
    content_type: str = ""
    dropped: list[str] = field(default_factory=list)

    def upstream_body(self, channel: ChannelView, model: str, stream_usage: bool) -> tuple[bytes | Pieces, list[str]]:
        """What is sent to an upstream that calls the model `model`, and which parameters are not."""
        policy = channel.policy(self.surface.endpoint)
        if self.form is not None:
            dropped = [name for name, action in policy.items() if action == "drop" and name in self.fields]
            if model == self.model and not dropped and "model" in self.fields:
                return self.body, []
            return self.form.edited({"model": model.encode()}, set(dropped)), dropped
        fields, dropped = parameters.apply(policy, self.fields, channel.strips_nulls)
        ask_usage = stream_usage and self.asked.stream and self.surface.endpoint == "completions" and not self.asked.include_usage
        if fields is self.fields and not ask_usage and bytes(fields.get("model", b"")) == encode(model):
            return self.body, dropped
        fields = {**fields, "model": msgspec.Raw(encode(model))}
        if ask_usage:
            options = as_object(fields.get("stream_options"))
            options["include_usage"] = msgspec.Raw(b"true")
            fields["stream_options"] = msgspec.Raw(encode(options))
        return encode(fields), dropped


async def pass_through(exchange: Exchange, caller: Caller, run: Runtime, endpoint: str) -> HttpResponseBase:
    """Serve one request. Raises RelayError, when nothing of an answer has been sent; the record is on disk by then."""
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
    try:
        request = await _parse(SURFACES[endpoint], body, content_type)
    except BadRequest as bad:
        raise invalid(bad) from None
    asked = request.asked
    job = GatewayRequest(
        endpoint=endpoint,
        model=request.model,
        check_channel=partial(_check_channel, run, request),
        stream=asked.stream,
        prompt_tokens=asked.prompt_tokens,
        output_limit=asked.output_limit,
        choices=asked.choices,
        conversation="" if request.form is not None else conversation_key(request.fields),
        units=asked.units,
        exact=asked.exact,
    )
    return await serve(exchange, caller, run, job, partial(_try, request))


async def _parse(surface: Surface, body: bytes, content_type: str) -> _Request:
    """Raises BadRequest."""
    if surface.form and content_type.lower().startswith("multipart/"):
        form = parse_form(body, content_type)
        texts = form.texts()
        fields = {name: msgspec.Raw(encode(text)) for name, text in texts.items()}
        model = texts.get("model", "").strip() or surface.model
        if not model:
            raise BadRequest("The field “model” is missing: name a model from GET /v1/models.", "model", "missing_required_parameter")
        files = form.files(*surface.files)
        if not files:
            name = surface.files[0]
            raise BadRequest(f"The file “{name}” is missing: send it as a field of the form.", name, "missing_required_parameter")
        values = {name: text for name, text in texts.items() if name in surface.members}
        asked = surface.ask(values)
        if surface.endpoint.startswith("audio."):
            asked = requests.parse_transcription(values, await _length(form, files[0]))
        return _Request(surface, model, asked, body, fields, form, content_type)
    if surface.form and surface.endpoint.startswith("audio."):
        raise BadRequest("Send the audio as multipart/form-data, in the field “file”; SDKs do so when they are given a file.", "file", "invalid_multipart")
    fields = read_fields(body)
    return _Request(surface, read_model(fields, surface.model), surface.ask(requests.values_of(fields, surface.members)), body, fields)


async def _length(form: MultipartForm, file: Part) -> int:
    """Milliseconds of audio: as its header says, or, when it has none, by its size."""
    return await asyncio.to_thread(audio_milliseconds, bytes(form.content(file)), file.filename or "")


def audio_milliseconds(content: bytes, filename: str) -> int:
    """The length of an audio file; by its size when its kind is not known."""
    seconds: float | None = None
    try:
        seconds = TinyTag.get(filename, file_obj=io.BytesIO(content), tags=False).duration
    except (TinyTagException, ValueError, LookupError, ArithmeticError, OSError):
        seconds = None
    except Exception:  # a file is whatever somebody sends; a parser's surprise is no fault of the request's
        seconds = None
    if not seconds or seconds <= 0:
        seconds = len(content) / _BYTES_PER_SECOND
    return max(1, round(min(seconds, _MAX_SECONDS) * 1000))


def _check_channel(run: Runtime, request: _Request, channel: ChannelView) -> RelayError | None:
    endpoint = request.surface.endpoint
    if not run.health.serves_api(channel, endpoint):
        message = f"The model “{request.model[:100]}” cannot be used at /v1/{endpoint.replace('.', '/')}: no channel of it serves that. Use another endpoint or another model."
        return UnsupportedEndpoint(message, param="model")
    policy = channel.policy(endpoint)
    name = parameters.refused(policy, request.fields) if policy else ""
    return refused_parameter(name) if name else None


async def _try(request: _Request, attempt: Attempt) -> HttpResponseBase:
    """One try. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer could not be recorded."""
    channel, record = attempt.channel, attempt.record
    body, record.dropped = request.upstream_body(channel, attempt.candidate.route.upstream_name, channel.stream_usage)
    record.sent = True
    content_type = request.content_type if request.form is not None else ""
    upstream = await attempt.open(request.surface.endpoint, body, content_type)
    try:
        codec = _codec(request, channel, upstream)
        if codec is None:
            return await _plain(request, attempt, upstream)
        if isinstance(codec, ByteStream):
            record.estimate = _spoken(request.asked)
        return await stream_answer(attempt, upstream, codec, request.asked.output_limit)
    except BaseException:
        upstream.close()
        raise


def _codec(request: _Request, channel: ChannelView, upstream: UpstreamAnswer) -> Codec | None:
    """How the answer is followed while it passes through, None when it is read as a whole."""
    asked, endpoint = request.asked, request.surface.endpoint
    if endpoint == "completions" and asked.stream:
        return ChatStream(drop_usage=channel.stream_usage and not asked.include_usage, watch_finish=not channel.sends_done, choices=asked.choices)
    if "text/event-stream" in upstream.content_type:
        ending = DONE if endpoint == "completions" else b""  # only the APIs for text end with a marker
        return TypedStream(max(1, asked.units.images), asked.units, ending=ending)
    if endpoint == "audio.speech" and "json" not in upstream.content_type:
        return ByteStream(content_type=upstream.content_type or "audio/mpeg")
    return None


def _spoken(asked: PassthroughRequest) -> Usage:
    """What speech uses, whose answer is sound and reports nothing: its characters for certain, its tokens as an estimate."""
    return Usage(input=asked.prompt_tokens, output=asked.output_limit or 0, audio_output=asked.output_limit or 0, characters=asked.units.characters)


async def _plain(request: _Request, attempt: Attempt, upstream: UpstreamAnswer) -> HttpResponseBase:
    surface, asked = request.surface, request.asked
    text = await upstream.read_all()
    upstream.close()
    answer = surface.read(text, asked)
    if answer is None:
        raise attempt.unreadable_answer(text, f"an answer of {surface.endpoint}")
    if answer.is_error or surface.endpoint == "audio.speech":  # speech that is JSON
        raise attempt.error_in_body(text)
    attempt.answered()
    units = 0.0
    if answer.usage is None and surface.endpoint in {"completions", "audio.transcriptions", "audio.translations"}:
        units = text_units(text) if text.lstrip().startswith(b"{") else len(text) / 4
    await attempt.finish(answer.body, answer.usage, float(estimate_text(units)))
    if "json" in upstream.content_type or answer.body.lstrip()[:1] == b"{":
        return Answer(answer.body)
    return HttpResponse(answer.body, content_type=upstream.content_type or "text/plain; charset=utf-8")
