"""Answers of embedContent and batchEmbedContents, and those of OpenAI's embeddings for clients of them. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from portal.lib.json import Json, encode, int_of, object_of, objects_of
from relay.protocols.error_objects import Envelope
from relay.protocols.gemini.usage import parse_gemini_usage
from relay.protocols.usage import present
from relay.protocols.vectors import Embedded


class _Vector(msgspec.Struct):
    values: list[float] = msgspec.field(default_factory=list)


class _Answer(Envelope):
    embedding: _Vector | None = None
    embeddings: list[_Vector] | None = None
    usageMetadata: msgspec.Raw = msgspec.Raw()


_answer: Final = msgspec.json.Decoder(_Answer)
_envelope: Final = msgspec.json.Decoder(Envelope)


def read_embedded(body: bytes, wanted: int) -> Embedded | None:
    """Parse an answer; None when it is none, or has not just the `wanted` vectors."""
    try:
        if _envelope.decode(body).is_error(b'"values"' in body):
            return Embedded(error=body)
        found = _answer.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    vectors = [one.values for one in (found.embeddings or ([found.embedding] if found.embedding is not None else []))]
    if len(vectors) != wanted or not all(vectors):
        return None
    return Embedded(vectors, parse_gemini_usage(found.usageMetadata) if present(found.usageMetadata) else None)


def gemini_answer(answer: Json, batch: bool) -> bytes:
    """An answer of OpenAI's embeddings, whose vectors are numbers, in the form of this API."""
    entries = objects_of(answer, "data")
    if all("index" in entry for entry in entries):
        entries = sorted(entries, key=lambda entry: int_of(entry, "index"))
    vectors = [{"values": entry.get("embedding")} for entry in entries]
    found: Json = {"embeddings": vectors} if batch else {"embedding": vectors[0]}
    if tokens := int_of(object_of(answer, "usage"), "prompt_tokens"):
        found["usageMetadata"] = {"promptTokenCount": tokens, "totalTokenCount": tokens}
    return encode(found)
