"""The types of channels, which both programs write as numbers, and what each becomes here. Pure.

Source: one-api 0.6.11-preview.7 (MIT) and new-api 1.0.0-rc.24, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ChannelType:
    """One type of channels."""

    title: str
    provider: str = "openai"  # a key of `relay.providers.vendors`; empty: there is none
    base_url: str = ""  # of channels without one, with the version path; empty: the vendor's own
    version: str = "/v1"  # what the program writes behind the address of a channel
    chat_only: bool = False  # it serves no other API for text than chat completions
    needs_url: bool = False
    left_out: str = ""  # why there is none


def _relay(title: str, base_url: str = "", needs_url: bool = False) -> ChannelType:
    return ChannelType(title, "relay", base_url, needs_url=needs_url)


def _chat(title: str, base_url: str, version: str = "/v1") -> ChannelType:
    """A server with OpenAI's chat completions that has no entry of its own here."""
    return ChannelType(title, "openai", base_url, version, chat_only=True, needs_url=not base_url)


def _none(title: str, why: str) -> ChannelType:
    return ChannelType(title, "", left_out=why)


_TASKS: Final = "Tasks for images, music and films are not served here."
_BOTS: Final = "Bots of this platform are not served here."
_SIGNED: Final = "Its old way to sign requests is not spoken here: use a key for its OpenAI-compatible API."
_CODEX: Final = "A ChatGPT plan is signed in to by its owner here, on the page “ChatGPT”."
_ROUTES: Final = "Its own routes and converters are not carried over: make a channel for what is behind it."

_SHARED: Final[Mapping[int, ChannelType]] = {
    1: ChannelType("OpenAI"),
    3: ChannelType("Azure", "azure", version="", needs_url=True),
    6: _relay("OpenAI Max", "https://api.openaimax.com/v1"),
    7: _relay("OhMyGPT", "https://api.ohmygpt.com/v1"),
    9: _relay("Ails", "https://api.caipacity.com/v1"),
    10: _relay("AI Proxy", "https://api.aiproxy.io/v1"),
    11: _none("PaLM", "Google has ended this API."),
    12: _relay("API2GPT", "https://api.api2gpt.com/v1"),
    13: _relay("AIGC2D", "https://api.aigc2d.com/v1"),
    14: ChannelType("Anthropic", "anthropic"),
    15: _none("Baidu", _SIGNED),
    16: ChannelType("Zhipu", "zhipu", version="/api/paas/v4"),
    17: ChannelType("Ali", "dashscope", "https://dashscope.aliyuncs.com/compatible-mode/v1", "/compatible-mode/v1"),
    18: _none("Xunfei", _SIGNED),
    20: ChannelType("OpenRouter", "openrouter"),
    21: _none("AI Proxy Library", _BOTS),
    22: _chat("FastGPT", "https://fastgpt.run/api/openapi/v1"),
    23: _none("Tencent", _SIGNED),
    24: ChannelType("Gemini", "gemini", version="/v1beta"),
    25: ChannelType("Moonshot", "moonshot", "https://api.moonshot.cn/v1"),
    31: _chat("01.AI", "https://api.lingyiwanwu.com/v1"),
    33: ChannelType("AWS", "bedrock_claude", version=""),
}
_DEEPSEEK: Final = ChannelType("DeepSeek", "deepseek")
_MISTRAL: Final = ChannelType("Mistral", "mistral")
_COHERE: Final = ChannelType("Cohere", "cohere", version="/compatibility/v1")
_CLOUDFLARE: Final = ChannelType("Cloudflare", "cloudflare", version="")
_SILICONFLOW: Final = ChannelType("SiliconFlow", "siliconflow", "https://api.siliconflow.cn/v1")
_VERTEX: Final = ChannelType("Vertex AI", "vertex", version="")
_VOLCENGINE: Final = ChannelType("Volcengine", "volcengine", version="/api/v3")
_XAI: Final = ChannelType("xAI", "xai")
_MINIMAX: Final = ChannelType("MiniMax", "minimax", "https://api.minimax.chat/v1")
_OLLAMA: Final = ChannelType("Ollama", "ollama")
_QIANFAN: Final = ChannelType("Baidu v2", "qianfan", version="/v2")

ONE_API: Final[Mapping[int, ChannelType]] = {
    **_SHARED,
    2: _relay("API2D", "https://oa.api2d.net/v1"),
    4: _relay("CloseAI", "https://api.closeai-proxy.xyz/v1"),
    5: _relay("OpenAI-SB", "https://api.openai-sb.com/v1"),
    8: _chat("Custom", ""),
    19: _chat("360", "https://ai.360.cn/v1"),
    26: _chat("Baichuan", "https://api.baichuan-ai.com/v1"),
    27: _MINIMAX,
    28: _MISTRAL,
    29: ChannelType("Groq", "groq"),
    30: _OLLAMA,
    32: ChannelType("StepFun", "stepfun"),
    34: _none("Coze", _BOTS),
    35: _COHERE,
    36: _DEEPSEEK,
    37: _CLOUDFLARE,
    38: _none("DeepL", "Translations by DeepL are not served here."),
    39: ChannelType("Together", "together", "https://api.together.xyz/v1"),
    40: _VOLCENGINE,
    41: ChannelType("Novita", "novita", version=""),
    42: _VERTEX,
    43: _none("Proxy", "Channels that pass any path on are not served here."),
    44: _SILICONFLOW,
    45: _XAI,
    46: _none("Replicate", "Its own API is not spoken here."),
    47: _QIANFAN,
    48: ChannelType("Xunfei v2", "spark"),
    49: ChannelType("Bailian", "dashscope", "https://dashscope.aliyuncs.com/compatible-mode/v1", "/compatible-mode/v1"),
    50: _chat("OpenAI compatible", "", ""),
    51: _chat("Gemini (OpenAI)", "https://generativelanguage.googleapis.com/v1beta/openai", ""),
}
NEW_API: Final[Mapping[int, ChannelType]] = {
    **_SHARED,
    2: _none("Midjourney", _TASKS),
    4: _OLLAMA,
    5: _none("Midjourney Plus", _TASKS),
    8: ChannelType("Custom", "openai", version="", chat_only=True, needs_url=True),
    19: _chat("360", "https://api.360.cn/v1"),
    26: ChannelType("Zhipu v4", "zhipu", version="/api/paas/v4"),
    27: ChannelType("Perplexity", "perplexity", version=""),
    34: _COHERE,
    35: _MINIMAX,
    36: _none("Suno", _TASKS),
    37: _none("Dify", _BOTS),
    38: ChannelType("Jina", "jina"),
    39: _CLOUDFLARE,
    40: _SILICONFLOW,
    41: _VERTEX,
    42: _MISTRAL,
    43: _DEEPSEEK,
    44: _chat("MokaAI", "https://api.moka.ai/v1"),
    45: _VOLCENGINE,
    46: _QIANFAN,
    47: _chat("Xinference", ""),
    48: _XAI,
    49: _none("Coze", _BOTS),
    50: _none("Kling", _TASKS),
    51: _none("Jimeng", _TASKS),
    52: _none("Vidu", _TASKS),
    53: _chat("Submodel", "https://llm.submodel.ai/v1"),
    54: _none("Doubao video", _TASKS),
    55: _none("Sora", _TASKS),
    56: _none("Replicate", "Its own API is not spoken here."),
    57: _none("Codex", _CODEX),
    58: _none("Advanced custom", _ROUTES),
    59: _relay("Sub2API", needs_url=True),
    60: _relay("new-api", needs_url=True),
}
# Addresses of plans, which new-api writes as a word: (vendor here, base URL).
PLANS: Final[Mapping[str, tuple[str, str]]] = {
    "glm-coding-plan": ("zhipu_plan", "https://open.bigmodel.cn/api/coding/paas/v4"),
    "glm-coding-plan-international": ("zhipu_plan", ""),
    "kimi-coding-plan": ("moonshot_plan", ""),
    "doubao-coding-plan": ("volcengine_plan", ""),
}
TYPES: Final[Mapping[str, Mapping[int, ChannelType]]] = {"one-api": ONE_API, "new-api": NEW_API}
UNKNOWN: Final = _relay("unknown", needs_url=True)
