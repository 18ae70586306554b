"""StepFun.

Source: StepFun's error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="stepfun",
    label="StepFun",
    position=170,
    base_url="https://api.stepfun.com/v1",
    apis=CHAT,
    failures=(rule(FailureClass.CONTENT, "451"),),
)
