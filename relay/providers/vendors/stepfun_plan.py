"""StepFun's coding plan, whose keys are its own.

Source: StepFun's error codes, and the address that models.dev has for its plan, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor
from relay.providers.vendors import stepfun

VENDOR: Final = Vendor(
    key="stepfun_plan",
    label="StepFun Step Plan",
    position=171,
    base_url="https://api.stepfun.ai/step_plan/v1",
    apis=CHAT,
    failures=stepfun.VENDOR.failures,
)
