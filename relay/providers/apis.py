"""The APIs that an upstream can have, and the sets of them in which vendors are described. Pure data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

# By the name under which records have an API, its path below the base URL. `{model}`: the upstream's name of the model.
PATHS: Final[Mapping[str, str]] = {
    "chat.completions": "/chat/completions",
    "completions": "/completions",
    "messages": "/messages",
    "messages.count_tokens": "/messages/count_tokens",
    "generate_content": "/models/{model}:generateContent",
    "generate_content.stream": "/models/{model}:streamGenerateContent",
    "generate_content.count_tokens": "/models/{model}:countTokens",
    "generate_content.embed": "/models/{model}:embedContent",
    "generate_content.embed_batch": "/models/{model}:batchEmbedContents",
    "interactions": "/interactions",
    "ollama.chat": "/api/chat",
    "cohere.chat": "/chat",
    "cohere.embed": "/embed",
    "predict": "/models/{model}:predict",
    "converse": "/model/{model}/converse",
    "converse.stream": "/model/{model}/converse-stream",
    "responses": "/responses",
    "responses.compact": "/responses/compact",
    "responses.input_tokens": "/responses/input_tokens",
    "embeddings": "/embeddings",
    "moderations": "/moderations",
    "images.generations": "/images/generations",
    "images.edits": "/images/edits",
    "images.variations": "/images/variations",
    "audio.speech": "/audio/speech",
    "audio.transcriptions": "/audio/transcriptions",
    "audio.translations": "/audio/translations",
    "rerank": "/rerank",
    "realtime": "/realtime",
    "realtime.calls": "/realtime/calls",
}
# The first words of the names: rules about parameters and the purposes of tokens go by them.
FAMILIES: Final = tuple(dict.fromkeys(api.partition(".")[0] for api in PATHS))

CHAT: Final = frozenset(("chat.completions",))
RESPONSES: Final = frozenset(("responses", "responses.compact", "responses.input_tokens"))
MESSAGES: Final = frozenset(("messages", "messages.count_tokens"))  # Anthropic's
GEMINI: Final = frozenset(api for api in PATHS if api.partition(".")[0] == "generate_content")
INTERACTIONS: Final = frozenset(("interactions",))  # Gemini's
AUDIO: Final = frozenset(("audio.speech", "audio.transcriptions", "audio.translations"))
OLLAMA: Final = frozenset(("ollama.chat",))
COHERE: Final = frozenset(("cohere.chat", "cohere.embed"))
PREDICT: Final = frozenset(("predict",))  # vectors of Vertex AI
CONVERSE: Final = frozenset(("converse", "converse.stream"))  # of Amazon Bedrock
UPSTREAM_ONLY: Final = OLLAMA | COHERE | CONVERSE | PREDICT  # that no client can ask for
EVERYTHING: Final = frozenset(PATHS)
OPENAI: Final = EVERYTHING - MESSAGES - GEMINI - INTERACTIONS - UPSTREAM_ONLY
# What a server that is compatible with OpenAI may have; which of it, its 404 says.
OPENAI_COMPATIBLE: Final = OPENAI - RESPONSES


# Patterns of models' names at an upstream, each with the APIs that such models have.
ModelApis = tuple[tuple[re.Pattern[str], frozenset[str]], ...]


def apis_of_model(model_apis: ModelApis, model: str) -> frozenset[str]:
    """The APIs of a model by its name; all for one that fits no pattern."""
    return next((apis for pattern, apis in model_apis if pattern.search(model)), EVERYTHING)


def model_in_path(model: str) -> str:
    """The upstream's name of a model as a segment of a path.

    A colon and an at sign stay, as in the addresses that clouds document: not every server decodes them.
    """
    return quote(model.removeprefix("models/"), safe=":@")
