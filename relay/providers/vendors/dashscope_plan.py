"""Alibaba's coding plan (Qwen), whose keys are its own: its address outside China.

Source: Model Studio's pages about the coding plan, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor
from relay.providers.vendors import dashscope

VENDOR: Final = Vendor(
    key="dashscope_plan",
    label="Alibaba Coding Plan (Qwen)",
    position=81,
    base_url="https://coding-intl.dashscope.aliyuncs.com/v1",
    apis=CHAT | {"messages"},
    paths={"messages": "/../apps/anthropic/v1/messages"},
    cache_marks=dashscope.VENDOR.cache_marks,
    limits_thinking=dashscope.VENDOR.limits_thinking,
    failures=(
        # Windows of five hours, a week and a month.
        rule(FailureClass.QUOTA_WINDOW, "429", text=r"^(hour|week|month) allocated quota exceeded"),
        *dashscope.VENDOR.failures,
    ),
)
