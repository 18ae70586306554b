"""Another relay for AI APIs, which passes on what its own upstreams say.

Source: the API that one-api, new-api and AIRelays have in common, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import OPENAI_COMPATIBLE
from relay.providers.failures import FailureClass, rule
from relay.providers.relays.balances import BILLING, OTHERS
from relay.providers.relays.prices import SOURCES
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="relay",
    label="Another relay (one-api, new-api, AIRelays …)",
    position=990,
    relay=True,
    apis=OPENAI_COMPATIBLE | {"responses", "messages"},
    parameters={"tools[].parameters.analysis_models": "drop"},  # of OpenRouter behind it
    failures=(
        # The account there, or that of its own upstream; or this request alone is too dear for what is left.
        rule(FailureClass.BILLING, "403 429", "insufficient_quota", doubtful=True),
        rule(FailureClass.BILLING, "401 403", text=r"^该令牌额度已用尽"),
        rule(FailureClass.KEY_DEAD, "401", text=r"^(无效的令牌|该令牌(已过期|状态不可用))"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", text=r"^(该令牌无权|this token has no access)"),
        rule(
            FailureClass.KEY_FORBIDDEN_MODEL,
            "503",
            text=r"^(当前)?分组 .*无可用渠道|^no available channel for (group|model)",
            cooldown=300.0,
        ),
    ),
    balance=BILLING,
    more_balances=OTHERS,
    prices=SOURCES,
)
