"""How many tokens of thinking a request asks for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from portal.lib.json import encode
from relay.protocols.prompts.thinking import thinking_budget


@pytest.mark.parametrize(
    ("members", "budget"),
    [
        ({"max_tokens": 5, "reasoning_effort": "high"}, None),
        ({"thinking_budget": 32_000, "enable_thinking": True}, 32_000),
        ({"enable_thinking": True}, None),
        ({"enable_thinking": False}, 0),
        ({"thinking": {"type": "disabled"}}, 0),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, 9),
        ({"thinking": {"type": "disabled", "budget_tokens": 9}}, 9),
        ({"reasoning": {"max_tokens": 7, "effort": "low"}, "thinking_budget": 8.5}, 8),
        ({"extra_body": {"nvext": {"thinking_config": {"thinking_budget": 6}}}}, 6),
        ({"chat_template_kwargs": {"thinking_budget": 4}}, 4),
        ({"thinking_budget": -1}, None),
        ({"thinking_budget": True, "thinking": "much", "reasoning": None}, None),
    ],
)
def test_budgets_by_the_names_that_vendors_have(members: dict[str, Any], budget: int | None) -> None:
    assert thinking_budget({name: msgspec.Raw(encode(value)) for name, value in members.items()}) == budget
