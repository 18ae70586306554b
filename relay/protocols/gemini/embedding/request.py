"""Requests of embedContent and batchEmbedContents. Pure; for OpenAI's embeddings at upstreams of them see `upstream`.

Source: google-genai 3.6.1 (`models._EmbedContentParametersPrivate_to_mldev`), November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, encode, text_of
from relay.protocols.fields import BadRequest, read_document, unsupported
from relay.protocols.gemini.request import (
    InlineFile,
    camel,
    check_spelling,
    check_stored,
    content_of,
    member,
    object_in,
    objects_in,
)
from relay.protocols.prompts.content import TEXT, Content

_REQUESTS: Final = "requests"
_SIZE: Final = "outputDimensionality"
_CONFIG: Final = "embedContentConfig"  # Vertex AI has the options there
_KNOWN: Final = frozenset(("content", "model", "taskType", "title", _SIZE, _CONFIG, "autoTruncate"))
_MODEL: Final = "models/"
_OPTIONS: Final = frozenset(("taskType", "title", _SIZE, "autoTruncate"))


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """A parsed request: one text, or several."""

    size: int  # bytes of its body
    whole: Json  # decoded
    requests: list[Json]  # for each of which there is a vector
    batch: bool
    content: Content = TEXT

    @property
    def texts(self) -> list[str]:
        """The text of each request."""
        return ["\n".join(text for part in _parts(one) if (text := text_of(part, "text"))) for one in self.requests]

    @property
    def files(self) -> list[InlineFile]:
        """The data in them."""
        found = []
        for blob in (object_in(part, "inlineData") for one in self.requests for part in _parts(one)):
            if blob:
                kind = member(blob, "mimeType")
                size = len(text_of(blob, "data")) * 3 // 4
                found.append(InlineFile(size, kind if isinstance(kind, str) else ""))
        return found

    def copied(self) -> tuple[Json, list[Json]]:
        """Its body and its requests, to be changed: a single request is the body itself."""
        if self.batch:
            return self.whole, [dict(one) for one in self.requests]
        whole = dict(self.whole)
        return whole, [whole]

    def upstream_body(self, model: str, bare: bool = False) -> bytes:
        """The body for an upstream of this API that knows the model by this name: each request names it.

        `bare`: none does, and its options have an object of their own (Vertex AI).
        """
        if bare:
            found = [bare_request(one) for one in self.requests]
            return encode({**self.whole, _REQUESTS: found} if self.batch else found[0])
        name = _MODEL + model.removeprefix(_MODEL)
        if self.batch:
            return encode({**self.whole, _REQUESTS: [{**one, "model": name} for one in self.requests]})
        return encode({**self.whole, "model": name} if "model" in self.whole else self.whole)

    def openai_request(self, model: str) -> tuple[Json, list[str]]:
        """The request in OpenAI's form, and the members that are not carried. Raises BadRequest."""
        for number, one in enumerate(self.requests):
            for part in _parts(one):
                if any(value is not None and name != "text" for name, value in part.items()):
                    where = f"{self._place(number)}content.parts"
                    raise unsupported("The upstream of this model makes vectors of texts only.", where)
        sizes = {_option(one, _SIZE) for one in self.requests}
        if len(sizes) > 1:
            message = f"The upstream of this model makes vectors of one length: send the same “{_SIZE}” everywhere."
            raise unsupported(message, f"{_REQUESTS}[].{_SIZE}")
        body: Json = {"model": model, "input": self.texts, "encoding_format": "float"}
        if (size := sizes.pop()) is not None:
            body["dimensions"] = size
        lost = {name for one in self.requests for name in ("taskType", "title") if _option(one, name) is not None}
        return body, sorted(lost)

    def _place(self, number: int) -> str:
        return f"{_REQUESTS}[{number}]." if self.batch else ""


def bare_request(request: Json) -> Json:
    """A request as Vertex AI takes it: without its model, and with its options in an object of their own."""
    config = {**object_in(request, _CONFIG)}
    found: Json = {}
    for name, value in request.items():
        if camel(name) in _OPTIONS:
            config.setdefault(camel(name), value)
        elif camel(name) not in {"model", _CONFIG}:
            found[name] = value
    return {**found, _CONFIG: config} if config else found


def _option(request: Json, name: str) -> str | int | None:
    found = member(request, name)
    found = member(object_in(request, _CONFIG), name) if found is None else found
    return found if isinstance(found, (str, int)) else None


def _parts(request: Json) -> list[Json]:
    return objects_in(object_in(request, "content"), "parts")


def parse_embed_request(body: bytes, batch: bool) -> EmbedRequest:
    """Parse the body of a request. Raises BadRequest."""
    body, _, whole = read_document(body)
    listed = whole.get(_REQUESTS) if batch else [whole]
    if not isinstance(listed, list) or not listed:
        raise BadRequest(
            f"The field “{_REQUESTS}” is missing: send a list with at least one request.",
            _REQUESTS,
            "missing_required_parameter",
        )
    found = EmbedRequest(len(body), whole, [one for one in listed if isinstance(one, dict)], batch)
    if len(found.requests) < len(listed):
        raise BadRequest(f"The entries of “{_REQUESTS}” must be objects.", _REQUESTS)
    for number, one in enumerate(found.requests):
        place = found._place(number)
        check_spelling(one, _KNOWN, place)
        if not _parts(one):
            message = f"The field “{place}content” is missing: send a content with at least one part."
            raise BadRequest(message, f"{place}content", "missing_required_parameter")
        check_stored(one, place.rstrip("."))
    holders = [object_in(one, "content") for one in found.requests]
    return EmbedRequest(found.size, whole, found.requests, batch, content_of(holders))
