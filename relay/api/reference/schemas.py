"""JSON Schemas of the requests and answers under /v1, for `relay.api.reference.openapi`.

A test checks that they match the routers. Requests list the members that the portal itself reads; others are allowed
and pass to the upstream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from relay.api.reference.json_schema import Schema, any_of, array, boolean, integer, nullable, obj, string

ANY: Final[Schema] = {"type": "object"}
FILE: Final[Schema] = {"type": "string", "format": "binary"}
MODEL: Final = string("A model of GET /v1/models.", minLength=1)
METADATA: Final[Schema] = nullable(
    {"type": "object", "additionalProperties": {"type": "string", "maxLength": 512}, "maxProperties": 16}
)
COUNT: Final[Schema] = integer(minimum=0)
MOMENT: Final[Schema] = integer("Seconds since 1970.")
IDS: Final = {"first_id": nullable({"type": "string"}), "last_id": nullable({"type": "string"}), "has_more": boolean()}
INPUT_TEXTS: Final = any_of(
    string(minLength=1),
    array(string(minLength=1), minItems=1),
    array(COUNT, minItems=1),
    array(array(COUNT, minItems=1), minItems=1),
)

CHAT: Final = obj(
    "model messages",
    model=MODEL,
    messages=array(
        obj(
            "role",
            role=string(enum=["system", "developer", "user", "assistant", "tool"]),
            content=nullable(any_of(string(), array(ANY))),
        ),
        minItems=1,
    ),
    stream=nullable(boolean("Answer as server-sent events.")),
    stream_options=nullable(obj(include_usage=boolean())),
    n=nullable(integer(minimum=1, maximum=128)),
    max_completion_tokens=nullable(integer()),
    max_tokens=nullable(integer()),
    tools=nullable(array(ANY)),
)
COMPLETION: Final = obj(
    "model prompt",
    model=MODEL,
    prompt=INPUT_TEXTS,
    stream=nullable(boolean()),
    max_tokens=nullable(integer(minimum=0)),
    n=nullable(integer(minimum=1, maximum=128)),
)
EMBEDDING: Final = obj(
    "model input",
    model=MODEL,
    input=INPUT_TEXTS,
    encoding_format=string(enum=["float", "base64"]),
    dimensions=nullable(integer(minimum=1)),
)
MODERATION: Final = obj(
    "input",
    model=string("Without it: omni-moderation-latest."),
    input=any_of(string(minLength=1), array(string(minLength=1), minItems=1), array(ANY, minItems=1)),
)
IMAGE: Final = obj(
    "prompt",
    model=string("Without it: gpt-image-1."),
    prompt=string(minLength=1),
    n=nullable(integer(minimum=1, maximum=10)),
    size=nullable(string()),
    quality=nullable(string()),
    stream=nullable(boolean("Answer with partial images as server-sent events.")),
    partial_images=nullable(integer(minimum=0, maximum=3)),
)
IMAGE_FORM: Final = obj(
    "image prompt",
    image=FILE,
    prompt=string(minLength=1),
    model=string(),
    n=string(pattern="^([1-9]|10)$"),
    stream=string(enum=["true", "false"]),
)
VARIATION_FORM: Final = obj("image", image=FILE, model=string(), n=string(pattern="^([1-9]|10)$"))
SPEECH: Final = obj(
    "model input",
    model=MODEL,
    input=string("The text to be spoken.", minLength=1),
    voice=ANY | {"type": ["string", "object"]},
    stream_format=string(enum=["audio", "sse"]),
)
HEARING_FORM: Final = obj(
    "model file",
    model=MODEL,
    file=FILE,
    response_format=string(enum=["json", "text", "srt", "vtt", "verbose_json"]),
    stream=string(enum=["true", "false"]),
)
RERANK: Final = obj(
    "model query documents",
    model=MODEL,
    query=string(minLength=1),
    documents=array(any_of(string(), obj("text", text=string())), minItems=1),
    top_n=nullable(integer(minimum=1)),
)
ITEMS: Final = array(
    obj(
        "role content",
        role=string(enum=["user", "assistant", "system", "developer"]),
        content=any_of(string(), array(ANY)),
    )
)
RESPONSE: Final = obj(
    "model input",
    model=MODEL,
    input=any_of(string(), ITEMS),
    instructions=nullable(string()),
    previous_response_id=nullable(string()),
    conversation=nullable(any_of(string(), obj("id", id=string()))),
    store=nullable(boolean("Keep it, so that it can be fetched and gone on from. Default: true.")),
    background=nullable(boolean("Make it later; fetch it with GET.")),
    stream=nullable(boolean("Answer as server-sent events.")),
    max_output_tokens=nullable(integer()),
    tools=nullable(array(ANY)),
    metadata=METADATA,
)
MESSAGE: Final = obj(
    "model messages max_tokens",
    model=MODEL,
    messages=array(
        obj(
            "role content",
            role=string(enum=["user", "assistant", "system"]),
            content=any_of(string(), array(ANY)),
        ),
        minItems=1,
    ),
    max_tokens=integer(minimum=0),
    system=any_of(string(), array(ANY)),
    stream=nullable(boolean("Answer as server-sent events.")),
    tools=nullable(array(ANY)),
    thinking=nullable(ANY),
)
GENERATE_CONTENT: Final = obj(
    "contents",
    contents=array(obj("parts", role=string(enum=["user", "model"]), parts=array(ANY)), minItems=1),
    systemInstruction=nullable(obj(parts=array(ANY))),
    generationConfig=nullable(
        obj(maxOutputTokens=nullable(integer(minimum=0)), candidateCount=nullable(integer(minimum=1, maximum=8)))
    ),
    tools=nullable(array(ANY)),
)
GENERATED: Final = obj(
    "",
    candidates=array(ANY),
    promptFeedback=ANY,
    usageMetadata=ANY,
    modelVersion=string(),
    responseId=string(),
)
GEMINI_ERROR: Final = obj(
    "error",
    error=obj("code message status", code=integer(), message=string(), status=string(), details=array(ANY)),
)
UPLOAD: Final = obj(
    "filename purpose bytes mime_type",
    filename=string(minLength=1),
    purpose=string(),
    bytes=integer(minimum=0),
    mime_type=string(),
)
BATCH: Final = obj(
    "input_file_id endpoint completion_window",
    input_file_id=string(minLength=1),
    endpoint=string(),
    completion_window=string(enum=["24h"]),
    metadata=METADATA,
    output_expires_after=obj(
        "anchor seconds", anchor=string(enum=["created_at"]), seconds=integer(minimum=3600, maximum=2_592_000)
    ),
)

MODEL_OBJECT: Final = obj(
    "id object created owned_by",
    id=string(),
    object=string(enum=["model"]),
    created=MOMENT,
    owned_by=string(),
    context_window=COUNT,
    max_output_tokens=COUNT,
    abilities=array(string()),
    pricing=ANY
    | {
        "description": (
            "USD: per 1M tokens (input, output …), per call, image, second or character; the highest of the channels "
            "that can serve it, with `lowest` where they differ, and `tiers` of longer prompts."
        )
    },
)
FILE_OBJECT: Final = obj(
    "id object bytes created_at filename purpose status",
    id=string(),
    object=string(enum=["file"]),
    bytes=COUNT,
    created_at=MOMENT,
    expires_at=MOMENT,
    filename=string(),
    purpose=string(),
    status=string(),
)
UPLOAD_OBJECT: Final = obj(
    "id object bytes created_at filename purpose status expires_at",
    id=string(),
    object=string(enum=["upload"]),
    bytes=COUNT,
    created_at=MOMENT,
    filename=string(),
    purpose=string(),
    status=string(enum=["pending", "completed", "cancelled", "expired"]),
    expires_at=MOMENT,
    file=FILE_OBJECT,
)
BATCH_OBJECT: Final = obj(
    "id object endpoint input_file_id completion_window status created_at",
    id=string(),
    object=string(enum=["batch"]),
    endpoint=string(),
    input_file_id=string(),
    completion_window=string(),
    status=string(),
    created_at=MOMENT,
    errors=nullable(ANY),
    output_file_id=nullable(string()),
    error_file_id=nullable(string()),
    request_counts=obj("total completed failed", total=COUNT, completed=COUNT, failed=COUNT),
    waiting_for=string(),
    waiting_until=MOMENT,
    estimated_end_at=MOMENT,
)
CONVERSATION_OBJECT: Final = obj(
    "id object created_at metadata", id=string(), object=string(enum=["conversation"]), created_at=MOMENT, metadata=ANY
)
RESPONSE_OBJECT: Final = obj(
    "id object created_at status output",
    id=string(),
    object=string(enum=["response"]),
    created_at={"type": "number"},
    status=string(),
    output=array(ANY),
)
DELETED: Final = obj("id object deleted", id=string(), object=string(), deleted=boolean())


def listed(items: Schema, ids: bool = True) -> Schema:
    return obj("object data", object=string(enum=["list"]), data=array(items), **(IDS if ids else {}))


def query(name: str, schema: Schema, description: str = "") -> Schema:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "schema": schema,
        **({"description": description} if description else {}),
    }


ORDER: Final = query("order", string(enum=["asc", "desc"]), "Newest first unless told otherwise.")
AFTER: Final = query("after", string(), "The last id of the page before.")
PAGE: Final = (query("limit", integer(minimum=1, maximum=100)), ORDER, AFTER)


@dataclass(frozen=True, slots=True)
class Shape:
    """The request and the answer of one operation."""

    answer: Schema = field(default_factory=dict)
    body: Schema | None = None
    form: bool = False  # the body is a form
    streams: bool = False  # it can answer with events
    binary: str = ""  # the type of an answer that is not JSON
    upstream: bool = False  # it sends requests to upstreams, whose errors it may pass on
    parameters: tuple[Schema, ...] = ()  # of the query
    optional_body: bool = False
    status: str = "200"  # of an answer that is no error


SHAPES: Final[dict[str, Shape]] = {
    "list_models": Shape(listed(MODEL_OBJECT)),
    "retrieve_model": Shape(MODEL_OBJECT),
    "create_chat_completion": Shape(
        obj(
            "id object created model choices",
            id=string(),
            object=string(),
            created=integer(),
            model=string(),
            choices=array(ANY),
        ),
        CHAT,
        streams=True,
        upstream=True,
    ),
    "create_completion": Shape(obj("choices", choices=array(ANY)), COMPLETION, streams=True, upstream=True),
    "create_embedding": Shape(obj("object data", object=string(), data=array(ANY)), EMBEDDING, upstream=True),
    "create_moderation": Shape(obj("results", results=array(ANY)), MODERATION, upstream=True),
    "create_image": Shape(obj("data", data=array(ANY)), IMAGE, streams=True, upstream=True),
    "edit_image": Shape(obj("data", data=array(ANY)), IMAGE_FORM, form=True, streams=True, upstream=True),
    "vary_image": Shape(obj("data", data=array(ANY)), VARIATION_FORM, form=True, upstream=True),
    "create_speech": Shape(body=SPEECH, streams=True, binary="audio/*", upstream=True),
    "create_transcription": Shape(
        obj("text", text=string()), HEARING_FORM, form=True, streams=True, binary="text/plain", upstream=True
    ),
    "create_translation": Shape(
        obj("text", text=string()), HEARING_FORM, form=True, binary="text/plain", upstream=True
    ),
    "create_rerank": Shape(
        obj(
            "results", results=array(obj("index relevance_score", index=integer(), relevance_score={"type": "number"}))
        ),
        RERANK,
        upstream=True,
    ),
    "create_message": Shape(
        obj(
            "id type role model content usage",
            id=string(),
            type=string(enum=["message"]),
            role=string(enum=["assistant"]),
            model=string(),
            content=array(ANY),
            stop_reason=nullable(string()),
            stop_sequence=nullable(string()),
            usage=ANY,
        ),
        MESSAGE,
        streams=True,
        upstream=True,
    ),
    "count_message_tokens": Shape(
        obj("input_tokens", input_tokens=COUNT),
        {**MESSAGE, "required": ["model", "messages"]},
        upstream=True,
    ),
    "generate_content": Shape(GENERATED, GENERATE_CONTENT, upstream=True),
    "stream_generate_content": Shape(
        array(GENERATED),
        GENERATE_CONTENT,
        parameters=(query("alt", string(enum=["sse", "json"]), "`sse`: as server-sent events, not as a list."),),
        streams=True,
        upstream=True,
    ),
    "count_tokens": Shape(obj("totalTokens", totalTokens=COUNT), GENERATE_CONTENT, upstream=True),
    "create_response": Shape(RESPONSE_OBJECT, RESPONSE, streams=True, upstream=True),
    "compact_response": Shape(
        obj("id object output", id=string(), object=string(), output=array(ANY)), RESPONSE, upstream=True
    ),
    "count_input_tokens": Shape(
        obj("object input_tokens", object=string(), input_tokens=COUNT), RESPONSE, upstream=True
    ),
    "retrieve_response": Shape(
        RESPONSE_OBJECT,
        streams=True,
        parameters=(
            query("stream", string(enum=["true", "false"])),
            query("starting_after", integer(minimum=-1), "The number of an event."),
        ),
    ),
    "delete_response": Shape(DELETED),
    "cancel_response": Shape(RESPONSE_OBJECT),
    "list_input_items": Shape(listed(ANY), parameters=PAGE),
    "create_conversation": Shape(
        CONVERSATION_OBJECT, obj(items=nullable(ITEMS | {"maxItems": 20}), metadata=METADATA), optional_body=True
    ),
    "retrieve_conversation": Shape(CONVERSATION_OBJECT),
    "update_conversation": Shape(CONVERSATION_OBJECT, obj("metadata", metadata=METADATA)),
    "delete_conversation": Shape(DELETED),
    "create_items": Shape(listed(ANY), obj("items", items=ITEMS | {"minItems": 1, "maxItems": 20})),
    "list_items": Shape(listed(ANY), parameters=PAGE),
    "retrieve_item": Shape(ANY),
    "delete_item": Shape(CONVERSATION_OBJECT),
    "create_file": Shape(
        FILE_OBJECT,
        obj(
            "file purpose",
            file=FILE,
            purpose=string(enum=["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]),
        ),
        form=True,
    ),
    "list_files": Shape(
        listed(FILE_OBJECT),
        parameters=(query("limit", integer(minimum=1, maximum=10_000)), ORDER, AFTER, query("purpose", string())),
    ),
    "retrieve_file": Shape(FILE_OBJECT),
    "retrieve_content": Shape(binary="*/*"),
    "delete_file": Shape(DELETED),
    "create_upload": Shape(UPLOAD_OBJECT, UPLOAD),
    "create_part": Shape(
        obj("id object created_at upload_id", id=string(), object=string(), created_at=MOMENT, upload_id=string()),
        obj("data", data=FILE),
        form=True,
    ),
    "complete_upload": Shape(UPLOAD_OBJECT, obj("part_ids", part_ids=array(string(), minItems=1), md5=string())),
    "cancel_upload": Shape(UPLOAD_OBJECT),
    "create_batch": Shape(BATCH_OBJECT, BATCH),
    "list_batches": Shape(listed(BATCH_OBJECT), parameters=(query("limit", integer(minimum=1, maximum=100)), AFTER)),
    "retrieve_batch": Shape(BATCH_OBJECT),
    "cancel_batch": Shape(BATCH_OBJECT),
    "create_client_secret": Shape(
        obj("value expires_at session", value=string(), expires_at=MOMENT, session=ANY),
        obj(session=ANY, expires_after=ANY),
        optional_body=True,
    ),
    "create_session": Shape(ANY, ANY, optional_body=True),
    "create_transcription_session": Shape(ANY, ANY),
    "create_call": Shape(
        body=obj(
            "sdp",
            sdp=string("The WebRTC offer. Alone, it may be the whole body, as application/sdp."),
            session=string("The session as JSON: its model, and what else a session.update has."),
        ),
        form=True,
        binary="application/sdp",
        upstream=True,
        parameters=(query("model", string()),),
        status="201",
    ),
    "hang_up_call": Shape(),
    "token_usage": Shape(ANY),
    "request_receipt": Shape(ANY),
    "billing_subscription": Shape(ANY),
    "billing_usage": Shape(ANY),
    "openapi_document": Shape(ANY),
}
