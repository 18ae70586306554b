"""Estimates token counts for upstreams that report none, by classes of script. No tokenizer is downloaded or loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from portal.lib.json import decode
from relay.protocols.prompts.content import Content, content_of
from relay.protocols.token_estimate import token_units
from relay.protocols.usage import NO_USAGE, Usage

# A file within a request: only where an API has one. A text that begins like one is a text.
_DATA_URL: Final = re.compile(
    rb'("(?:url|image_url|video_url|file_url|file_data|data|audio_url)"\s*:\s*)"data:(\w*)/?([^;,"]*)[^"]*"'
)
# A file within a request of Anthropic's API: Base64 without a head. That of a PDF begins with these letters.
_SOURCE_DATA: Final = re.compile(rb'("data"\s*:\s*)"(JVBERi)?[\w+/=-]{256,}"')
_IMAGE_MEMBERS: Final = (b'"url"', b'"image_url"')
_AUDIO_DATA: Final = re.compile(rb'("data"\s*:\s*)"[\w+/=-]{256,}"')  # of `input_audio`
_PER_MESSAGE: Final = 4  # role and separators, as OpenAI's counting guide has it
_PER_FILE: Final = 800  # an inline image or file, about one image at standard detail
_MOST_PER_IMAGE: Final = 32  # times that: models that count images dearly have 25,000 tokens for one
_BYTES_PER_TOKEN: Final = 3  # of a text that has not been read yet
_MEDIA_BYTES: Final = 200  # of sound and film for a token, at their lowest usual rates
_SOUND_BYTES: Final = 1600  # of a token at a usual one: a tenth of a second of MP3
_SHORT: Final = 64  # bytes of a parameter that hardly counts
# Parameters of any length that models are not told.
_UNTOLD: Final = frozenset(("model", "metadata", "client_metadata", "user", "logit_bias"))
_COUNTED: Final = frozenset(("messages", "input", "tools"))
_DOCUMENT_BYTES: Final = 40  # of a PDF for a token: a page with its picture has about 60 KB and 1,500 tokens
_WIDEST: Final = 4  # bytes of a unit of `token_units`; a token has a byte at least
_LARGEST_WINDOW: Final = 2 * 1024 * 1024  # tokens of context that any known model has


class PromptSize(NamedTuple):
    """The tokens of a prompt: estimated, and as many as it can have."""

    tokens: int
    most: int

    def plus(self, tokens: int, most: int) -> PromptSize:
        return PromptSize(self.tokens + tokens, self.most + most)


_NOTHING: Final = PromptSize(0, 0)


def estimate_request(
    fields: Mapping[str, msgspec.Raw], messages: bytes | msgspec.Raw, content: Content | None = None
) -> PromptSize:
    """Estimate the tokens of `messages`, and of every other long member of a request: tools, schemas, predictions."""
    prompt, others = estimate_prompt(messages, fields.get("tools"), content), estimate_others(fields, _COUNTED)
    return prompt.plus(*others) if others.most else prompt


def estimate_others(fields: Mapping[str, msgspec.Raw], counted: Collection[str]) -> PromptSize:
    """Estimate the tokens of the long members of a request but for those that are `counted` already."""
    units, most = 0.0, 0
    for name, raw in fields.items():
        if len(raw) > _SHORT and name not in _UNTOLD and name not in counted:
            text = bytes(raw)
            units, most = units + token_units(text), most + len(text)
    return PromptSize(math.ceil(units), most) if most else _NOTHING


def estimate_prompt(
    messages: bytes | msgspec.Raw, tools: msgspec.Raw | None = None, content: Content | None = None
) -> PromptSize:
    """Estimate the tokens of the JSON text of `messages` and `tools`, and those that they can have.

    An inline file counts by its kind and size, not as the text of its Base64. `content`: what the messages have beside
    their text, where that has been looked at.
    """
    text = bytes(messages)
    images, media, _ = content_of(decode(text)) if content is None else content
    text, files = _without_files(text, images) if media else (text, PromptSize(0, 0))
    units = token_units(text) + (token_units(bytes(tools)) if tools is not None else 0.0)
    longest = len(text) + (len(bytes(tools)) if tools is not None else 0) + _PER_MESSAGE
    return PromptSize(math.ceil(units * 0.9) + files.tokens + _PER_MESSAGE, longest + files.most)


def estimate_media(messages: bytes | msgspec.Raw) -> Usage:
    """Estimate the tokens of sound and pictures in the JSON text of `messages`, as parts of those of the prompt."""
    text = bytes(messages)
    images, media, _ = content_of(decode(text))
    if not (images or media):
        return NO_USAGE
    audio = sum(
        file_size((match.end() - match.start()) * 3 // 4, "audio").tokens
        for match in (*_AUDIO_DATA.finditer(text), *_DATA_URL.finditer(text))
        if match.re is _AUDIO_DATA or match[2] == b"audio"
    )
    return Usage(audio_input=audio, image_input=images * _PER_FILE)


def _without_files(text: bytes, images: int) -> tuple[bytes, PromptSize]:
    """The text without its inline files, and their tokens, with those of so many images, inline or by address."""
    tokens = most = inline = 0
    if b'"data:' in text:

        def count(match: re.Match[bytes]) -> bytes:
            nonlocal inline, tokens, most
            kind = match[2].decode()
            found = file_size((match.end() - match.start()) * 3 // 4, kind, match[3].decode("latin-1"))
            inline += kind == "image" and match[1].startswith(_IMAGE_MEMBERS)
            tokens, most = tokens + found.tokens, most + found.most
            return match[1] + b'""'

        text = _DATA_URL.sub(count, text)
    if b'"input_audio"' in text:

        def count_audio(match: re.Match[bytes]) -> bytes:
            nonlocal tokens, most
            found = file_size((match.end() - match.start()) * 3 // 4, "audio")
            tokens, most = tokens + found.tokens, most + found.most
            return match[1] + b'""'

        text = _AUDIO_DATA.sub(count_audio, text)
    if b'"base64"' in text:

        def count_source(match: re.Match[bytes]) -> bytes:
            nonlocal inline, tokens, most
            kind, subtype = ("application", "pdf") if match[2] is not None else ("image", "")
            found = file_size((match.end() - match.start()) * 3 // 4, kind, subtype)
            inline += kind == "image"
            tokens, most = tokens + found.tokens, most + found.most
            return match[1] + b'""'

        text = _SOURCE_DATA.sub(count_source, text)
    others = max(0, images - inline)  # an image that is not in the request, or not as an image
    return text, PromptSize(tokens + others * _PER_FILE, most + others * _PER_FILE * _MOST_PER_IMAGE)


def estimate_contents(text: bytes, files: Iterable[tuple[int, str]]) -> PromptSize:
    """Estimate the tokens of a prompt whose files, each with its size in bytes and its type, are not in its text."""
    found = PromptSize(math.ceil(token_units(text) * 0.9) + _PER_MESSAGE, len(text) + _PER_MESSAGE)
    for size, content_type in files:
        found = found.plus(*estimate_file(size, content_type))
    return found


def estimate_kinds(files: Iterable[tuple[int, str]]) -> Usage:
    """Estimate the tokens of the sound and the pictures among files, as parts of those of the prompt."""
    audio = images = 0
    for size, content_type in files:
        tokens = estimate_file(size, content_type).tokens
        audio += tokens if content_type.startswith("audio/") else 0
        images += tokens if content_type.startswith("image/") else 0
    return Usage(audio_input=audio, image_input=images)


def file_size(size: int, kind: str, subtype: str = "") -> PromptSize:
    """The tokens of a file of `size` bytes and a media type, put in as it is."""
    match kind:
        case "image":
            return PromptSize(_PER_FILE, _PER_FILE * _MOST_PER_IMAGE)
        case "audio" | "video":
            return PromptSize(_PER_FILE + size // _SOUND_BYTES, _PER_FILE + size // _MEDIA_BYTES)
        case "text":
            return PromptSize(size // _BYTES_PER_TOKEN + 1, size + 1)
    if subtype in {"json", "xml"}:
        return PromptSize(size // _BYTES_PER_TOKEN + 1, size + 1)
    return PromptSize(max(_PER_FILE, size // _DOCUMENT_BYTES), min(max(_PER_FILE, size), _LARGEST_WINDOW))


def estimate_file(size: int, content_type: str) -> PromptSize:
    """The tokens of a stored file of `size` bytes, put in as text (`text/plain`) or as what it is."""
    kind, _, subtype = content_type.partition(";")[0].strip().lower().partition("/")
    return file_size(size, kind, subtype)


def most_text(units: float) -> int:
    """The tokens that a text can have of which `token_units` counted these units."""
    return math.ceil(units * _WIDEST)


def estimate_text(units: float) -> int:
    """Round the units that `relay.protocols.token_estimate.token_units` counted in a text up to whole tokens."""
    return math.ceil(units)
