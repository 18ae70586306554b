"""OpenAI-compatible vendors as rows of data. Source of addresses and quirks: each vendor's API reference, read in November 2026."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Provider:
    """One dialect.

    `base_url`: the vendor's own address with its version path, empty when there is none.
    `auth_header`/`auth_prefix`: how the upstream key is presented.
    `needs_key`: whether a channel without a key makes sense.
    `output_field`: how a request says how many tokens the answer may have.
    `sends_done`, `stream_usage`: whether its streams end with [DONE], and whether it understands stream_options; a channel can only turn them off.
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
    chat_path: str = "/chat/completions"
    models_path: str = "/models"


_ROWS: Final = (
    Provider("demo", "Demo (built in, answers without any upstream)", "demo://built-in", needs_key=False),
    Provider("openai", "OpenAI, or compatible with it", "https://api.openai.com/v1", output_field="max_completion_tokens"),
    Provider("azure", "Azure OpenAI (v1 API)", auth_header="api-key", auth_prefix="", output_field="max_completion_tokens"),
    Provider("deepseek", "DeepSeek", "https://api.deepseek.com/v1"),
    Provider("moonshot", "Moonshot (Kimi)", "https://api.moonshot.ai/v1"),
    Provider("dashscope", "Alibaba DashScope (Qwen)", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    Provider("zhipu", "Zhipu (GLM)", "https://open.bigmodel.cn/api/paas/v4"),
    Provider("openrouter", "OpenRouter", "https://openrouter.ai/api/v1"),
    Provider("groq", "Groq", "https://api.groq.com/openai/v1"),
    Provider("mistral", "Mistral", "https://api.mistral.ai/v1", stream_usage=False),
    Provider("xai", "xAI", "https://api.x.ai/v1"),
    Provider("together", "Together", "https://api.together.xyz/v1"),
    Provider("siliconflow", "SiliconFlow", "https://api.siliconflow.com/v1"),
    Provider("ollama", "Ollama", "http://127.0.0.1:11434/v1", needs_key=False),
    Provider("llamacpp", "llama.cpp server", needs_key=False),
    Provider("vllm", "vLLM", needs_key=False),
    Provider("relay", "Another relay (one-api, new-api, AIRelays …)"),
)
PROVIDERS: Final[dict[str, Provider]] = {row.key: row for row in _ROWS}
CHOICES: Final = [(row.key, row.label) for row in _ROWS]
