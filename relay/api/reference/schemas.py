"""What the endpoints take and give, as JSON Schema. `relay.api.reference.openapi` puts it together with the routers; a test holds them against each other.

Requests are described as far as the portal itself looks at them. Other members are allowed: they pass to the upstream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

Schema = dict[str, Any]


def obj(required: str = "", /, **properties: Schema) -> Schema:
    """An object; `required`: names with spaces between."""
    found: Schema = {"type": "object", "properties": properties}
    if required:
        found["required"] = required.split()
    return found


def text(about: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": about} if about else {}), **more}


def whole(about: str = "", **more: Any) -> Schema:
    return {"type": "integer", **({"description": about} if about else {}), **more}


def flag(about: str = "") -> Schema:
    return {"type": "boolean", **({"description": about} if about else {})}


def many(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def either(*options: Schema) -> Schema:
    return {"anyOf": list(options)}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


ANY: Final[Schema] = {"type": "object"}
FILE: Final[Schema] = {"type": "string", "format": "binary"}
MODEL: Final = text("A model of GET /v1/models.", minLength=1)
METADATA: Final[Schema] = maybe({"type": "object", "additionalProperties": {"type": "string", "maxLength": 512}, "maxProperties": 16})
COUNT: Final[Schema] = whole(minimum=0)
MOMENT: Final[Schema] = whole("Seconds since 1970.")
IDS: Final = {"first_id": maybe({"type": "string"}), "last_id": maybe({"type": "string"}), "has_more": flag()}
INPUT_TEXTS: Final = either(text(minLength=1), many(text(minLength=1), minItems=1), many(COUNT, minItems=1), many(many(COUNT, minItems=1), minItems=1))

CHAT: Final = obj(
    "model messages", model=MODEL,
    messages=many(obj("role", role=text(enum=["system", "developer", "user", "assistant", "tool"]), content=maybe(either(text(), many(ANY)))), minItems=1),
    stream=maybe(flag("Answer as server-sent events.")), stream_options=maybe(obj(include_usage=flag())), n=maybe(whole(minimum=1, maximum=128)),
    max_completion_tokens=maybe(whole()), max_tokens=maybe(whole()), tools=maybe(many(ANY)),
)  # fmt: skip
COMPLETION: Final = obj("model prompt", model=MODEL, prompt=INPUT_TEXTS, stream=maybe(flag()), max_tokens=maybe(whole(minimum=0)), n=maybe(whole(minimum=1, maximum=128)))
EMBEDDING: Final = obj("model input", model=MODEL, input=INPUT_TEXTS, encoding_format=text(enum=["float", "base64"]), dimensions=maybe(whole(minimum=1)))
MODERATION: Final = obj("input", model=text("Without it: omni-moderation-latest."), input=either(text(minLength=1), many(text(minLength=1), minItems=1), many(ANY, minItems=1)))
IMAGE: Final = obj(
    "prompt", model=text("Without it: gpt-image-1."), prompt=text(minLength=1), n=maybe(whole(minimum=1, maximum=10)), size=maybe(text()), quality=maybe(text()),
    stream=maybe(flag("Answer with partial images as server-sent events.")), partial_images=maybe(whole(minimum=0, maximum=3)),
)  # fmt: skip
IMAGE_FORM: Final = obj("image prompt", image=FILE, prompt=text(minLength=1), model=text(), n=text(pattern="^([1-9]|10)$"), stream=text(enum=["true", "false"]))
VARIATION_FORM: Final = obj("image", image=FILE, model=text(), n=text(pattern="^([1-9]|10)$"))
SPEECH: Final = obj(
    "model input", model=MODEL, input=text("The text to be spoken.", minLength=1), voice=ANY | {"type": ["string", "object"]}, stream_format=text(enum=["audio", "sse"])
)
HEARING_FORM: Final = obj("model file", model=MODEL, file=FILE, response_format=text(enum=["json", "text", "srt", "vtt", "verbose_json"]), stream=text(enum=["true", "false"]))
RERANK: Final = obj(
    "model query documents", model=MODEL, query=text(minLength=1), documents=many(either(text(), obj("text", text=text())), minItems=1), top_n=maybe(whole(minimum=1))
)
ITEMS: Final = many(obj("role content", role=text(enum=["user", "assistant", "system", "developer"]), content=either(text(), many(ANY))))
RESPONSE: Final = obj(
    "model input", model=MODEL, input=either(text(), ITEMS), instructions=maybe(text()), previous_response_id=maybe(text()),
    conversation=maybe(either(text(), obj("id", id=text()))),
    store=maybe(flag("Keep it, so that it can be fetched and gone on from. Default: true.")), background=maybe(flag("Make it later; fetch it with GET.")),
    stream=maybe(flag("Answer as server-sent events.")), max_output_tokens=maybe(whole()), tools=maybe(many(ANY)), metadata=METADATA,
)  # fmt: skip
UPLOAD: Final = obj("filename purpose bytes mime_type", filename=text(minLength=1), purpose=text(), bytes=whole(minimum=0), mime_type=text())
BATCH: Final = obj(
    "input_file_id endpoint completion_window", input_file_id=text(minLength=1), endpoint=text(), completion_window=text(enum=["24h"]), metadata=METADATA,
    output_expires_after=obj("anchor seconds", anchor=text(enum=["created_at"]), seconds=whole(minimum=3600, maximum=2_592_000)),
)  # fmt: skip

MODEL_OBJECT: Final = obj(
    "id object created owned_by", id=text(), object=text(enum=["model"]), created=MOMENT, owned_by=text(), context_window=COUNT, max_output_tokens=COUNT, abilities=many(text()),
    pricing=ANY | {"description": "USD: per 1M tokens (input, output …), per call, image, second or character."},
)  # fmt: skip
FILE_OBJECT: Final = obj(
    "id object bytes created_at filename purpose status", id=text(), object=text(enum=["file"]), bytes=COUNT, created_at=MOMENT, expires_at=MOMENT, filename=text(), purpose=text(),
    status=text(),
)  # fmt: skip
UPLOAD_OBJECT: Final = obj(
    "id object bytes created_at filename purpose status expires_at", id=text(), object=text(enum=["upload"]), bytes=COUNT, created_at=MOMENT, filename=text(), purpose=text(),
    status=text(enum=["pending", "completed", "cancelled", "expired"]), expires_at=MOMENT, file=FILE_OBJECT,
)  # fmt: skip
BATCH_OBJECT: Final = obj(
    "id object endpoint input_file_id completion_window status created_at", id=text(), object=text(enum=["batch"]), endpoint=text(), input_file_id=text(), completion_window=text(),
    status=text(), created_at=MOMENT, errors=maybe(ANY), output_file_id=maybe(text()), error_file_id=maybe(text()),
    request_counts=obj("total completed failed", total=COUNT, completed=COUNT, failed=COUNT),
)  # fmt: skip
CONVERSATION_OBJECT: Final = obj("id object created_at metadata", id=text(), object=text(enum=["conversation"]), created_at=MOMENT, metadata=ANY)
RESPONSE_OBJECT: Final = obj("id object created_at status output", id=text(), object=text(enum=["response"]), created_at={"type": "number"}, status=text(), output=many(ANY))
DELETED: Final = obj("id object deleted", id=text(), object=text(), deleted=flag())


def listed(items: Schema, ids: bool = True) -> Schema:
    return obj("object data", object=text(enum=["list"]), data=many(items), **(IDS if ids else {}))


def query(name: str, schema: Schema, about: str = "") -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, **({"description": about} if about else {})}


ORDER: Final = query("order", text(enum=["asc", "desc"]), "Newest first unless told otherwise.")
AFTER: Final = query("after", text(), "The last id of the page before.")
PAGE: Final = (query("limit", whole(minimum=1, maximum=100)), ORDER, AFTER)


@dataclass(frozen=True, slots=True)
class Shape:
    """One operation. `form`: the body is a form. `streams`: it can answer with events. `binary`: its answer is no JSON. `upstream`: it asks one, whose errors it may pass on."""

    answer: Schema = field(default_factory=dict)
    body: Schema | None = None
    form: bool = False
    streams: bool = False
    binary: str = ""
    upstream: bool = False
    parameters: tuple[Schema, ...] = ()
    optional_body: bool = False


SHAPES: Final[dict[str, Shape]] = {
    "list_models": Shape(listed(MODEL_OBJECT)),
    "retrieve_model": Shape(MODEL_OBJECT),
    "create_chat_completion": Shape(
        obj("id object created model choices", id=text(), object=text(), created=whole(), model=text(), choices=many(ANY)), CHAT, streams=True, upstream=True
    ),
    "create_completion": Shape(obj("choices", choices=many(ANY)), COMPLETION, streams=True, upstream=True),
    "create_embedding": Shape(obj("object data", object=text(), data=many(ANY)), EMBEDDING, upstream=True),
    "create_moderation": Shape(obj("results", results=many(ANY)), MODERATION, upstream=True),
    "create_image": Shape(obj("data", data=many(ANY)), IMAGE, streams=True, upstream=True),
    "edit_image": Shape(obj("data", data=many(ANY)), IMAGE_FORM, form=True, streams=True, upstream=True),
    "vary_image": Shape(obj("data", data=many(ANY)), VARIATION_FORM, form=True, upstream=True),
    "create_speech": Shape(body=SPEECH, streams=True, binary="audio/*", upstream=True),
    "create_transcription": Shape(obj("text", text=text()), HEARING_FORM, form=True, streams=True, binary="text/plain", upstream=True),
    "create_translation": Shape(obj("text", text=text()), HEARING_FORM, form=True, binary="text/plain", upstream=True),
    "create_rerank": Shape(obj("results", results=many(obj("index relevance_score", index=whole(), relevance_score={"type": "number"}))), RERANK, upstream=True),
    "create_response": Shape(RESPONSE_OBJECT, RESPONSE, streams=True, upstream=True),
    "compact_response": Shape(obj("id object output", id=text(), object=text(), output=many(ANY)), RESPONSE, upstream=True),
    "count_input_tokens": Shape(obj("object input_tokens", object=text(), input_tokens=COUNT), RESPONSE, upstream=True),
    "retrieve_response": Shape(
        RESPONSE_OBJECT, streams=True, parameters=(query("stream", text(enum=["true", "false"])), query("starting_after", whole(minimum=-1), "The number of an event."))
    ),
    "delete_response": Shape(DELETED),
    "cancel_response": Shape(RESPONSE_OBJECT),
    "list_input_items": Shape(listed(ANY), parameters=PAGE),
    "create_conversation": Shape(CONVERSATION_OBJECT, obj(items=maybe(ITEMS | {"maxItems": 20}), metadata=METADATA), optional_body=True),
    "retrieve_conversation": Shape(CONVERSATION_OBJECT),
    "update_conversation": Shape(CONVERSATION_OBJECT, obj("metadata", metadata=METADATA)),
    "delete_conversation": Shape(DELETED),
    "create_items": Shape(listed(ANY), obj("items", items=ITEMS | {"minItems": 1, "maxItems": 20})),
    "list_items": Shape(listed(ANY), parameters=PAGE),
    "retrieve_item": Shape(ANY),
    "delete_item": Shape(CONVERSATION_OBJECT),
    "create_file": Shape(FILE_OBJECT, obj("file purpose", file=FILE, purpose=text(enum=["assistants", "batch", "evals", "fine-tune", "user_data", "vision"])), form=True),
    "list_files": Shape(listed(FILE_OBJECT), parameters=(query("limit", whole(minimum=1, maximum=10_000)), ORDER, AFTER, query("purpose", text()))),
    "retrieve_file": Shape(FILE_OBJECT),
    "retrieve_content": Shape(binary="*/*"),
    "delete_file": Shape(DELETED),
    "create_upload": Shape(UPLOAD_OBJECT, UPLOAD),
    "create_part": Shape(obj("id object created_at upload_id", id=text(), object=text(), created_at=MOMENT, upload_id=text()), obj("data", data=FILE), form=True),
    "complete_upload": Shape(UPLOAD_OBJECT, obj("part_ids", part_ids=many(text(), minItems=1), md5=text())),
    "cancel_upload": Shape(UPLOAD_OBJECT),
    "create_batch": Shape(BATCH_OBJECT, BATCH),
    "list_batches": Shape(listed(BATCH_OBJECT), parameters=(query("limit", whole(minimum=1, maximum=100)), AFTER)),
    "retrieve_batch": Shape(BATCH_OBJECT),
    "cancel_batch": Shape(BATCH_OBJECT),
    "create_client_secret": Shape(obj("value expires_at session", value=text(), expires_at=MOMENT, session=ANY), obj(session=ANY, expires_after=ANY), optional_body=True),
    "create_session": Shape(ANY, ANY, optional_body=True),
    "token_usage": Shape(ANY),
    "request_receipt": Shape(ANY),
    "billing_subscription": Shape(ANY),
    "billing_usage": Shape(ANY),
    "openapi_document": Shape(ANY),
}
