"""DeepSeek.

Source: DeepSeek's API reference and error codes (api-docs.deepseek.com), read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import PromptCache, Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    """In USD when there is any, otherwise in the first currency of the account."""
    infos = answers[0]["balance_infos"]
    in_usd = (info for info in infos if info.get("currency") == "USD" and Decimal(info["total_balance"]))
    chosen = next(in_usd, infos[0])
    return Balance(Decimal(chosen["total_balance"]), str(chosen["currency"]))


VENDOR: Final = Vendor(
    key="deepseek",
    label="DeepSeek",
    position=60,
    base_url="https://api.deepseek.com/v1",
    apis=CHAT | {"responses", "completions", "messages"},
    paths={"completions": "/../beta/completions", "messages": "/../anthropic/v1/messages"},
    parameters={
        # 400 "unknown variant `image_url`, expected `text`", wherever in the conversation (August 2026).
        "messages[].content[image_url]": "drop",
        "messages/messages[].content[image]": "drop",
        "messages/messages[].content[].content[image]": "drop",
        "messages/metadata": "forward",
        "n": "refuse:1",
        "logit_bias": "drop",
        "seed": "drop",
        "user": "drop",
        "store": "drop",
        "metadata": "drop",
        "parallel_tool_calls": "drop",
    },
    # Source: its guide on context caching: what is not used is cleared within a few hours to a few days.
    prompt_cache=PromptCache(seconds=7200.0),
    failures=(
        rule(FailureClass.BILLING, "402"),
        rule(FailureClass.BILLING, "403 429", text=r"^insufficient balance"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400", text=r"^model not exist"),
        rule(FailureClass.KEY_DEAD, "401", "authentication_error"),
    ),
    balance=BalanceSource(("//user/balance",), _balance),
    price_list="deepseek",
    price_search={"deepseek": 40},
)
