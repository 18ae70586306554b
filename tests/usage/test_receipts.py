"""Receipts and billing endpoints under /v1: owner, other user, staff."""

from __future__ import annotations

from decimal import Decimal

import pytest

from portal.lib.money import NANO
from tests.support.money import PRICE
from tests.support.portal import Portal, ask
from tests.support.server import Server

pytestmark = pytest.mark.shared


def test_a_receipt_tells_everything_to_its_owner(live: Portal, server: Server) -> None:
    user = live.user(balance=NANO)
    token = live.token(user)
    answer = server.post(token, ask(live.model(price=PRICE)))
    live.record(answer)
    response = server.get(live.token(user), f"/v1/usage/{answer.headers['x-request-id']}")
    assert response.status_code == 200, "another token of the same user may read it"
    found = response.json()
    assert found["cost_usd"] == found["charged_usd"] == "0.0000875" and found["shortfall_usd"] == "0"
    assert found["usage"] == {
        "input": 9,
        "cached_input": 4,
        "cache_write": 0,
        "output": 7,
        "reasoning": 3,
        "audio_input": 1,
        "audio_output": 2,
        "image_input": 0,
        "source": "reported",
    }
    assert (
        found["price"]["usd"] == {"input": "2.5", "cached_input": "1.25", "output": "10"}
        and found["price_multiplier"] == "1"
    )
    assert (
        found["paid_by"] == "wallet"
        and found["billing"]["basis"] == "usage"
        and Decimal(found["reserved_usd"]) > 0
        and found["attempts"] == 1
    )
    assert [(entry["kind"], entry["from"], entry["to"], entry["amount_usd"]) for entry in found["ledger"]] == [
        ("usage", "held", "revenue", "0.0000875")
    ]
    assert not {"channel", "attempt_log", "upstream_cost_usd", "margin_usd", "upstream_model"} & set(found)


def test_a_receipt_is_nobody_elses_but_staffs(live: Portal, server: Server) -> None:
    answer = server.post(live.token(live.user(balance=NANO)), ask(live.model(price=PRICE)))
    live.record(answer)
    path = f"/v1/usage/{answer.headers['x-request-id']}"
    refused = server.get(live.token(), path)
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "request_not_found"
    assert server.get(live.token(live.user(is_staff=True)), path).status_code == 404, (
        "staff without the right to view usage"
    )
    staff = server.get(live.token(live.user(is_staff=True, is_superuser=True)), path).json()
    assert (
        staff["upstream_cost_usd"] == "0.0000875"
        and staff["margin_usd"] == "0"
        and staff["attempt_log"][0]["outcome"] == "ok"
    )
    assert server.get("sk-wrong", path).status_code == 401
