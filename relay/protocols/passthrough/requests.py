"""Requests of pass-through endpoints: parses the members that decide about price and limits. Pure.

Source of members and units: OpenAI's API reference and SDK, November 2026; for rerank, which OpenAI does not offer,
those of Cohere and Jina.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from msgspec.structs import replace as replace_struct

from portal.lib.json import Json, decode, decode_object, encode, text_of
from portal.lib.texts import whole_number
from relay.protocols.fields import MAX_TOKENS, BadRequest, Fields, absent
from relay.protocols.passthrough.audio import AudioLength
from relay.protocols.passthrough.containers.unknown import heard_milliseconds
from relay.protocols.passthrough.images.tokens import NO_OPTIONS, PARTIAL, ImageOptions
from relay.protocols.token_estimate import least_units, token_units
from relay.protocols.usage import ADDED_TO_CHAT, LEAST_ADDED, NO_USAGE, Usage

Values = Mapping[str, object]
_PER_INPUT: Final = 1
_PICTURES: Final = ("image", "image_url")  # members of inputs: Jina, Cohere, OpenAI
_PER_PICTURE: Final = 800
_SCHEME: Final = 16  # characters in which that of an address ends
_AUDIO_TOKENS_PER_SECOND: Final = 17  # input: a minute is about 1,000
_TEXT_TOKENS_PER_SECOND: Final = 5  # of the transcript
_SPOKEN_PER_CHARACTER: Final = 1.5
_SPOKEN_MILLISECONDS: Final = 100  # of a character that is spoken slowly
_SLOWEST: Final = 0.25  # of the usual speed

_ADDED_FACTOR: Final = 16  # tokens for each estimated one: an instruction before each of many short texts
_ADDED_FILES: Final = 131_072  # tokens: sixteen images have about 100,000 however small their files are


@dataclass(frozen=True, slots=True)
class PassthroughRequest:
    """The members of a request that decide about its price and its answer. Tokens are estimates."""

    prompt_tokens: int = 0
    output_limit: int | None = 0  # tokens of each answer; None: no limit
    choices: int = 1  # how many answers are requested
    stream: bool = False
    include_usage: bool = False  # the client wants a usage chunk at the end of a stream
    # Images, characters and milliseconds that are known beforehand, and tokens of audio and images; those of images
    # that it makes, for which `output_limit` is what they may have at most.
    units: Usage = NO_USAGE
    audio_between: tuple[int, int] | None = None  # milliseconds that the audio in it can have; None: it has none
    exact: bool = True  # the answer cannot be limited to fewer tokens
    encoding: str = ""  # of embeddings: float or base64; of transcriptions: the response_format
    inputs: int = 1  # of embeddings and moderations, for each of which there is a vector or a verdict; documents
    unbounded: bool = False  # something that its input names, such as a film, can be of any length
    echoed: tuple[str, ...] = ()  # texts with which the answers of a legacy completion begin
    unread: tuple[int, int] | None = None  # of audio that cannot be counted: its usual milliseconds, and its bytes
    images: ImageOptions = NO_OPTIONS  # of those that it makes

    @property
    def whole(self) -> Usage:
        """An estimate of the tokens that it takes, of an answer without text."""
        output = self.units.output or (self.output_limit or 0) * self.choices
        return Usage(self.prompt_tokens, output=output, audio_output=min(output, self.units.audio_output))

    def heard(self, units: float, transcript: bytes = b"") -> Usage:
        """The length of audio that cannot be counted, and its tokens, by what was heard; nothing where it was.

        `units`: the estimated tokens of what was said. `transcript`: as it was delivered.
        """
        if self.unread is None:
            return NO_USAGE
        milliseconds = heard_milliseconds(*self.unread, units, transcript)
        tokens = _audio_tokens(milliseconds)
        return Usage(tokens, audio_input=tokens, milliseconds=milliseconds)


def values_of(fields: Fields, names: frozenset[str]) -> dict[str, object]:
    """Decode some members of a JSON body."""
    return {name: decode(raw) for name, raw in fields.items() if name in names}


def _need(values: Values, name: str, what: str) -> object:
    found = values.get(name)
    if found is None or found == "" or found == []:
        raise BadRequest(f"The field “{name}” is missing: send {what}.", name, "missing_required_parameter")
    return found


def _flag(values: Values, name: str) -> bool:
    found = values.get(name)
    if found is None or isinstance(found, bool):
        return bool(found)
    if isinstance(found, str) and found.lower() in {"true", "false", "1", "0", ""}:  # as forms have it
        return found.lower() in {"true", "1"}
    raise BadRequest(f"The field “{name}” must be true or false.", name)


def _count(values: Values, name: str, maximum: int) -> int:
    given = values.get(name)
    if given is None or given == "":
        return 1
    found = whole_number(given, 1, maximum)
    if found is None:
        raise BadRequest(f"The field “{name}” must be between 1 and {maximum}.", name)
    return found


def _text_tokens(value: object, name: str) -> int:
    """The estimated tokens of a text, a list of token numbers, or a list of either. Raises BadRequest."""
    if isinstance(value, str):
        return math.ceil(token_units(value.encode("utf-8", "replace"))) + _PER_INPUT
    if isinstance(value, list):
        if all(isinstance(entry, int) and not isinstance(entry, bool) for entry in value):
            return len(value) + _PER_INPUT
        if all(isinstance(entry, (str, list, dict)) for entry in value):
            return sum(
                _text_tokens(entry, name) if not isinstance(entry, dict) else _part_tokens(entry) for entry in value
            )
    raise BadRequest(f"The field “{name}” must be a text, or a list of texts.", name)


def _inputs(value: object) -> int:
    """How many texts, or lists of token numbers, an input has. Parts of another kind can be one input together."""
    return len(value) if isinstance(value, list) and all(isinstance(one, (str, list)) for one in value) else 1


def _part_tokens(part: Json) -> int:
    """The estimated tokens of an input that is an object: its text, or all of its members, and a picture."""
    text, pictured = text_of(part, "text"), _pictured(part)
    told = text.encode("utf-8", "replace") if text or pictured else encode(part)
    units = math.ceil(token_units(told)) if told else 0
    return units + _PER_PICTURE if pictured else units if text else max(units, _PER_PICTURE)


def _pictured(part: Json) -> bool:
    return any(part.get(name) for name in _PICTURES)


def _pictures(inputs: object) -> int:
    parts = inputs if isinstance(inputs, list) else [inputs]
    return sum(1 for part in parts if isinstance(part, dict) and _pictured(part))


def _is_unbounded(inputs: object) -> bool:
    """Whether an input names what can be of any length: anything but a picture by its address, or a list of parts."""
    parts = inputs if isinstance(inputs, list) else [inputs]
    return any(
        isinstance(value, (dict, list)) or (isinstance(value, str) and "://" in value[:_SCHEME])
        for part in parts
        if isinstance(part, dict)
        for name, value in part.items()
        if name not in _PICTURES and name != "text"
    )


_entries: Final = msgspec.json.Decoder(list[msgspec.Raw])


def entries(raw: msgspec.Raw | None) -> int:
    """How many entries a member has, which may be one that is no list."""
    if raw is None or absent(raw):
        return 0
    try:
        return len(_entries.decode(raw))
    except (msgspec.DecodeError, ValueError):
        return 1


def parse_completions(values: Values) -> PassthroughRequest:
    """Legacy completions."""
    prompt = values.get("prompt")
    tokens = _text_tokens(prompt, "prompt") if prompt is not None else 1
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    limit = values.get("max_tokens")  # 0 where only the prompt is read, with `echo`
    options = values.get("stream_options")
    # OpenAI's default is 16, but other servers go on without end, as they do for -1.
    known = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
    output_limit = min(limit, MAX_TOKENS) if isinstance(limit, int) and known else None
    choices = max(_count(values, "n", 128), _count(values, "best_of", 128)) * prompts
    texts = (prompt if isinstance(prompt, list) else [prompt]) if values.get("echo") is True else []
    return PassthroughRequest(
        tokens,
        output_limit,
        choices,
        _flag(values, "stream"),
        isinstance(options, dict) and options.get("include_usage") is True,
        exact=False,
        echoed=tuple(text for text in texts if isinstance(text, str)),
    )


def parse_embeddings(values: Values) -> PassthroughRequest:
    wanted = values.get("encoding_format")
    if wanted not in (None, "float", "base64"):
        raise BadRequest("The field “encoding_format” must be float or base64.", "encoding_format")
    texts = _need(values, "input", "a text, or a list of texts")
    return PassthroughRequest(
        _text_tokens(texts, "input"),
        units=Usage(image_input=_PER_PICTURE * _pictures(texts)),
        encoding=str(wanted or "float"),
        inputs=_inputs(texts),
        unbounded=_is_unbounded(texts),
    )


def parse_moderations(values: Values) -> PassthroughRequest:
    texts = _need(values, "input", "a text, a list of texts, or a list of parts")
    return PassthroughRequest(
        _text_tokens(texts, "input"),
        units=Usage(image_input=_PER_PICTURE * _pictures(texts)),
        inputs=_inputs(texts),
        unbounded=_is_unbounded(texts),
    )


def parse_images(values: Values) -> PassthroughRequest:
    """Image generations, edits and variations."""
    count = _count(values, "n", 10)
    options = ImageOptions.of(*(values.get(name) for name in ("model", "quality", "size", "partial_images")))
    units = Usage(images=count, output=_made(count, options))
    prompt = values.get("prompt")
    tokens = _text_tokens(prompt, "prompt") if isinstance(prompt, str) else 0
    return PassthroughRequest(tokens, options.most(), count, _flag(values, "stream"), units=units, images=options)


def _made(count: int, options: ImageOptions) -> int:
    return count * (options.tokens() + PARTIAL * options.partials)


def made_by(parsed: PassthroughRequest, name: str) -> PassthroughRequest:
    """The same request for images, of a model that has this name at an upstream: ours may be an alias."""
    options = parsed.images.by_model(name)
    if not parsed.units.images or options == parsed.images:
        return parsed
    return replace(
        parsed, images=options, units=replace_struct(parsed.units, output=_made(parsed.units.images, options))
    )


def with_pictures(parsed: PassthroughRequest, pictures: int) -> PassthroughRequest:
    """The same request with pictures that it shows the model."""
    if not pictures:
        return parsed
    tokens = _PER_PICTURE * pictures
    units = replace_struct(parsed.units, image_input=tokens)
    return replace(parsed, prompt_tokens=parsed.prompt_tokens + tokens, units=units)


def parse_generation(values: Values) -> PassthroughRequest:
    _need(values, "prompt", "what the image shall show")
    return parse_images(values)


def parse_speech(values: Values) -> PassthroughRequest:
    text = _need(values, "input", "the text to be spoken")
    if not isinstance(text, str):
        raise BadRequest("The field “input” must be a text.", "input")
    speed = values.get("speed")
    slower = 1 / max(_SLOWEST, min(speed, 1.0)) if isinstance(speed, (int, float)) and speed > 0 else 1.0
    spoken = math.ceil(len(text) * _SPOKEN_PER_CHARACTER * slower)
    return PassthroughRequest(
        _text_tokens(text, "input"),
        spoken,
        stream=values.get("stream_format") == "sse",
        units=Usage(
            characters=len(text),
            audio_output=spoken,
            milliseconds=math.ceil(len(text) * _SPOKEN_MILLISECONDS * slower),
        ),
    )


def _audio_tokens(milliseconds: int) -> int:
    return -(-milliseconds // 1000) * _AUDIO_TOKENS_PER_SECOND + 1


def parse_transcription(values: Values, length: AudioLength, size: int = 0) -> PassthroughRequest:
    """Transcriptions and translations of audio of this length. `size`: bytes of the file."""
    audio_tokens = _audio_tokens(length.milliseconds)
    return PassthroughRequest(
        audio_tokens,
        -(-length.milliseconds // 1000) * _TEXT_TOKENS_PER_SECOND + 16,
        stream=_flag(values, "stream"),
        units=Usage(milliseconds=length.milliseconds, audio_input=audio_tokens),
        audio_between=(length.least, length.most),
        encoding=str(values.get("response_format") or "json"),
        unread=(length.usual, size) if length.usual else None,
    )


def parse_rerank(values: Values) -> PassthroughRequest:
    query = _text_tokens(_need(values, "query", "what to look for"), "query")
    documents = _need(values, "documents", "a list of texts to be ranked")
    if not isinstance(documents, list):
        raise BadRequest("The field “documents” must be a list.", "documents")
    tokens = _text_tokens(documents, "documents") + query * len(documents)
    unbounded = _is_unbounded([*documents, values.get("query")])
    return PassthroughRequest(tokens, unbounded=unbounded, inputs=len(documents))


def least_input(body: bytes, enough: float) -> float:
    """The estimated tokens of the prompt of a legacy completion, counted until there are `enough`."""
    prompt = (decode_object(body) or {}).get("prompt")
    return least_units(prompt if isinstance(prompt, list) else [prompt], enough)


def most_input(endpoint: str, parsed: PassthroughRequest, body: bytes, is_form: bool) -> int | None:
    """The tokens of input that a request cannot exceed; None where it names images or the like by their address.

    A token is a byte at least.
    """
    if is_form or endpoint.startswith("images.edits"):
        return len(body) + _ADDED_FILES
    if endpoint == "completions":
        return parsed.choices * len(body) + ADDED_TO_CHAT
    found = decode(body)
    texts = found.get("input") or found.get("documents") if isinstance(found, dict) else None
    parts = texts if isinstance(texts, list) else []
    if any(isinstance(part, dict) and not isinstance(part.get("text"), str) for part in parts):
        return None
    return len(body) + _ADDED_FACTOR * parsed.prompt_tokens + LEAST_ADDED
