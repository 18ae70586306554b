"""The endpoints of Anthropic's and Google's APIs, and OpenAI's at channels of these."""

from __future__ import annotations

from typing import Any

from relay.protocols.usage import Usage
from tests.endpoints.table.row import ASK, CHUNKS, ENDLESS, REPORT, SAID, TEXT, USED, Row
from tests.support.peers.gemini import pieces
from tests.support.peers.gemini import response as gemini_response
from tests.support.peers.interactions import events_of as events_of_interaction
from tests.support.peers.messages import events, message
from tests.support.upstream import completion

USED_OF_MESSAGES = Usage(100, cached_input=10, cache_write=30, cache_write_1h=20, output=50, reasoning=8, searches=2)
_OF_MESSAGES = {
    "input_tokens": 60,
    "cache_read_input_tokens": 10,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "output_tokens": 50,
    "output_tokens_details": {"thinking_tokens": 8},
    "server_tool_use": {"web_search_requests": 2},
}
_MESSAGE = message({"type": "text", "text": SAID}, usage=_OF_MESSAGES)
_ANTHROPIC = {"provider": "anthropic"}

_GENERATE = "models/{model}:generateContent"
_STREAM = "models/{model}:streamGenerateContent"
_CONTENTS = {
    "contents": [{"role": "user", "parts": [{"text": TEXT}]}],
    "generationConfig": {"maxOutputTokens": 1000},
}
_OF_GEMINI = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 10,
    "candidatesTokenCount": 42,
    "thoughtsTokenCount": 8,
    "totalTokenCount": 150,
    "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}, {"modality": "IMAGE", "tokenCount": 5}],
    "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}],
}
_GENERATED = gemini_response({"text": SAID}, usageMetadata=_OF_GEMINI)
_INTERACTION: dict[str, Any] = {"input": TEXT, "generation_config": {"max_output_tokens": 1000}}
_INTERACTED: dict[str, Any] = {
    "id": "v1_ChdhYmNkZWZnaGlqa2xtbm9w",
    "object": "interaction",
    "status": "completed",
    "steps": [{"type": "model_output", "content": [{"type": "text", "text": SAID}]}],
    "usage": {
        "total_input_tokens": 100,
        "total_cached_tokens": 10,
        "total_output_tokens": 42,
        "total_thought_tokens": 8,
        "total_tokens": 150,
        "input_tokens_by_modality": [{"modality": "audio", "tokens": 20}, {"modality": "image", "tokens": 5}],
        "output_tokens_by_modality": [{"modality": "audio", "tokens": 4}],
    },
}
_VECTORS = "models/{model}:batchEmbedContents"
_EMBED: dict[str, Any] = {"content": {"parts": [{"text": TEXT}]}}
_OF_VECTORS = {"promptTokenCount": 45, "totalTokenCount": 45}
_GEMINI: dict[str, Any] = {"provider": "gemini"}
_LIMIT = "generationConfig.maxOutputTokens"
_ENDLESS_PIECE = pieces(gemini_response({"text": "word " * 40}))[0] | {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "word " * 40}]}, "index": 0}]
}


def _tool_with_model(body: dict[str, Any], model: str) -> dict[str, Any]:
    return {**body, "tools": [{"type": "mcp_server", "name": "a", "model": model}]}


def _advisor(body: dict[str, Any], model: str) -> dict[str, Any]:
    return {**body, "tools": [{"type": "advisor_20260301", "name": "advisor", "model": model}]}


ROWS = (
    Row(
        "generateContent",
        _GENERATE,
        _CONTENTS,
        USED,
        _GENERATED,
        limit=_LIMIT,
        channel=_GEMINI,
        api="generate_content",
    ),
    Row(
        "generateContent, streamed",
        _STREAM,
        _CONTENTS,
        USED,
        events=pieces(_GENERATED),
        limit=_LIMIT,
        channel=_GEMINI,
        endless=_ENDLESS_PIECE,
        query="alt=sse",
        api="generate_content.stream",
    ),
    Row(
        "generateContent over chat",
        _GENERATE,
        _CONTENTS,
        USED,
        completion(SAID, usage=REPORT),
        limit="max_completion_tokens",
        asked="chat/completions",
        api="generate_content",
    ),
    Row(
        "generateContent over chat, streamed",
        _STREAM,
        _CONTENTS,
        USED,
        events=CHUNKS,
        limit="max_completion_tokens",
        endless=ENDLESS,
        asked="chat/completions",
        query="alt=sse",
        api="generate_content",
    ),
    Row(
        "chat over generateContent",
        "chat/completions",
        ASK,
        USED,
        _GENERATED,
        limit=_LIMIT,
        channel=_GEMINI,
        asked=_GENERATE,
    ),
    Row(
        "chat over generateContent, streamed",
        "chat/completions",
        {**ASK, "stream": True},
        USED,
        events=pieces(_GENERATED),
        limit=_LIMIT,
        channel=_GEMINI,
        endless=_ENDLESS_PIECE,
        asked=_STREAM,
        query="alt=sse",
    ),
    Row(
        "interaction",
        "interactions",
        _INTERACTION,
        USED,
        _INTERACTED,
        limit="generation_config.max_output_tokens",
        channel=_GEMINI,
        named=_tool_with_model,
    ),
    Row(
        "interaction, streamed",
        "interactions",
        {**_INTERACTION, "stream": True},
        USED,
        events=events_of_interaction(_INTERACTED),
        limit="generation_config.max_output_tokens",
        channel=_GEMINI,
        endless={"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "word " * 40}},
    ),
    Row(
        "interaction in the background",
        "interactions",
        {**_INTERACTION, "background": True},
        USED,
        _INTERACTED,
        limit="generation_config.max_output_tokens",
        channel=_GEMINI,
    ),
    Row(
        "embedContent",
        "models/{model}:embedContent",
        _EMBED,
        Usage(45),
        {"embedding": {"values": [0.5, -0.25]}, "usageMetadata": _OF_VECTORS},
        channel=_GEMINI,
        api="generate_content.embed",
    ),
    Row(
        "batchEmbedContents",
        _VECTORS,
        {"requests": [_EMBED, _EMBED]},
        Usage(45),
        {"embeddings": [{"values": [0.5]}, {"values": [-0.25]}], "usageMetadata": _OF_VECTORS},
        channel=_GEMINI,
        api="generate_content.embed_batch",
    ),
    Row(
        "batchEmbedContents over embeddings",
        _VECTORS,
        {"requests": [_EMBED]},
        Usage(45),
        {"object": "list", "data": [{"object": "embedding", "embedding": [0.5]}], "usage": {"prompt_tokens": 45}},
        asked="embeddings",
        api="generate_content.embed_batch",
    ),
    Row(
        "embeddings over batchEmbedContents",
        "embeddings",
        {"input": TEXT},
        Usage(45),
        {"embeddings": [{"values": [0.5]}], "usageMetadata": _OF_VECTORS},
        channel=_GEMINI,
        asked=_VECTORS,
    ),
    Row(
        "count of contents' tokens",
        "models/{model}:countTokens",
        {"contents": _CONTENTS["contents"]},
        Usage(),
        {"totalTokens": 51},
        channel=_GEMINI,
        api="generate_content.count_tokens",
    ),
    Row(
        "messages",
        "messages",
        ASK,
        USED_OF_MESSAGES,
        _MESSAGE,
        limit="max_tokens",
        channel=_ANTHROPIC,
        named=_advisor,
    ),
    Row(
        "messages, streamed",
        "messages",
        {**ASK, "stream": True},
        USED_OF_MESSAGES,
        events=events(_MESSAGE),
        limit="max_tokens",
        channel=_ANTHROPIC,
        endless={"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 40}},
    ),
    Row(
        "messages over chat",
        "messages",
        ASK,
        USED,
        completion(SAID, usage=REPORT),
        limit="max_completion_tokens",
        asked="chat/completions",
    ),
    Row(
        "messages over chat, streamed",
        "messages",
        {**ASK, "stream": True},
        USED,
        events=CHUNKS,
        limit="max_completion_tokens",
        endless=ENDLESS,
        asked="chat/completions",
    ),
    Row(
        "chat over messages",
        "chat/completions",
        ASK,
        USED_OF_MESSAGES,
        _MESSAGE,
        limit="max_tokens",
        channel=_ANTHROPIC,
        asked="messages",
    ),
    Row(
        "chat over messages, streamed",
        "chat/completions",
        {**ASK, "stream": True},
        USED_OF_MESSAGES,
        events=events(_MESSAGE),
        limit="max_tokens",
        channel=_ANTHROPIC,
        endless={"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 40}},
        asked="messages",
    ),
    Row(
        "count of a message's tokens",
        "messages/count_tokens",
        {"messages": ASK["messages"]},
        Usage(),
        {"input_tokens": 51},
        channel=_ANTHROPIC,
    ),
)
