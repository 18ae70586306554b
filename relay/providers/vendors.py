"""OpenAI-compatible vendors as rows of data. Source of addresses and quirks: each vendor's API reference, read in November 2026."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# The APIs of an upstream, by the name under which records have them, and the path below its base URL.
PATHS: Final[Mapping[str, str]] = {
    "chat.completions": "/chat/completions",
    "completions": "/completions",
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
}
FAMILIES: Final = tuple(dict.fromkeys(api.partition(".")[0] for api in PATHS))
_RESPONSES: Final = frozenset(("responses", "responses.compact", "responses.input_tokens"))
_CHAT: Final = frozenset(("chat.completions",))
_IMAGES: Final = frozenset(("images.generations", "images.edits", "images.variations"))
_AUDIO: Final = frozenset(("audio.speech", "audio.transcriptions", "audio.translations"))
_EVERYTHING: Final = frozenset(PATHS)
_COMMON: Final = _EVERYTHING - _RESPONSES  # what an OpenAI-compatible server may have; which of it, its 404 says


@dataclass(frozen=True, slots=True)
class Provider:
    """One dialect.

    `base_url`: the vendor's own address with its version path, empty when there is none.
    `auth_header`/`auth_prefix`: how the upstream key is presented.
    `needs_key`: whether a channel without a key makes sense.
    `output_field`: how a chat request says how many tokens the answer may have.
    `sends_done`, `stream_usage`: whether its streams end with [DONE], and whether it understands stream_options; a channel can only turn them off.
    `apis`: what it serves, of PATHS. A channel may say otherwise about chat and responses. `paths`: where they differ from PATHS.
    `stores`: whether it keeps responses, so that a next turn may name them.
    `least_output`: the fewest tokens that a limit of /responses may name.
    """

    key: str
    label: str
    base_url: str = ""
    auth_header: str = "authorization"
    auth_prefix: str = "Bearer "
    needs_key: bool = True
    sends_done: bool = True
    stream_usage: bool = True
    output_field: str = "max_tokens"
    apis: frozenset[str] = _COMMON
    paths: Mapping[str, str] = field(default_factory=dict)
    stores: bool = False
    least_output: int = 1
    models_path: str = "/models"

    def path(self, api: str) -> str:
        return self.paths.get(api) or PATHS[api]


_ROWS: Final = (
    Provider("demo", "Demo (built in, answers without any upstream)", "demo://built-in", needs_key=False, apis=_CHAT),
    Provider("openai", "OpenAI, or compatible with it", "https://api.openai.com/v1", output_field="max_completion_tokens", apis=_EVERYTHING, stores=True, least_output=16),
    Provider(
        "azure", "Azure OpenAI (v1 API)", auth_header="api-key", auth_prefix="", output_field="max_completion_tokens",
        apis=_EVERYTHING - {"moderations", "rerank"}, stores=True, least_output=16,
    ),
    Provider("deepseek", "DeepSeek", "https://api.deepseek.com/v1", apis=_CHAT | {"completions"}, paths={"completions": "/../beta/completions"}),
    Provider("moonshot", "Moonshot (Kimi)", "https://api.moonshot.ai/v1", apis=_CHAT),
    Provider(
        "dashscope", "Alibaba DashScope (Qwen)", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        apis=_CHAT | {"completions", "embeddings", "rerank"}, paths={"rerank": "/../../compatible-api/v1/reranks"},
    ),
    Provider("zhipu", "Zhipu (GLM)", "https://open.bigmodel.cn/api/paas/v4", apis=_CHAT | {"embeddings", "images.generations", "audio.speech", "audio.transcriptions", "rerank"}),
    Provider("openrouter", "OpenRouter", "https://openrouter.ai/api/v1", apis=_CHAT | {"completions", "embeddings"}),
    Provider("groq", "Groq", "https://api.groq.com/openai/v1", apis=_CHAT | _AUDIO),
    Provider("mistral", "Mistral", "https://api.mistral.ai/v1", stream_usage=False, apis=_CHAT | {"embeddings", "moderations", "audio.transcriptions"}),
    Provider("xai", "xAI", "https://api.x.ai/v1", apis=_CHAT | {"completions", "images.generations", "responses", "realtime"}, stores=True),
    Provider("together", "Together", "https://api.together.xyz/v1", apis=_COMMON - {"moderations", "realtime", "images.variations"}),
    Provider(
        "siliconflow", "SiliconFlow", "https://api.siliconflow.com/v1",
        apis=_CHAT | {"completions", "embeddings", "rerank", "images.generations", "audio.speech", "audio.transcriptions"},
    ),
    Provider("ollama", "Ollama", "http://127.0.0.1:11434/v1", needs_key=False, apis=_CHAT | {"completions", "embeddings", "images.generations"}),
    Provider("llamacpp", "llama.cpp server", needs_key=False, apis=_CHAT | {"completions", "embeddings", "rerank"}),
    Provider("vllm", "vLLM", needs_key=False, apis=_COMMON | {"responses"}),
    Provider("relay", "Another relay (one-api, new-api, AIRelays …)"),
)  # fmt: skip
PROVIDERS: Final[dict[str, Provider]] = {row.key: row for row in _ROWS}
CHOICES: Final = [(row.key, row.label) for row in _ROWS]


def served(provider: Provider, text_api: str) -> frozenset[str]:
    """What a channel serves. `text_api`: which of the two APIs for text its administrator says that it speaks, empty: as the vendor does."""
    if text_api == "chat":
        return (provider.apis | _CHAT) - _RESPONSES
    if text_api == "responses":
        return (provider.apis | _RESPONSES) - _CHAT
    return provider.apis | _CHAT | _RESPONSES if text_api == "both" else provider.apis
