"""OpenCode Go, the plan of OpenCode with open models. Some of its models have chat completions, some another API only.

It refuses requests that do not name their conversation. What is left of it is told as a share of its tightest window.

Source: opencode.ai/docs/go, the source of its gateway, and LiteLLM 1.110.2's list of its models, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.apis import CHAT, GEMINI
from relay.providers.credentials.static import EVERY_API
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor
from relay.providers.vendors import opencode


def _balance(answers: Sequence[Any]) -> Balance:
    """What is left of the window (five hours, a week, a month) that is used up the most."""
    return Balance(min(100 - Decimal(str(one["percent"])) for one in answers[0]["usage"].values()), "%")


VENDOR: Final = Vendor(
    key="opencode_go",
    label="OpenCode Go",
    position=441,
    base_url="https://opencode.ai/zen/go/v1",
    credentials=EVERY_API,
    headers=opencode.VENDOR.headers,
    apis=opencode.VENDOR.apis,
    model_apis=(
        (re.compile(r"^claude-|^qwen3\.|^minimax-m(2|3$)"), frozenset(("messages",))),
        (re.compile(r"^gpt-|^grok-4|^muse-"), frozenset(("responses",))),
        (re.compile(r"^gemini-"), GEMINI),
        (re.compile(""), CHAT),
    ),
    session_header=opencode.VENDOR.session_header,
    failures=(
        # Windows of five hours, a week and a month: when one ends, a header says.
        rule(FailureClass.QUOTA_WINDOW, "429", "gousagelimiterror"),
        rule(FailureClass.BILLING, "403", "entitlementerror"),
        *opencode.VENDOR.failures,
    ),
    balance=BalanceSource(("/usage",), _balance),
)
