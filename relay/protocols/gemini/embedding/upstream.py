"""OpenAI's embeddings at upstreams of Google: batchEmbedContents, and Vertex AI's `:predict` of earlier models. Pure.

Source: google-genai 3.6.1 (`models.embed_content`) and Vertex AI's reference of text embeddings, November 2026.
"""

from __future__ import annotations

from typing import Final

import msgspec

from portal.lib.json import Json, encode
from relay.protocols.error_objects import Envelope
from relay.protocols.gemini.embedding.answer import read_embedded
from relay.protocols.gemini.embedding.request import bare_request
from relay.protocols.prompts.texts import lost_of, texts_of
from relay.protocols.usage import Counts, count
from relay.protocols.vectors import Embedded, VectorRequest

_BATCH: Final = "generate_content.embed_batch"
_ONE: Final = "generate_content.embed"
_MODEL: Final = "models/"
_SIZE: Final = "outputDimensionality"
_MULTIMODAL: Final = "multimodalembedding"
_KNOWN: Final = frozenset(("model", "input", "dimensions", "encoding_format"))


class GeminiVectors:
    """batchEmbedContents. `bare`: as Vertex AI has it, which takes a single text at `:embedContent` only."""

    api = _BATCH

    def __init__(self, bare: bool = False) -> None:
        self._bare = bare

    def request(self, fields: Json, model: str) -> VectorRequest:
        size = fields.get("dimensions")
        more: Json = {_SIZE: size} if size is not None else {}
        named = {"model": _MODEL + model.removeprefix(_MODEL)}
        requests: list[Json] = [{**named, "content": {"parts": [{"text": text}]}, **more} for text in texts_of(fields)]
        lost = lost_of(fields, _KNOWN)
        if not self._bare:
            return VectorRequest(_BATCH, {"requests": requests}, lost)
        bare = [bare_request(one) for one in requests]
        if len(bare) == 1:
            return VectorRequest(_ONE, bare[0], lost)
        return VectorRequest(_BATCH, {"requests": bare}, lost)

    def read(self, body: bytes, wanted: int) -> Embedded | None:
        return read_embedded(body, wanted)


class _Statistics(msgspec.Struct):
    token_count: object = None


class _Values(msgspec.Struct):
    values: list[float] = msgspec.field(default_factory=list)
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Values | None = None
    textEmbedding: list[float] = msgspec.field(default_factory=list)  # of the model of texts, images and films


class _Answer(Envelope):
    predictions: list[_Prediction] | None = None


_answer: Final = msgspec.json.Decoder(_Answer)
_envelope: Final = msgspec.json.Decoder(Envelope)


class PredictVectors:
    """Vertex AI's `:predict`, of its models that are no Gemini: of texts alone, also where they know pictures."""

    api = "predict"

    def request(self, fields: Json, model: str) -> VectorRequest:
        told, size = ("text", "dimension") if model.startswith(_MULTIMODAL) else ("content", _SIZE)
        body: Json = {"instances": [{told: text} for text in texts_of(fields)]}
        if fields.get("dimensions") is not None:
            body["parameters"] = {size: fields["dimensions"]}
        return VectorRequest(self.api, body, lost_of(fields, _KNOWN))

    def read(self, body: bytes, wanted: int) -> Embedded | None:
        try:
            if _envelope.decode(body).is_error(b'"predictions"' in body):
                return Embedded(error=body)
            found = _answer.decode(body).predictions or []
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        vectors = [one.embeddings.values if one.embeddings is not None else one.textEmbedding for one in found]
        if len(vectors) != wanted or not all(vectors):
            return None
        counts = [one.embeddings.statistics if one.embeddings is not None else None for one in found]
        tokens = [count(one.token_count) if one is not None else 0 for one in counts]
        if not all(tokens):  # a text without a count would cost nothing
            return Embedded(vectors)
        usage = Counts(input=sum(tokens), output=0, total=0, cached=0, written=0, reasoning=0)
        return Embedded(vectors, usage.usage(encode({"token_count": sum(tokens)})))
