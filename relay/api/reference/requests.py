"""JSON Schemas of the bodies of requests: the members that the portal itself reads; others pass to the upstream."""

from __future__ import annotations

from typing import Final

from relay.api.reference.json_schema import ANY, COUNT, Schema, any_of, array, boolean, integer, nullable, obj, string

FILE: Final[Schema] = {"type": "string", "format": "binary"}
MODEL: Final = string("A model of GET /v1/models.", minLength=1)
METADATA: Final[Schema] = nullable(
    {"type": "object", "additionalProperties": {"type": "string", "maxLength": 512}, "maxProperties": 16}
)
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
MESSAGE_BATCH: Final = obj(
    "requests",
    requests=array(
        obj("custom_id params", custom_id=string(pattern="^[A-Za-z0-9_-]{1,64}$"), params=MESSAGE), minItems=1
    ),
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
INTERACTION: Final = obj(
    "",
    model=nullable(string(minLength=1)),
    agent=nullable(string(minLength=1)),
    input={"type": ["string", "object", "array"], "minLength": 1},
    previous_interaction_id=nullable(string()),
    system_instruction=nullable(string()),
    generation_config=nullable(obj(max_output_tokens=nullable(integer(minimum=0)))),
    agent_config=nullable(obj()),
    tools=nullable(array(ANY)),
    stream=nullable({"type": "boolean"}),
    background=nullable({"type": "boolean"}),
    store=nullable({"type": "boolean"}),
)
EMBED_CONTENT: Final = obj(
    "content",
    content=obj("parts", parts=array(ANY, minItems=1)),
    taskType=nullable(string()),
    title=nullable(string()),
    outputDimensionality=nullable(integer(minimum=1)),
)
EMBED_CONTENTS: Final = obj("requests", requests=array(EMBED_CONTENT, minItems=1))
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
