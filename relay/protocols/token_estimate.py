"""Estimates the tokens of an answer from its bytes: for the meter, and where no credible usage is reported. Pure.

One expression finds all texts in one pass; the rare cases in which that would count a text twice are told apart first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode

# Members with text that the model wrote: also arguments and input of tools, reasoning, and what an audio answer says.
_PLAIN: Final = rb"content|text|refusal|arguments|input|transcript|partial_json"
_REASONING: Final = (b"reasoning_content", b"reasoning", b"thinking")


def _members(names: bytes) -> re.Pattern[bytes]:
    """Finds the strings that are values of these members, up to where they break off."""
    return re.compile(rb'"(?:' + names + rb')"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.S)


# The same as all of these names, with their common beginnings written once: a quarter faster.
_TEXT: Final = _members(
    rb"content|re(?:asoning(?:_content)?|fusal)|t(?:ext|hinking|ranscript)|arguments|input|partial_json"
)
_TEXT_ALONE: Final = _members(_PLAIN)
_TEXT_BUT_PARTS: Final = _members(_PLAIN.replace(b"|text", b""))
_DETAILS: Final = _members(b"text|summary")  # of the parts of reasoning_details
_BY_NAME: Final = tuple(map(_members, _REASONING))
_AUDIO: Final = _members(b"data")
_GEMINI_CALL: Final = re.compile(rb'"functionCall"\s*:\s*(?=\{)')
_raw: Final = json.JSONDecoder(strict=False)
_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.S)
_NOT_ASCII: Final = bytes(range(128, 256))

# What shows that a model did more than its text tells: images and other media, reasoning that is encrypted or left out,
# audio, calls of hosted tools, and what these have found. Searched for by the shorter marks first, which is faster.
_OPAQUE_MARKS: Final = (
    b'"image',
    b'"video',
    b'"audio"',
    b"encrypted",
    b"redacted",
    b"server_tool",
    b"b64",
    b"_call",
    b"search",
    b"cita",
    b"executed",
    b'"inline',
)
_OPAQUE: Final = re.compile(
    rb'"(?:images|videos)"\s*:\s*\[\s*[{"]|"(?:image_url|video_url|b64_json|partial_image_b64)"\s*:\s*[{"]'
    rb'|"type"\s*:\s*"(?:reasoning\.encrypted|redacted_thinking|server_tool_use|url_citation'
    rb'|(?!function_|tool_|custom_tool_)[a-z_]+_call|image|audio|video)"'
    rb'|"audio"\s*:\s*\{|"encrypted_content"\s*:\s*"[^"]|"(?:citations|search_results|web_search)"\s*:\s*\[\s*[{"]'
    rb'|"executed_tools"\s*:\s*\[\s*\{|"inlineData"\s*:\s*\{'
)
# Items of responses whose texts all have the names above. Of others, whatever a model says is counted.
_TEXT_ITEMS: Final = frozenset(("message", "reasoning", "function_call", "custom_tool_call"))
# Members of items that a model did not write: names, states, and what its tools returned.
_NOT_SAID: Final = frozenset(
    (
        "id",
        "type",
        "status",
        "call_id",
        "item_id",
        "role",
        "output",
        "outputs",
        "result",
        "results",
        "sources",
        "tools",
        "error",
        "server_label",
        "container_id",
        "created_by",
        "encrypted_content",
        "pending_safety_checks",
        "annotations",
        "logprobs",
        "execution",
        "name",
        "namespace",
        "approval_request_id",
        "signature",
    )
)

AUDIO_TOKENS_PER_SECOND: Final = 20  # one for 50 ms of speech, as OpenAI counts audio that its models make
# Bytes per second of audio, by how its Base64 begins. Streams are 16-bit samples at 24 kHz without a header.
_AUDIO_RATES: Final = ((b"T2dn", 4_000), (b"SUQz", 16_000), (b"//", 16_000), (b"ZkxhQ", 24_000))
_SAMPLES_RATE: Final = 48_000


def text_units(answer: bytes) -> float:
    """The estimated tokens of the text members of chunks or answers; an unfinished text counts as far as it goes."""
    if b'"functionCall"' in answer:
        return _with_objects(answer)
    if b'"reasoning' in answer and (
        b'"reasoning_details"' in answer or (b'"reasoning"' in answer and b'"reasoning_content"' in answer)
    ):
        return _told_apart(answer)
    return sum(map(token_units, _TEXT.findall(answer)))


def _with_objects(answer: bytes) -> float:
    """The same where the arguments of calls are objects (Gemini)."""
    units, position, rest = 0.0, 0, []
    for match in _GEMINI_CALL.finditer(answer):
        if match.start() < position:
            continue
        text = answer[match.end() :].decode("latin-1")
        try:
            found, end = _raw.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        rest.append(answer[position : match.start()])
        position = match.end() + end
        arguments = found.get("args") if isinstance(found, dict) else None
        units += token_units(text[:end].encode("latin-1")) if arguments else 0.0
    return units + sum(map(token_units, _TEXT.findall(b" ".join((*rest, answer[position:])))))


def _told_apart(answer: bytes) -> float:
    """The same where reasoning is there under several names: OpenRouter and vLLM repeat one text, it counts once."""
    thoughts = max(sum(map(token_units, member.findall(answer))) for member in _BY_NAME)
    if b'"reasoning_details"' not in answer:
        return thoughts + sum(map(token_units, _TEXT_ALONE.findall(answer)))
    details = sum(map(token_units, _DETAILS.findall(answer)))
    return max(thoughts, details) + sum(map(token_units, _TEXT_BUT_PARTS.findall(answer)))


class _Answer(msgspec.Struct):
    output: list[msgspec.Raw] | None = None
    content: msgspec.Raw = msgspec.Raw()  # the blocks of a message of Anthropic's


_answer: Final = msgspec.json.Decoder(_Answer)
_blocks: Final = msgspec.json.Decoder(list[msgspec.Raw])


def answer_units(answer: bytes) -> float:
    """The estimated tokens of the text in a complete answer of any API."""
    items = _items(answer)
    return text_units(answer) if items is None else sum(map(item_units, items))


def is_opaque_answer(answer: bytes) -> bool:
    """Whether a complete answer of any API has content whose tokens its text does not tell."""
    items = _items(answer)
    return is_opaque(answer) if items is None else any(map(is_opaque_item, items))


def _items(answer: bytes) -> list[bytes] | None:
    """The items of a response, or the blocks of a message with calls; None where an answer has none to read."""
    if b'"output"' not in answer and b'"tool_use"' not in answer:
        return None
    try:
        whole = _answer.decode(answer)
        found = whole.output
        if found is None and bytes(whole.content).startswith(b"["):
            found = _blocks.decode(whole.content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return None if found is None else list(map(bytes, found))


def item_units(item: bytes) -> float:
    """The estimated tokens of what a model wrote in an item of a response, such as the command for a shell."""
    found = decode_object(item)
    kind = found.get("type", "message") if found is not None else ""
    if found is None or not isinstance(kind, str) or (kind in _TEXT_ITEMS and not _has_object(found)):
        return text_units(item)
    if kind.endswith("_output"):
        return 0.0
    try:
        return _said(found)
    except RecursionError:
        return token_units(item)


def _has_object(item: Json) -> bool:
    """Whether the arguments of a call are an object in place of its text."""
    return isinstance(item.get("arguments"), (dict, list)) or isinstance(item.get("input"), (dict, list))


def _said(value: object) -> float:
    if isinstance(value, dict):
        return sum(_said(member) for name, member in value.items() if name not in _NOT_SAID)
    if isinstance(value, list):
        return sum(map(_said, value))
    return token_units(encode(value).strip(b'"')) if value is not None else 0.0


def is_opaque_item(item: bytes) -> bool:
    """Whether an item of a response stands for more tokens than its text tells."""
    if is_opaque(item):
        return True
    found = decode_object(item)
    return found is not None and found.get("type") == "reasoning" and not found.get("content")


def are_opaque(chunks: bytes) -> bool:
    """The same of many chunks of a chat completion. Most have no list but their choices, which is quickly seen."""
    if chunks.count(b'":[') == chunks.count(b'"choices":[') and chunks.count(b'": [') == chunks.count(b'"choices": ['):
        return False
    return is_opaque(chunks)


def is_opaque(answer: bytes) -> bool:
    """Whether chunks or answers have content whose tokens their text does not tell."""
    return any(mark in answer for mark in _OPAQUE_MARKS) and _OPAQUE.search(answer) is not None


def audio_units(answer: bytes) -> float:
    """The estimated tokens of the audio in chunks or answers, by its length."""
    if b'"audio"' not in answer:
        return 0.0
    units = 0.0
    for text in _AUDIO.findall(answer):
        rate = next((rate for head, rate in _AUDIO_RATES if text.startswith(head)), _SAMPLES_RATE)
        units += len(text) * 3 / 4 / rate * AUDIO_TOKENS_PER_SECOND
    return units


def sample_units(text: bytes) -> float:
    """The estimated tokens of the Base64 of audio samples."""
    return len(text) * 3 / 4 / _SAMPLES_RATE * AUDIO_TOKENS_PER_SECOND


# What tokenizers have tokens of any length for: blanks, and one character again and again.
_RUNS: Final = re.compile(r"\s{4,}|(.)\1{3,}", re.S)
_PIECE: Final = 65_536  # characters that are counted at once


def least_units(texts: Iterable[object], enough: float) -> float:
    """The estimated tokens of texts without their runs of one character, counted until there are `enough`.

    Entries that are no texts are left out. 64 KiB cost 5 ms at most.
    """
    units = 0.0
    for text in texts:
        for start in range(0, len(text) if isinstance(text, str) else 0, _PIECE):
            piece = str(text)[start : start + _PIECE]
            units += token_units(_RUNS.sub(" ", piece).encode("utf-8", "replace"))
            if units >= enough:
                return units
    return units


def texts_in(content: object) -> list[object]:
    """The texts of the `content` of a message: itself, or that of its parts."""
    return [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else [content]


def open_member(answer: bytes) -> str:
    """Whether a piece of an event breaks off inside a “text” or inside “audio”; empty: in neither."""
    for name, pattern in (("text", _TEXT), ("audio", _AUDIO)):
        end = 0
        for match in pattern.finditer(answer):
            end = match.end()
        if end and answer[end : end + 1] != b'"':
            return name if name == "text" or b'"audio"' in answer else ""
    return ""


def rest_units(member: str, data: bytes) -> tuple[float, float, int]:
    """The estimated tokens of text and of audio at the beginning of a piece that continues a string, and its length.

    `member`: what `open_member` found.
    """
    match = _STRING.match(data)
    end = match.end() if match is not None else len(data)
    if member == "audio":
        return 0.0, sample_units(data[:end]), end
    return (token_units(data[:end]) if member == "text" else 0.0), 0.0, end


def token_units(text: bytes) -> float:
    """The estimated tokens of JSON-escaped text: one for four ASCII characters or for one of another script.

    Never more than one for three bytes.
    """
    if text.isascii():
        escapes = text.count(b"\\u")
        return (len(text) - 6 * escapes) / 4 + escapes if escapes else len(text) / 4
    wide = len(text) - len(text.translate(None, _NOT_ASCII))
    return (len(text) - wide) / 4 + wide / 3
