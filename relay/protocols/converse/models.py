"""What models at the Converse API take that others refuse, by the names that Bedrock has for them. Pure.

Source: Bedrock's and Nova's user guides and LiteLLM 1.110's table of what models refuse, November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from portal.lib.json import Json, object_of, text_of
from relay.protocols.chat_completions.hub import BUDGET, TOP_K

# Names begin with their maker's, behind the region of a profile: `us.amazon.nova-2-lite-v1:0`.
_NOVA: Final = re.compile(r"(?:^|[./])amazon\.nova-")
_NOVA_2: Final = re.compile(r"(?:^|[./])amazon\.nova-2-")
_CLAUDE: Final = re.compile(r"(?:^|[./])anthropic\.")
_MISTRAL: Final = re.compile(r"(?:^|[./])mistral\.")
_GPT: Final = re.compile(r"(?:^|[./])openai\.gpt-\d")
_OPEN: Final = re.compile(r"(?:^|[./])(?:openai\.gpt-oss|deepseek\.(?!r1))")  # R1 always thinks
_OWN: Final = "additionalModelRequestFields"
_NOVA_EFFORT: Final = "maxReasoningEffort"
_EFFORTS: Final = {
    "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high",
}  # fmt: skip
_MOST_NOVA_K: Final = 128


def caches(model: str) -> bool:
    """Whether a model takes the ends of prefixes that are to be cached; others refuse the request."""
    return _NOVA.search(model) is not None or _CLAUDE.search(model) is not None


def caches_tools(model: str) -> bool:
    """Whether it takes them among tools, and for how long they are to be kept."""
    return _CLAUDE.search(model) is not None


def tells_failures(model: str) -> bool:
    """Whether the result of a tool may say that it failed."""
    return caches(model)


def has_formats(model: str) -> bool:
    """Whether a model can be held to a JSON schema: Nova only by a tool that it must call."""
    return _NOVA.search(model) is None


def strict_schema(model: str, schema: Json) -> Json:
    """The schema of a tool's parameters: Nova takes three members at the top."""
    if _NOVA.search(model) is None or "$defs" in schema or "definitions" in schema:
        return schema
    return {name: value for name, value in schema.items() if name in {"type", "properties", "required"}}


def set_own(hub: Json, model: str, body: Json) -> list[str]:
    """Set the members that each maker has for itself; returns the parameters that a model lacks."""
    dropped: list[str] = []
    own: Json = {}
    likeliest = hub.get(TOP_K) if hub.get(TOP_K) is not None else hub.get("top_k")
    if likeliest is not None:
        if _NOVA.search(model) and isinstance(likeliest, int):
            own["inferenceConfig"] = {"topK": min(likeliest, _MOST_NOVA_K)}
        elif _CLAUDE.search(model) or _MISTRAL.search(model):
            own["top_k"] = likeliest
        else:
            dropped.append("top_k")
    dropped += _set_effort(hub, model, own)
    if own:
        body[_OWN] = own
    if fit_effort(body):
        dropped.append("reasoning_effort" if hub.get("reasoning_effort") else "thinking")
    return dropped


def _set_effort(hub: Json, model: str, own: Json) -> list[str]:
    effort, budget = text_of(hub, "reasoning_effort"), hub.get(BUDGET)
    if not effort and budget is None:
        return []
    off = effort == "none" or budget == 0
    level = _EFFORTS.get(effort or "medium")
    if _NOVA_2.search(model) and (off or level):
        own["reasoningConfig"] = {"type": "disabled"} if off else {"type": "enabled", _NOVA_EFFORT: level}
    elif _OPEN.search(model) and level and not off:
        own["reasoning_effort"] = level
    elif _GPT.search(model) and effort:
        own["reasoning"] = {"effort": effort}
    else:
        return ["reasoning_effort" if effort else "thinking"]
    return []


def fit_effort(body: Json) -> bool:
    """Keep an effort beside a limit and sampling: Nova takes neither with the highest. Returns whether it is lower."""
    own, config = object_of(body, _OWN), object_of(body, "inferenceConfig")
    reasoning = object_of(own, "reasoningConfig")
    if reasoning.get(_NOVA_EFFORT) == "high" and config.keys() & {"maxTokens", "temperature", "topP"}:
        body[_OWN] = {**own, "reasoningConfig": {**reasoning, _NOVA_EFFORT: "medium"}}
        return True
    return False
