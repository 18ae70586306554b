"""How a request of the hub says how long a model thinks, and how it samples, for upstreams of the Messages API. Pure.

Models of Claude 4.7 and later decide by themselves how long they think, and take an effort and no sampling; earlier
ones are given a budget of tokens. Models of other vendors at this API take a budget as well.

Source: Anthropic's documentation of adaptive thinking and of its models, November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.request import LEAST_BUDGET
from relay.protocols.anthropic_messages.thoughts import KINDS
from relay.protocols.chat_completions.hub import BUDGET, TOP_K

# `claude-opus-4-7`, `claude-sonnet-5-20270101`, also behind a provider's prefix; a date is no minor version.
_VERSION: Final = re.compile(r"claude-[a-z]+-(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_UNNUMBERED: Final = re.compile(r"claude-(?:fable|mythos)-")  # families that began later
_ADAPTIVE: Final = (4, 7)
_ONE_SAMPLING: Final = (4, 1)  # the first that refuses temperature and top_p together (litellm #15097)
_NO_BEGINNINGS: Final = (4, 6)  # the first that goes on from no beginning of its answer (release notes, February 2026)
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
# Tokens of thinking for an effort, as LiteLLM has them; the API's own minimum stands in place of fewer.
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
_EFFORT: Final = "reasoning_effort"


def is_adaptive(model: str) -> bool:
    """Whether a model decides by itself how long it thinks, and takes no sampling, by its name."""
    return _is_from(model, _ADAPTIVE)


def takes_beginnings(model: str) -> bool:
    """Whether a model goes on from the beginning of an answer that ends the conversation, by its name."""
    return not _is_from(model, _NO_BEGINNINGS)


def _is_from(model: str, version: tuple[int, int]) -> bool:
    """Whether a model is Claude of this version or a later one."""
    found = _VERSION.search(model.lower())
    if found is None:
        return _UNNUMBERED.search(model.lower()) is not None
    return (int(found[1]), int(found[2] or 0)) >= version


def set_thinking(hub: Json, body: Json, turns: list[Json]) -> list[str]:
    """Set thinking, effort and sampling of a body; returns what is dropped. `turns`: its messages."""
    adaptive, dropped = is_adaptive(text_of(hub, "model")), []
    effort, budget = text_of(hub, _EFFORT), hub.get(BUDGET)
    name = "thinking" if effort == "" and budget is not None else _EFFORT
    wanted = effort not in {"", "none"} or (isinstance(budget, int) and budget > 0)
    if wanted and adaptive:
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        if effort in _EFFORTS:
            body["output_config"] = {**object_of(body, "output_config"), "effort": _EFFORTS[effort]}
    elif wanted:
        tokens = budget if isinstance(budget, int) and budget > 0 else _BUDGETS.get(effort, _BUDGETS["medium"])
        body["thinking"] = {"type": "enabled", "budget_tokens": max(tokens, LEAST_BUDGET)}
    elif effort == "none" or budget == 0:
        body["thinking"] = {"type": "disabled"}
    if wanted and (_is_forced(body) or (not adaptive and _lacks_thoughts(turns))):
        dropped += _turn_off(body, name)
    elif not fit_thinking(body):
        dropped.append(name)
    thinks = text_of(object_of(body, "thinking"), "type") in {"enabled", "adaptive"}
    for member in _SAMPLING:
        value = hub.get(TOP_K if member == "top_k" else member)
        if member == "top_k" and value is None:
            value = hub.get("top_k")
        if value is None:
            continue
        if adaptive or thinks:
            dropped += [member] if value != 1 or member != "temperature" else []
        elif member == "top_p" and "temperature" in body and _is_from(text_of(hub, "model"), _ONE_SAMPLING):
            dropped.append(member)
        elif member == "temperature" and isinstance(value, (int, float)) and value > 1:
            body[member] = 1
            dropped.append(member)
        else:
            body[member] = value
    return dropped


def fit_thinking(body: Json) -> bool:
    """Keep a budget of thinking below the limit of the answer; False where it leaves no room, and thinking is off."""
    thinking, limit = object_of(body, "thinking"), body.get("max_tokens")
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or not isinstance(limit, int) or budget < limit:
        return True
    if limit > LEAST_BUDGET:
        body["thinking"] = {**thinking, "budget_tokens": limit - 1}
        return True
    body["thinking"] = {"type": "disabled"}
    return False


def _turn_off(body: Json, name: str) -> list[str]:
    del body["thinking"]
    output = {key: value for key, value in object_of(body, "output_config").items() if key != "effort"}
    body.pop("output_config", None)
    if output:
        body["output_config"] = output
    return [name]


def _is_forced(body: Json) -> bool:
    """Whether a tool must be called, which no model does that thinks."""
    return text_of(object_of(body, "tool_choice"), "type") in {"any", "tool"}


def _lacks_thoughts(turns: list[Json]) -> bool:
    """Whether the calls that the model goes on from stand in a turn without the thoughts that led to them."""
    last = next((turn for turn in reversed(turns) if text_of(turn, "role") == "assistant"), {})
    kinds = [text_of(block, "type") for block in objects_of(last, "content")]
    goes_on = bool(turns) and any(text_of(block, "type") == "tool_result" for block in objects_of(turns[-1], "content"))
    return goes_on and "tool_use" in kinds and kinds[0] not in KINDS
