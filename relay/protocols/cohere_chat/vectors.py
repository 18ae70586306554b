"""OpenAI's embeddings at upstreams of Cohere's own /v2/embed. Pure.

It wants to know what the vectors are for: `input_type`, which clients may send; documents are found by others, so that
this stands where they do not. What is charged are the billed units.

Source: Cohere's API reference and its SDK 7.3, November 2026.
"""

from __future__ import annotations

from typing import Final

import msgspec

from portal.lib.json import Json, encode
from relay.protocols.error_objects import Envelope
from relay.protocols.prompts.texts import lost_of, texts_of
from relay.protocols.usage import Counts, Usage, count
from relay.protocols.vectors import Embedded, VectorRequest

_KNOWN: Final = frozenset(("model", "input", "dimensions", "encoding_format", "input_type", "truncate", "max_tokens"))
_DOCUMENTS: Final = "search_document"


class _Vectors(msgspec.Struct):
    float_: list[list[float]] | None = msgspec.field(default=None, name="float")


class _Billed(msgspec.Struct):
    input_tokens: object = None
    image_tokens: object = None


class _Meta(msgspec.Struct):
    billed_units: _Billed | None = None


class _Answer(Envelope):
    embeddings: _Vectors | None = None
    meta: _Meta | None = None


_answer: Final = msgspec.json.Decoder(_Answer)
_envelope: Final = msgspec.json.Decoder(Envelope)


class CohereVectors:
    """Cohere's /v2/embed."""

    api = "cohere.embed"

    def request(self, fields: Json, model: str) -> VectorRequest:
        body: Json = {
            "model": model,
            "texts": texts_of(fields),
            "input_type": fields.get("input_type") or _DOCUMENTS,
            "embedding_types": ["float"],
        }
        for name, told in (("dimensions", "output_dimension"), ("truncate", "truncate"), ("max_tokens", "max_tokens")):
            if fields.get(name) is not None:
                body[told] = fields[name]
        return VectorRequest(self.api, body, lost_of(fields, _KNOWN))

    def read(self, body: bytes, wanted: int) -> Embedded | None:
        try:
            if _envelope.decode(body).is_error(b'"embeddings"' in body) or _says(body):
                return Embedded(error=body)
            found = _answer.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        vectors = (found.embeddings.float_ if found.embeddings is not None else None) or []
        if len(vectors) != wanted or not all(vectors):
            return None
        return Embedded(vectors, _usage(found.meta.billed_units if found.meta is not None else None))


def _says(body: bytes) -> bool:
    """Whether a body is what its errors are: `{"id", "message": "…"}`."""
    return isinstance(msgspec.json.decode(body, type=dict[str, object]).get("message"), str)


def _usage(billed: _Billed | None) -> Usage | None:
    if billed is None or billed.input_tokens is None:
        return None
    tokens = count(billed.input_tokens) + count(billed.image_tokens)
    counts = Counts(input=tokens, output=0, total=0, cached=0, written=0, reasoning=0)
    return counts.usage(encode({"billed_units": {"input_tokens": tokens}}))
