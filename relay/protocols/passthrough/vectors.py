"""The vectors of an embeddings answer: whether it has them, and their encoding; those of other APIs. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from typing import Final

import msgspec

from portal.lib.json import Json, decode, decode_object, encode, objects_of
from relay.protocols.vectors import Embedded

_NO_VECTORS: Final = (b"null", b'""', b"[]", b"{}", b"[null")
_BASE64: Final = re.compile(rb'"embedding"\s*:\s*"([^"]*)"')
_FLOAT: Final = 4  # bytes
_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})
_BESIDE: Final = frozenset(("index", "object", "id", "text", "usage"))  # members of an entry beside its vector
_SPACE: Final = b" \t\r\n"


def openai_answer(found: Embedded, model: str) -> Json:
    """Vectors in the form of OpenAI's embeddings, with what the upstream reports."""
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(found.vectors)]
    answer: Json = {"object": "list", "data": data, "model": model}
    if found.usage is not None:
        answer["usage"] = {"prompt_tokens": found.usage.input, "total_tokens": found.usage.input}
    return answer


def has_vectors(raw: msgspec.Raw, least: int) -> bool:
    """Whether an embeddings answer has enough entries, and none with null or nothing as its vector.

    Vectors are not parsed.
    """
    data, name, count = bytes(raw), b'"embedding"', 0
    if not data.lstrip().startswith(b"[") or data[:64].translate(None, _SPACE).startswith((b"[null", b"[{}")):
        return False
    at = data.find(name)
    while at >= 0:
        head = data[at + len(name) : at + len(name) + 32].translate(None, _SPACE)
        if head.startswith(b":") and head[1:].startswith(_NO_VECTORS):
            return False
        count += head.startswith(b":")
        at = data.find(name, at + len(name))
    if count:
        return count >= least
    found = _listed(data)
    return len(found) >= least and all(map(_is_vector, found))


def _listed(data: bytes) -> list[object]:
    found = decode(data)
    return found if isinstance(found, list) else [None]


def _is_vector(entry: object) -> bool:
    """Whether an entry has a vector under another name than OpenAI's, or is one."""
    values = [entry]
    if isinstance(entry, dict):
        values = [value for name, value in entry.items() if name not in _BESIDE]
    return any(isinstance(value, (list, str, dict)) and value not in _NOTHING for value in values)


def in_encoding(body: bytes, data: msgspec.Raw, wanted: str) -> bytes:
    """Convert the vectors of an embeddings answer to the encoding the client wants.

    Upstreams that do not support base64 send numbers regardless. Raises ValueError when a vector is none, also of one
    in Base64 that is passed on.
    """
    head = bytes(memoryview(data)[:4096])
    at = (
        head.find(b'"embedding"', head.find(b'"embedding"') + 1)
        if b'"object"' in head[:40]
        else head.find(b'"embedding":')
    )
    at = head.find(b'"embedding":') if at < 0 else at
    value = head[at + 12 :].lstrip(b" :")[:1] if at >= 0 else b""
    if value == b'"' and wanted == "base64":
        for text in _BASE64.findall(data):
            _check(text)
    if (value == b"[") == (wanted == "float") or value not in (b"[", b'"'):
        return body
    answer = decode_object(body) or {}
    for entry in objects_of(answer, "data"):
        vector = entry.get("embedding")
        if isinstance(vector, list) and wanted == "base64":
            entry["embedding"] = pack(vector)
        elif isinstance(vector, str) and wanted == "float":
            entry["embedding"] = unpack(vector)
    return encode(answer)


def pack(vector: list[object]) -> str | list[object]:
    """Encode numbers as Base64 of little-endian 32-bit floats. Several vectors for one text stay as they are.

    Raises ValueError for what is no number, or none of 32 bits.
    """
    if vector and all(isinstance(value, list) for value in vector):
        return vector
    numbers = [float(value) for value in vector if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(vector):
        raise ValueError("a vector has something that is no number")
    try:
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except OverflowError:
        raise ValueError("a vector has a number that is too large") from None


def unpack(text: str) -> list[float]:
    """Decode Base64 of little-endian 32-bit floats. Raises ValueError when it is none, or one is no number."""
    raw = _check(text.encode())
    numbers = list(struct.unpack(f"<{len(raw) // _FLOAT}f", raw))
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a vector has something that is no number")
    return numbers


def _check(text: bytes) -> bytes:
    """The bytes of a vector in Base64. Raises ValueError when it is none."""
    text = text.replace(b"\\/", b"/")
    raw = binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    if not raw or len(raw) % _FLOAT:
        raise ValueError("a vector is no list of floats")
    return raw
