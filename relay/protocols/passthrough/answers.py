"""Answers of pass-through endpoints: parses their usage, and completes the form that clients rely on. Pure.

A `read_…` function returns None when the body is no answer of its endpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from portal.lib.json import Json, decode, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.chat_completions.answer import clean_choices, parse_chat_answer
from relay.protocols.error_objects import Envelope, error_of_entry, is_error_object, told_entry
from relay.protocols.errors import Told
from relay.protocols.passthrough.images.entries import clean_entries, read_entries
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.stream import is_page
from relay.protocols.passthrough.usage import parse_image_usage, parse_transcript_usage, parse_usage
from relay.protocols.passthrough.vectors import has_vectors, in_encoding
from relay.protocols.token_estimate import answer_units, token_units
from relay.protocols.usage import NO_USAGE, Delivered, Usage, present


class _Shape(Envelope):
    usage: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    images: msgspec.Raw = msgspec.Raw()
    results: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    duration: object = None
    quality: object = None
    size: object = None


_shape: Final = msgspec.json.Decoder(_Shape)
_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})
_NO_VERDICT: Final = frozenset(("index", "object", "id", "model", "input"))
_SPACE: Final = b" \t\r\n"
_LONGEST: Final = 1e6  # seconds
_SEGMENTS: Final = ("segments", "words", "chunks", "utterances")  # parts of a transcript
_PLAIN: Final = frozenset(("text", "srt", "vtt"))  # forms of a transcript that are no JSON
# What SRT and WebVTT have beside what was said: their mark, the numbers of cues, and their times.
_TIMES: Final = re.compile(rb"^(?:WEBVTT.*|\d+\s*|[\d:.,]+[ \t]*-->.*)$", re.M)


@dataclass(frozen=True, slots=True)
class PassthroughAnswer:
    """A complete answer of a pass-through endpoint."""

    body: bytes  # for the client
    usage: Usage | None = None  # None: the upstream reports none
    is_error: bool = False  # a 200 with an error object, which is the body
    clean: Callable[[bytes, Told], bytes] | None = None  # cleans entries that are errors; None: there are none
    delivered: Delivered | None = None  # None: neither text nor audio nor images


AnswerReader = Callable[[bytes, PassthroughRequest], PassthroughAnswer | None]


def _decoded(body: bytes) -> _Shape | None:
    try:
        return _shape.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _has_entries(raw: msgspec.Raw) -> bool:
    """Whether a list has entries: without vectors, verdicts or images a 200 is no answer."""
    return present(raw) and bytes(memoryview(raw)[:64]).translate(None, _SPACE) != b"[]"


def _is_verdict(entry: object) -> bool:
    """Whether an entry of a moderation says anything: `flagged`, `categories`, `category_scores`, or a vendor's own."""
    return isinstance(entry, dict) and any(
        value not in _NOTHING for name, value in entry.items() if name not in _NO_VERDICT
    )


def _first_error(entries: object, *answers: str) -> PassthroughAnswer | None:
    """The answer as an error when an entry is one: what is asked for each text is told for all, or for none.

    `answers`: the members in which an entry has its part of the answer.
    """
    for entry in entries if isinstance(entries, list) else ():
        answered = isinstance(entry, dict) and any(entry.get(name) is not None for name in answers)
        error = error_of_entry(entry, answered)
        if error is not None:
            return PassthroughAnswer(error, None, True)
    return None


def read_completion(body: bytes, asked: PassthroughRequest) -> PassthroughAnswer | None:
    """Read a legacy completion."""
    found = parse_chat_answer(body)
    if found is None:
        return None
    if found.error is not None:
        return PassthroughAnswer(found.error, None, True)
    delivered = Delivered.by(body)
    if asked.echoed:
        delivered = replace(delivered, units=lambda: answer_units(body) - _echoed(body, asked.echoed))
    clean = clean_choices if found.has_failures else None
    return PassthroughAnswer(body, found.usage, clean=clean, delivered=delivered)


def _echoed(body: bytes, prompts: Sequence[str]) -> float:
    """The estimated tokens of a completion that repeat its prompts, and are no output."""
    texts = [text_of(choice, "text") for choice in objects_of(decode_object(body) or {}, "choices")]
    repeated = [next((prompt for prompt in prompts if text.startswith(prompt)), "") for text in texts]
    return sum(token_units(encode(prompt).strip(b'"')) for prompt in repeated)


def read_embeddings(body: bytes, asked: PassthroughRequest) -> PassthroughAnswer | None:
    found = _decoded(body)
    if found is None:
        return None
    if found.is_error(present(found.data)):
        return PassthroughAnswer(body, None, True)
    if not _has_entries(found.data):
        return None
    if _may_have_errors(found.data) and (failed := _first_error(decode(found.data), "embedding")) is not None:
        return failed
    if not has_vectors(found.data, asked.inputs):
        return None
    try:
        converted = in_encoding(body, found.data, asked.encoding)
    except ValueError:
        return None
    usage = parse_usage(found.usage) if present(found.usage) else None
    return PassthroughAnswer(converted, usage)


def _may_have_errors(data: msgspec.Raw) -> bool:
    """Whether entries with vectors may be errors. Vectors have no such names in them, and are not parsed."""
    text = bytes(data)
    return b'"error' in text or b'"message"' in text or b'"detail"' in text or b'"embedding"' not in text


def read_moderation(body: bytes, asked: PassthroughRequest) -> PassthroughAnswer | None:
    found = _decoded(body)
    if found is None:
        return None
    if found.is_error(present(found.results)):
        return PassthroughAnswer(body, None, True)
    results = decode(found.results) if _has_entries(found.results) else None
    if (failed := _first_error(results, "flagged", "categories", "category_scores")) is not None:
        return failed
    if not (isinstance(results, list) and len(results) >= asked.inputs and all(map(_is_verdict, results))):
        return None
    return PassthroughAnswer(body, parse_usage(found.usage) if present(found.usage) else None)


def read_images(body: bytes, asked: PassthroughRequest) -> PassthroughAnswer | None:
    found = _decoded(body)
    if found is None:
        return None
    if found.is_error(present(found.data) or present(found.images)):
        return PassthroughAnswer(body, None, True)
    if not _has_entries(found.data) and _has_entries(found.images):
        body = _with_data(body)
        found = _decoded(body) or found
    entries = read_entries(found.data) if _has_entries(found.data) else None
    if not entries:
        return None
    made, errors = sum(entry.is_image for entry in entries), [entry.error for entry in entries if entry.error]
    if not made:
        return PassthroughAnswer(errors[0], None, True) if errors else None
    usage = parse_image_usage(found.usage, asked.prompt_tokens) if present(found.usage) else None
    media = Usage(images=made, output=made * asked.images.tokens(found.quality, found.size))
    delivered = Delivered(len(body), float, media=lambda: media)
    usage = replace(usage or NO_USAGE, images=made)
    return PassthroughAnswer(body, usage, clean=clean_entries if errors else None, delivered=delivered)


def _with_data(body: bytes) -> bytes:
    """An answer whose images are called `images`, as SiliconFlow and DeepInfra call them, in OpenAI's form."""
    whole = decode_object(body) or {}
    images = whole.pop("images", None)
    data = [_image_entry(image) for image in images] if isinstance(images, list) else []
    return encode({**whole, "data": data})


def _image_entry(image: object) -> object:
    if not isinstance(image, str):
        return image
    head, comma, data = image.partition(",")
    if comma and head.startswith("data:"):
        return {"b64_json": data}
    return {"url": image} if image.startswith(("http://", "https://")) else {"b64_json": image}


def read_transcription(body: bytes, asked: PassthroughRequest) -> PassthroughAnswer | None:
    """Read a transcription: JSON, or plain text when the client asked for it."""
    plain = asked.encoding in _PLAIN
    found = _decoded(body) if not plain or body.lstrip().startswith(b"{") else None
    if found is not None and found.is_error(present(found.text)):
        return PassthroughAnswer(body, None, True)
    if found is not None and not _is_text(found.text):
        return None
    if found is None:
        delivered = _heard(body, _TIMES.sub(b"", body).strip() if plain else b"", asked)
        return PassthroughAnswer(body, delivered=delivered) if plain and not is_page(body) else None
    usage = parse_transcript_usage(found.usage) if present(found.usage) else None
    if (usage is None or not usage.milliseconds) and (seconds := _seconds(found.duration)):
        usage = replace(usage or NO_USAGE, milliseconds=math.ceil(seconds * 1000))
    delivered, clean = _heard(body, bytes(found.text).strip(b'"'), asked), None
    if b'"error' in body:
        whole = decode_object(body) or {}
        errors = [error for name in _SEGMENTS if (error := _errors_of(whole, name))]
        if errors and not text_of(whole, "text").strip() and all(map(all, errors)):
            return PassthroughAnswer(next(filter(None, errors[0])), None, True)
        clean = _clean_segments if any(map(any, errors)) else None
    return PassthroughAnswer(body, usage, clean=clean, delivered=delivered)


def _is_text(raw: msgspec.Raw) -> bool:
    """Whether a transcript says what was heard; an empty text is one of silence."""
    return bytes(memoryview(raw)[:1]) == b'"'


def _heard(body: bytes, text: bytes, asked: PassthroughRequest) -> Delivered:
    """What a transcript delivers, of which `text` was said."""
    units = token_units(text)
    return Delivered(len(body), lambda: units, media=lambda: asked.heard(units, body))


def _errors_of(whole: Json, name: str) -> list[bytes | None]:
    """The errors of the entries of a list, None for those that are none."""
    return [error_of_entry(entry, "text" in entry) for entry in objects_of(whole, name)]


def _clean_segments(body: bytes, told: Told) -> bytes:
    """A transcript whose parts that are errors say what the client is told of them."""
    whole = decode_object(body) or {}
    for name in _SEGMENTS:
        for entry, error in zip(objects_of(whole, name), _errors_of(whole, name), strict=True):
            if error is not None:
                said = {member: entry[member] for member in ("text",) if member in entry}
                cleaned = {**said, **told_entry(entry, error, told)}
                entry.clear()
                entry.update(cleaned)
    return encode(whole)


def _seconds(duration: object) -> float:
    """The `duration` of a transcript, 0 where it is no number of seconds."""
    if isinstance(duration, bool) or not isinstance(duration, (int, float)):
        return 0.0
    return duration if 0 < duration < _LONGEST else 0.0


def _is_ranked(entry: Json, documents: int) -> bool:
    """Whether a result of a ranking has its score, and tells which document it is about."""
    score, index = entry.get("relevance_score", entry.get("score")), entry.get("index")
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        return False
    if index is None:
        return entry.get("document") not in _NOTHING
    return isinstance(index, int) and not isinstance(index, bool) and 0 <= index < documents


def read_rerank(body: bytes, asked: PassthroughRequest) -> PassthroughAnswer | None:
    """Read a rerank answer in any vendor's form, and convert it to Jina's form with Cohere's `meta`."""
    whole = decode(body)
    if isinstance(whole, list):  # text-embeddings-inference
        whole = {"results": whole}
    if not isinstance(whole, dict):
        return None
    lists = [whole.get("results"), object_of(whole, "output").get("results"), whole.get("data")]
    found = next((one for one in lists if isinstance(one, list) and one), lists[0])
    if is_error_object(whole, isinstance(found, list)):
        return PassthroughAnswer(body, None, True)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        return None
    if (failed := _first_error(found, "relevance_score", "score")) is not None:
        return failed
    results: list[Json] = found
    if not all(_is_ranked(entry, asked.inputs) for entry in results) or (asked.inputs and not results):
        return None
    indices = [entry["index"] for entry in results if entry.get("index") is not None]
    if len(set(indices)) < len(indices):
        return None
    usage, meta = object_of(whole, "usage"), object_of(whole, "meta")
    billed = parse_usage(encode(usage)) or parse_usage(encode(object_of(meta, "tokens")))
    tokens = billed.input + billed.output if billed is not None else 0
    ranked = [{**entry, "relevance_score": entry.get("relevance_score", entry.get("score"))} for entry in results]
    ranked.sort(key=_score, reverse=True)
    for entry in ranked:
        entry.pop("score", None)
    canonical: Json = {**whole, "results": ranked}
    canonical.pop("output", None)
    if tokens and not usage:
        canonical["usage"] = {"total_tokens": tokens}
    if not meta:
        canonical["meta"] = {"billed_units": {"search_units": 1}}
    return PassthroughAnswer(encode(canonical), replace(billed, input=tokens, output=0) if billed and tokens else None)


def _score(entry: Json) -> float:
    found = entry.get("relevance_score")
    return float(found) if isinstance(found, (int, float)) else 0.0
