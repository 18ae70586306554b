"""The bodies of Gemini's countTokens. Pure.

A request counts `contents`, or a whole request in `generateContentRequest`, which then names the model once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode
from relay.protocols.fields import BadRequest, Fields, as_object, read_document
from relay.protocols.gemini.request import camel

_WHOLE: Final = "generateContentRequest"
_BARE: Final = frozenset(("contents", "systemInstruction", "tools", "generationConfig"))


def counted_request(body: bytes) -> bytes:
    """The request whose tokens are counted. Raises BadRequest."""
    _, fields, _ = read_document(body)
    name = next((name for name in fields if camel(name) == _WHOLE), None)
    if name is None:
        return body
    if len(fields) > 1:
        message = f"Send the request that is counted in “{name}” alone, or without it."
        raise BadRequest(message, next(key for key in fields if key != name))
    inner = {key: raw for key, raw in as_object(fields[name]).items() if key != "model"}
    return encode(inner)


def with_counted(body: bytes, change: Callable[[Fields], Fields]) -> bytes:
    """A body whose counted request has been changed; as it is where nothing is.

    A request that has more than contents then is counted as a whole one, which is where the API takes the rest.
    """
    _, whole, _ = read_document(body)
    name = next((name for name in whole if camel(name) == _WHOLE), None)
    given = as_object(whole[name]) if name is not None else whole
    fields = {key: raw for key, raw in given.items() if key != "model"}
    sent = change(fields)
    if sent is fields:
        return body
    if name is None and sent.keys() <= {"contents", *fields}:
        return encode(sent)
    return encode({name or _WHOLE: sent})


def bare_count_body(body: bytes) -> bytes:
    """The body for an upstream that counts these members only: Vertex AI's (google-genai 3.6, November 2026)."""
    found = decode_object(counted_request(body)) or {}
    return encode({name: value for name, value in found.items() if camel(name) in _BARE})


def upstream_count_body(body: bytes, model: str) -> bytes:
    """The body for an upstream that knows the model by this name."""
    found: Json = decode_object(body) or {}
    name = next((name for name in found if camel(name) == _WHOLE), None)
    inner = found.get(name) if name is not None else None
    if name is None or not isinstance(inner, dict):
        return encode({key: value for key, value in found.items() if key != "model"}) if "model" in found else body
    fields = as_object(msgspec.Raw(encode(inner)))
    fields["model"] = msgspec.Raw(encode(f"models/{model.removeprefix('models/')}"))
    return encode({**found, name: fields})
