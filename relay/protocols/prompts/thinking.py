"""How many tokens of thinking a request asks for, by the names that vendors have for it. Pure.

Source: the API references of Anthropic, DashScope, SiliconFlow, OpenRouter, Volcengine, Google, vLLM, SGLang and
NVIDIA, November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from portal.lib.json import decode

_BUDGETS: Final = frozenset((
    "thinking_budget", "thinkingBudget", "budget_tokens", "budgetTokens", "thinking_token_budget", "token_budget",
    "thinking_tokens", "max_thinking_tokens", "max_reasoning_tokens", "reasoning_budget", "reasoning_tokens",
))  # fmt: skip
# Objects that have one, where `max_tokens` is one as well.
_HOLDERS: Final = frozenset((
    "thinking", "reasoning", "thinking_config", "thinkingConfig", "chat_template_kwargs", "nvext", "extra_body",
))  # fmt: skip
_KNOWN: Final = _BUDGETS | _HOLDERS | {"enable_thinking"}
_DEEPEST: Final = 4


def thinking_budget(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """The tokens of thinking that a request names, the most of them; 0 where it turns it off; None: it does not say."""
    if _KNOWN.isdisjoint(fields):
        return None
    named = {name: decode(raw) for name, raw in fields.items() if name in _KNOWN}
    found = _budgets(named, 0)
    if found:
        return max(found)
    thinking = named.get("thinking")
    off = named.get("enable_thinking") is False
    return 0 if off or (isinstance(thinking, dict) and thinking.get("type") == "disabled") else None


def may_change_budget(path: Sequence[str]) -> bool:
    """Whether a member at this path of a request, if it is changed, changes what `thinking_budget` finds."""
    return path[-1] in _KNOWN or (len(path) > 1 and path[-1] in {"max_tokens", "type"})


def _budgets(holder: Mapping[str, object], depth: int) -> list[int]:
    found: list[int] = []
    for name, value in holder.items():
        if isinstance(value, dict) and name in _HOLDERS and depth < _DEEPEST:
            found += _budgets(value, depth + 1)
        elif not (name in _BUDGETS or (depth and name == "max_tokens")) or isinstance(value, bool):
            continue
        elif isinstance(value, (int, float)) and value > 0:  # some take -1 for as many as the model likes
            found.append(int(value))
    return found
