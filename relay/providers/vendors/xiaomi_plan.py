"""Xiaomi MiMo's token plan, whose keys are its own: its address in Singapore. Others are `token-plan-ams` and `-cn`.

Source: platform.xiaomimimo.com/docs, and the addresses that models.dev has for the plan, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.vendor import Vendor
from relay.providers.vendors import xiaomi

VENDOR: Final = Vendor(
    key="xiaomi_plan",
    label="Xiaomi MiMo Token Plan",
    position=181,
    base_url="https://token-plan-sgp.xiaomimimo.com/v1",
    apis=xiaomi.VENDOR.apis,
    paths=xiaomi.VENDOR.paths,
    failures=xiaomi.VENDOR.failures,
)
