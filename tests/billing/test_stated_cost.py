"""What upstreams say that requests cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.billing.stated_cost import reported_cost


@pytest.mark.parametrize(
    ("member", "usage", "nano"),
    [
        ("cost_in_usd_ticks", {"cost_in_usd_ticks": 37_756_000}, 3_775_600),  # docs.x.ai: 0.0037756 USD
        ("cost_in_usd_ticks", {"cost_in_usd_ticks": 1}, 1),
        ("cost", {"cost": 0.00014}, 140_000),
        ("cost", {"cost": 0}, 0),
        ("cost", {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, 21_000_000),
        ("cost", {"cost": 0.001, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}}, 1_000_000),
        ("cost.total_cost", {"cost": {"total_cost": 0.5}}, 500_000_000),
        ("cost", {"cost": {"total_cost": 0.5}}, None),
        ("cost", {"cost": -1}, None),
        ("cost", {"cost": 1e300}, None),
        ("cost", {"cost": "0.1"}, None),
        ("cost", {"cost": True}, None),
        ("cost", {}, None),
        ("", {"cost": 1}, None),
    ],
)
def test_what_a_vendor_says_that_a_request_costs(member: str, usage: dict[str, Any], nano: int | None) -> None:
    assert reported_cost(json.dumps(usage).encode(), member) == nano
