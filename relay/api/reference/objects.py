"""JSON Schemas of what answers hold."""

from __future__ import annotations

from typing import Final

from relay.api.reference.json_schema import ANY, COUNT, Schema, array, boolean, integer, nullable, obj, string

MOMENT: Final[Schema] = integer("Seconds since 1970.")
IDS: Final = {"first_id": nullable({"type": "string"}), "last_id": nullable({"type": "string"}), "has_more": boolean()}
VECTOR: Final = obj("values", values=array({"type": "number"}))
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
INTERACTION_OBJECT: Final = obj(
    "id status",
    id=string(),
    status=string(),
    object=string(),
    model=string(),
    agent=string(),
    created=string(),
    updated=string(),
    previous_interaction_id=string(),
    steps=array(ANY),
    usage=ANY,
    errors=array(ANY),
)
INTERACTIONS_ERROR: Final = obj("error", error=obj("code message", code=string(), message=string(), details=array(ANY)))
MODEL_OBJECT: Final = obj(
    "id object created owned_by",
    id=string(),
    object=string(enum=["model"]),
    created=MOMENT,
    owned_by=string(),
    display_name=string(),
    context_window=COUNT,
    context_length=COUNT,
    max_output_tokens=COUNT,
    abilities=array(string()),
    architecture=obj("", input_modalities=array(string()), output_modalities=array(string())),
    reasoning_levels=array(string()),
    retires_at=string(format="date-time"),
    expiration_date=string(format="date"),
    alias_target=obj("slug name", slug=string(), name=string()),
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
_TIME: Final = string("As RFC 3339 has it.")
MESSAGE_BATCH_OBJECT: Final = obj(
    "id type processing_status request_counts created_at expires_at",
    id=string(),
    type=string(enum=["message_batch"]),
    processing_status=string(enum=["in_progress", "canceling", "ended"]),
    request_counts=obj(
        "processing succeeded errored canceled expired",
        processing=COUNT,
        succeeded=COUNT,
        errored=COUNT,
        canceled=COUNT,
        expired=COUNT,
    ),
    created_at=_TIME,
    expires_at=_TIME,
    ended_at=nullable(_TIME),
    cancel_initiated_at=nullable(_TIME),
    archived_at=nullable(_TIME),
    results_url=nullable(string()),
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
