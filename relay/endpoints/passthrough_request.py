"""Requests to pass-through endpoints: what each endpoint reads of one, and the body for an upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, text_of
from relay.billing.estimate import estimate_others
from relay.endpoints.errors import invalid
from relay.endpoints.files.file_ids import check_fields, check_form, check_no_ids
from relay.endpoints.files.file_inputs import FileInputs
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import Overridden
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.fields import (
    BadRequest,
    Fields,
    as_object,
    read_document,
    read_model,
)
from relay.protocols.framing.multipart import MultipartForm, Part, parse_form
from relay.protocols.passthrough import answers, requests
from relay.protocols.passthrough.answers import AnswerReader
from relay.protocols.passthrough.audio import AudioLength, audio_length
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.prompts.counts import one_count
from relay.protocols.prompts.lengths import hold_to, is_length, one_limit
from relay.providers import parameters
from relay.providers.overrides.apply import to_fields, to_form
from relay.providers.overrides.rules import Rule
from relay.transport.body import Pieces

_SHOWN: Final = ("image", "images", "mask")  # pictures that a request for one has
_TEXTS: Final = ("prompt", "query", "documents", "user")  # members with texts, or with objects of the client's own
_ONE_FILE: Final = frozenset(("audio.transcriptions", "audio.translations", "images.variations"))
# Fields in which other servers take the address of audio, in place of the file whose length is measured (Groq's API
# reference, November 2026).
_ADDRESSES: Final = frozenset(("url", "file_url", "audio_url"))
_COUNTED: Final = frozenset(("prompt", "input", "query", "documents", "image", "images", "mask"))
# Members by which the portal reads the answer, or which say how it is sent.
_READ: Final = frozenset(("encoding_format", "echo"))
_HEARD: Final = frozenset(("audio.transcriptions", "audio.translations"))
_FILE_MARK: Final = b'"file_id'


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


_IMAGES: Final = "model prompt n quality size stream partial_images"
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
class ClientRequest:
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
    files: FileInputs | None = None  # stored files that it shows the model, until they are put in; None: no such

    @property
    def names_files(self) -> bool:
        """Whether its JSON may name a stored file. A form is looked at when it is parsed."""
        return self.form is None and _FILE_MARK in self.body

    async def find_files(self, found: FileInputs) -> None:
        """Look up the stored files that its pictures are. Raises BadRequest, RequestTooLarge, RelayUnavailable."""
        shows = self.spec.endpoint.startswith("images.")
        check_fields(self.fields, (*_TEXTS, *(_SHOWN if shows else ())))
        if not shows:
            return
        _, named = self._named()
        await found.find_pictures(named)
        self.files = found if named else None

    async def put_files_in(self, exchange: Exchange) -> None:
        """Put the files that were found in, as data URLs. Raises RelayError."""
        if self.files is None:
            return
        values, named = self._named()
        try:
            await self.files.put_in_pictures(named, exchange.hold)
        except BadRequest as bad:
            raise invalid(bad) from None
        fields = {name: msgspec.Raw(await asyncio.to_thread(encode, value)) for name, value in values.items()}
        self.fields, self.files = {**self.fields, **fields}, None
        self.body = await asyncio.to_thread(encode, self.fields)

    def _named(self) -> tuple[dict[str, object], list[tuple[str, Json]]]:
        """The members with pictures that are stored files, decoded; and those of their objects that name one.

        Raises BadRequest for ids at other places.
        """
        values: dict[str, object] = {}
        named: list[tuple[str, Json]] = []
        for name in _SHOWN:
            raw = self.fields.get(name)
            if raw is None or _FILE_MARK not in bytes(raw):
                continue
            values[name] = value = decode(raw)
            places = [(name, value)] if isinstance(value, dict) else []
            if isinstance(value, list):
                places = [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]
            found = [(place, entry) for place, entry in places if isinstance(entry, dict) and text_of(entry, "file_id")]
            check_no_ids(value, name, {id(entry) for _, entry in found})
            for place, entry in found:
                if entry.get("image_url") or entry.get("url"):
                    message = "A picture is given by one of “file_id” and “image_url”."
                    raise BadRequest(message, place, "invalid_value", 422)
            named += found
        return values, named

    def overridden(self, channel: ChannelView, rules: Sequence[Rule], floats: bool = False) -> tuple[Fields, list[str]]:
        """The members or form fields that a channel is sent by its rules, and the names of those that are dropped.

        `floats`: as in `upstream_body`.
        """
        policy = channel.policy(self.spec.endpoint)
        if floats:
            policy = parameters.with_drop(policy, "encoding_format")
        kept = _READ | {"response_format"} if self.spec.endpoint in _HEARD else _READ
        rules = [rule for rule in rules if kept.isdisjoint((rule.path[0], *rule.target[:1]))]
        if self.form is not None:
            dropped = parameters.dropped_from_form(policy, self.fields)
            fields = {name: raw for name, raw in self.fields.items() if name not in dropped} if dropped else self.fields
            fields, ignored = to_form(rules, fields)
        else:
            fields, dropped = parameters.apply(policy, self.fields, channel.strips_nulls)
            fields, ignored = to_fields(rules, fields)
        return fields, [*dropped, *(name for name in ignored if name not in dropped)]

    def terms(self, channel: ChannelView, rules: Sequence[Rule]) -> Overridden:
        """What the rules of a channel make of the request. Raises BadRequest for what the API does not take."""
        parsed = self.parsed_as(self.overridden(channel, rules)[0])
        return Overridden(
            parsed.output_limit,
            parsed.choices,
            parsed.units,
            sum(rule.added for rule in rules),
            unsure=any(rule.unsure for rule in rules),
        )

    def parsed_as(self, fields: Fields) -> PassthroughRequest:
        """The members that decide about price and answer, where these are sent in place of the client's own.

        What the user says is the same, and so is the form in which the client wants the answer.
        """
        own, spec = self.parsed, self.spec
        if all(fields.get(name) is self.fields.get(name) for name in spec.members):
            return own
        if spec.endpoint in _HEARD:  # its length is that of the audio
            return own
        values = requests.values_of(fields, spec.members)
        if self.form is not None:
            values = {name: str(value) for name, value in values.items()}
        found = requests.with_pictures(spec.parse(values), self.pictures)
        return replace(
            own, output_limit=found.output_limit, choices=found.choices, units=found.units, images=found.images
        )

    def upstream_body(
        self,
        channel: ChannelView,
        model: str,
        clamp: int | None = None,
        floats: bool = False,
        rules: Sequence[Rule] = (),
    ) -> tuple[bytes | Pieces, list[str]]:
        """The body for an upstream that knows the model as `model`, and the parameters that are dropped.

        `clamp`: limits the tokens of a completion. `floats`: the upstream refuses vectors in Base64, which are then
        packed here. `rules`: the channel's for this request.
        """
        fields, dropped = self.overridden(channel, rules, floats)
        if self.form is not None:
            gone = {name for name in self.fields if name not in fields}
            texts = {
                name: str(decode(raw)).encode() for name, raw in fields.items() if raw is not self.fields.get(name)
            }
            if not gone and not texts and bytes(self.fields.get("model", b"")) == encode(model):
                return self.body, []
            return self.form.edited({**texts, "model": model.encode()}, gone), dropped
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
            hold_to(fields, [name for name in fields if is_length(name)] or ["max_tokens"], clamp)
        if ask_usage:
            options = as_object(fields.get("stream_options"))
            options["include_usage"] = msgspec.Raw(b"true")
            fields["stream_options"] = msgspec.Raw(encode(options))
        return encode(fields), dropped


def _with_pictures(request: ClientRequest) -> ClientRequest:
    """The request with the pictures that it shows the model counted."""
    request.pictures = sum(requests.entries(request.fields.get(name)) for name in _SHOWN)
    if request.form is not None:
        request.pictures += sum(1 for part in request.form.parts if part.filename is not None)
    request.parsed = requests.with_pictures(request.parsed, request.pictures)
    return request


async def parse_request(spec: EndpointSpec, body: bytes, content_type: str, model_in_path: str) -> ClientRequest:
    """Raises BadRequest."""
    if spec.form and content_type.lower().startswith("multipart/"):
        form = parse_form(body, content_type)
        texts = form.parameters(spec.members | {"model"})
        check_form(((part.name, form.content(part) if part.filename is None else b"") for part in form.parts), _TEXTS)
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
            parsed = requests.parse_transcription(values, await _length(form, file), file.end - file.start)
            return ClientRequest(spec, model, parsed, form.body, fields, form, content_type)
        return _with_pictures(ClientRequest(spec, model, parsed, form.body, fields, form, content_type))
    if spec.form and spec.endpoint.startswith("audio."):
        raise BadRequest(
            "Send the audio as multipart/form-data, in the field “file”; SDKs do so when they are given a file.",
            "file",
            "invalid_multipart",
        )
    body, fields, _ = read_document(body, model_in_path)
    if spec.endpoint == "completions":
        body, fields = one_limit(body, fields, "max_tokens")
    elif spec.endpoint.startswith(("images.", "audio.")):  # elsewhere, a limit is one of the input
        body, fields = one_limit(body, fields)
    body, fields = one_count(body, fields)
    model, parsed = read_model(fields, spec.model), spec.parse(requests.values_of(fields, spec.members))
    if not spec.form and (others := estimate_others(fields, _COUNTED).tokens):
        parsed = replace(parsed, prompt_tokens=parsed.prompt_tokens + others)
    request = ClientRequest(spec, model, parsed, body, fields)
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
