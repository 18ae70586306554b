"""Builds the OpenAPI document of /v1 from the routers and `relay.api.reference.schemas`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from ninja import NinjaAPI

from relay.api.reference.json_schema import Schema
from relay.api.reference.objects import GEMINI_ERROR, INTERACTIONS_ERROR
from relay.api.reference.schemas import SHAPES, Shape

_TAGS: Final = {
    "models": "Models",
    "chat": "Text",
    "completions": "Text",
    "responses": "Text",
    "messages": "Text",
    "interactions": "Text",
    "conversations": "Conversations",
    "embeddings": "Embeddings, moderation, rerank",
    "moderations": "Embeddings, moderation, rerank",
    "rerank": "Embeddings, moderation, rerank",
    "images": "Images",
    "audio": "Audio",
    "files": "Files",
    "uploads": "Files",
    "batches": "Batches",
    "realtime": "Realtime",
    "usage": "Usage",
    "dashboard": "Usage",
    "openapi.json": "This document",
}
_ERRORS: Final = {
    "400": "The request is wrong; `param` names the field.",
    "401": "The token is missing or not valid.",
    "403": "The token may not do this, or not from this address.",
    "404": "There is no such thing, or it is somebody else's.",
    "405": "The method does not exist here.",
    "413": "The body, or the file, is too large.",
    "429": "A limit is reached, or nothing is left to pay with.",
    "503": "The portal cannot do it now.",
}
_UPSTREAM_ERRORS: Final = {
    "422": "The upstream cannot honour a parameter; `param` names it.",
    "502": "The upstream failed.",
    "504": "The upstream was too slow.",
    "4XX": "The upstream's own refusal of the request, passed on.",
}
_ERROR: Final[Schema] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
# Of Anthropic's API, by the beginning of the paths.
_MESSAGES: Final = "/v1/messages"
_INTERACTIONS: Final = "/v1/interactions"
_MESSAGES_ERROR: Final[Schema] = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"type": "string", "enum": ["error"]},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "details": {
                    "type": "object",
                    "properties": {"error_code": {"type": "string"}, "param": {"type": "string"}},
                },
            },
        },
        "request_id": {"type": "string"},
    },
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint as its router declares it."""

    method: str
    path: str
    name: str  # of its function
    about: str  # its function's docstring

    @property
    def tag(self) -> str:
        return "Text" if self.is_gemini else _TAGS.get(self.path.split("/")[2], "Other")

    @property
    def is_gemini(self) -> bool:
        """Whether it is of Gemini's API, whose paths end in a method."""
        return ":" in self.path


def operations(api: NinjaAPI) -> Iterator[Operation]:
    """All operations, in the order of the routers."""
    for prefix, router in api._routers:
        for path, view in router.path_operations.items():
            for operation in view.operations:
                shown = "/v1" + prefix + re.sub(r"\{path:(\w+)\}", r"{\1}", path)
                about = " ".join((operation.view_func.__doc__ or "").split())
                for method in operation.methods:
                    yield Operation(method, shown, operation.view_func.__name__, about)


@lru_cache(maxsize=1)
def build_document(api: NinjaAPI, version: str) -> Schema:
    """The OpenAPI 3.1 document of an API."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations(api):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, SHAPES[operation.name])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AIRelays Portal",
            "version": version,
            "description": (
                "OpenAI's API, served by whatever channels this portal has. Members that are not listed pass to the "
                "upstream unchanged."
            ),
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_TAGS.values())],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": _ERROR,
                "MessagesError": _MESSAGES_ERROR,
                "GeminiError": GEMINI_ERROR,
                "InteractionsError": INTERACTIONS_ERROR,
            },
        },
    }


def _describe(operation: Operation, shape: Shape) -> Schema:
    found: Schema = {
        "operationId": operation.name,
        "summary": operation.about.partition(". ")[0].rstrip("."),
        "description": operation.about,
        "tags": [operation.tag],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    if parameters or shape.parameters:
        found["parameters"] = [*parameters, *shape.parameters]
    if shape.body is not None:
        kind = "multipart/form-data" if shape.form else "application/json"
        found["requestBody"] = {"required": not shape.optional_body, "content": {kind: {"schema": shape.body}}}
    content: Schema = {"application/json": {"schema": shape.answer}} if shape.answer else {}
    if shape.streams:
        content["text/event-stream"] = {
            "schema": {"description": "Server-sent events, each with a JSON object as its data."}
        }
    if shape.binary:
        content[shape.binary] = {
            "schema": {"type": "string"} if shape.binary.startswith("text/") else {"type": "string", "format": "binary"}
        }
    errors = {**_ERRORS, **(_UPSTREAM_ERRORS if shape.upstream else {})}
    if operation.name == "create_response":
        errors["422"] = _UPSTREAM_ERRORS["422"]
    name = "MessagesError" if operation.path.startswith(_MESSAGES) else "Error"
    if operation.is_gemini:
        name = "GeminiError"
    if operation.path.startswith(_INTERACTIONS):
        name = "InteractionsError"
    error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    found["responses"] = {
        shape.status: {"description": "It worked.", "content": content},
        **{status: {"description": about, "content": error} for status, about in sorted(errors.items())},
    }
    return found
