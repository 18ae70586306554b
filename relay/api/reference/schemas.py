"""JSON Schemas of the requests and answers under /v1, for `relay.api.reference.openapi`.

A test checks that they match the routers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from relay.api.reference.json_schema import ANY, COUNT, Schema, array, integer, nullable, obj, string
from relay.api.reference.objects import (
    BATCH_OBJECT,
    CONVERSATION_OBJECT,
    DELETED,
    FILE_OBJECT,
    GENERATED,
    IDS,
    INTERACTION_OBJECT,
    MESSAGE_BATCH_OBJECT,
    MODEL_OBJECT,
    MOMENT,
    RESPONSE_OBJECT,
    UPLOAD_OBJECT,
    VECTOR,
    listed,
)
from relay.api.reference.requests import (
    BATCH,
    CHAT,
    COMPLETION,
    EMBED_CONTENT,
    EMBED_CONTENTS,
    EMBEDDING,
    FILE,
    GENERATE_CONTENT,
    HEARING_FORM,
    IMAGE,
    IMAGE_FORM,
    INTERACTION,
    ITEMS,
    MESSAGE,
    MESSAGE_BATCH,
    METADATA,
    MODERATION,
    RERANK,
    RESPONSE,
    SPEECH,
    UPLOAD,
    VARIATION_FORM,
)


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
    "list_models": Shape(
        listed(MODEL_OBJECT), parameters=(query("client_version", string(), "Asks for Codex's catalogue."),)
    ),
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
    "create_message_batch": Shape(MESSAGE_BATCH_OBJECT, MESSAGE_BATCH),
    "list_message_batches": Shape(
        obj("data has_more first_id last_id", data=array(MESSAGE_BATCH_OBJECT), **IDS),
        parameters=(
            query("limit", integer(minimum=1, maximum=1000)),
            query("after_id", string(), "The last id of the page before."),
            query("before_id", string(), "The first id of the page that follows."),
        ),
    ),
    "retrieve_message_batch": Shape(MESSAGE_BATCH_OBJECT),
    "delete_message_batch": Shape(obj("id type", id=string(), type=string(enum=["message_batch_deleted"]))),
    "cancel_message_batch": Shape(MESSAGE_BATCH_OBJECT),
    "retrieve_message_results": Shape(binary="application/x-jsonl"),
    "generate_content": Shape(GENERATED, GENERATE_CONTENT, upstream=True),
    "stream_generate_content": Shape(
        array(GENERATED),
        GENERATE_CONTENT,
        parameters=(query("alt", string(enum=["sse", "json"]), "`sse`: as server-sent events, not as a list."),),
        streams=True,
        upstream=True,
    ),
    "count_tokens": Shape(obj("totalTokens", totalTokens=COUNT), GENERATE_CONTENT, upstream=True),
    "create_interaction": Shape(INTERACTION_OBJECT, INTERACTION, streams=True, upstream=True),
    "retrieve_interaction": Shape(
        INTERACTION_OBJECT,
        streams=True,
        parameters=(
            query("stream", string(enum=["true", "false"])),
            query("last_event_id", string(), "The `event_id` of an event."),
            query("include_input", string(enum=["true", "false"])),
        ),
    ),
    "delete_interaction": Shape(obj("")),
    "cancel_interaction": Shape(INTERACTION_OBJECT),
    "embed_content": Shape(obj("embedding", embedding=VECTOR, usageMetadata=ANY), EMBED_CONTENT, upstream=True),
    "batch_embed_contents": Shape(
        obj("embeddings", embeddings=array(VECTOR), usageMetadata=ANY), EMBED_CONTENTS, upstream=True
    ),
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
