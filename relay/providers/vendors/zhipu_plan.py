"""The coding plan of Z.ai and Zhipu (GLM), whose keys are its own: its address outside China.

Source: Z.ai's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor
from relay.providers.vendors import zhipu

VENDOR: Final = Vendor(
    key="zhipu_plan",
    label="Z.ai Coding Plan (GLM)",
    position=91,
    base_url="https://api.z.ai/api/coding/paas/v4",
    apis=CHAT | {"responses"},
    paths={"responses": "/../../../v1/responses"},
    parameters=zhipu.VENDOR.parameters,
    failures=zhipu.VENDOR.failures,
    price_list="zai",
)
