"""Receipts and billing endpoints under /v1: owner, other user, staff."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group

from portal.lib.money import NANO
from tests.support.money import PRICE
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def sync_chunks(response: Any) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [chunk async for chunk in response.streaming_content]

    return async_to_sync(collect)()


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
        "cached_audio_input": 0,
        "cache_write": 0,
        "cache_write_1h": 0,
        "output": 7,
        "reasoning": 3,
        "audio_input": 1,
        "audio_output": 2,
        "image_input": 0,
        "searches": 0,
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


def test_a_receipt_is_nobody_elses_but_staffs(live: Portal, server: Server, clean_addresses: Any) -> None:
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


@pytest.mark.parametrize(
    ("role", "amounts", "earnings"),
    [("Operator", False, False), ("Support", True, False), ("Accountant", True, True), ("Owner", True, True)],
)
def test_what_is_earned_is_behind_one_lock_at_every_door(
    live: Portal, server: Server, role: str, amounts: bool, earnings: bool
) -> None:
    answer = server.post(live.token(live.user(balance=NANO)), ask(live.model(price=PRICE)))
    record = live.record(answer)
    person = live.user(is_staff=True)
    person.groups.add(Group.objects.get(name=role))
    token = live.token(person)
    server.catch_up()
    found = server.get(token, f"/v1/usage/{record.request_id}").json()
    assert ("charged_usd" in found, "margin_usd" in found, "upstream_cost_usd" in found) == (
        amounts,
        earnings,
        earnings,
    )
    own = live.record(server.post(live.token(person), ask(live.model(price={"input": 0, "output": 0}))))
    mine = server.get(token, f"/v1/usage/{own.request_id}").json()
    assert "charged_usd" in mine and ("margin_usd" in mine) == earnings
    staff = signed_in(person)
    pages = {
        "report": staff.get("/admin/relay/usagerecord/report/").status_code,
        "books": staff.get("/admin/relay/ledgeraccount/verify/").status_code,
        "proof": staff.post("/admin/relay/ledgeraccount/verify/", {"nothing": 1}).status_code if not earnings else 403,
    }
    assert pages == {"report": 200 if earnings else 403, "books": 200 if earnings else 403, "proof": 403}
    for path in ("/admin/relay/usagerecord/", f"/admin/relay/usagerecord/{record.pk}/change/", "/admin/"):
        assert ("Margin" in staff.get(path).content.decode()) == earnings, path
    export = staff.get("/admin/relay/usagerecord/export/")
    assert export.status_code == (200 if amounts else 403)
    if amounts:
        head = b"".join(sync_chunks(export)).split(b"\r\n")[0]
        assert (b"charged_usd" in head, b"margin_usd" in head, b"upstream_cost_usd" in head) == (
            True,
            earnings,
            earnings,
        )
