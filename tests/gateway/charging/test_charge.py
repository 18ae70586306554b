"""What requests cost."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

import httpx
import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.prices import Price
from relay.gateway.charging.charge import fallback_price
from relay.models import LedgerEntry, Token
from relay.models.token import digest_of
from tests.support.money import COST, PRICE, books_balance, settled, wallet
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion

pytestmark = pytest.mark.shared


def test_a_request_costs_its_price_and_is_on_the_books(live: Portal, server: Server) -> None:
    user = live.user(balance=NANO)
    model = live.model(price=PRICE)
    response = server.post(live.token(user), ask(model))
    assert response.status_code == 200, response.text
    assert response.headers["x-relay-cost-usd"] == "0.0000875"
    record = live.record(response)
    assert (record.cost, record.shortfall, record.payer, record.billing) == (COST, 0, "wallet", "usage")
    assert record.upstream_cost == COST and record.price.model.name == model and record.reserved > COST
    found = settled(user)
    assert (found.granted, found.used, found.reserved) == (NANO, COST, 0)
    entry = LedgerEntry.objects.get(request_id=record.request_id)
    assert (entry.kind, entry.debit, entry.credit, entry.amount, entry.held) == ("usage", "held", "revenue", COST, COST)
    books_balance()


def test_group_multiplier_channel_cost_and_overrides(live: Portal, server: Server) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import GroupSettings
    from relay.models import ModelPrice

    user = live.user(balance=NANO)
    group = Group.objects.create(name=live.name("group"))
    GroupSettings.objects.create(group=group, price_multiplier=Decimal("0.5"))
    user.groups.add(group)
    channel = live.channel(cost_multiplier=Decimal("0.8"))
    model = live.model(channels=[channel], price=PRICE)
    token = live.token(user)
    record = live.record(server.post(token, ask(model)))
    assert (record.cost, record.upstream_cost, record.price_multiplier) == (COST // 2, COST * 8 // 10, 500_000)
    row = ModelPrice.objects.get(model__name=model)
    ModelPrice.objects.create(model=row.model, channel=channel, purpose="cost", input=1, output=1)
    ModelPrice.objects.create(model=row.model, channel=channel, purpose="sale", input=0, output=Decimal(100))
    record = live.record(server.post(token, ask(model)))
    assert (record.cost, record.upstream_cost) == (7 * 100_000 // 2, 16_000)
    books_balance()


def test_unlimited_users_are_billed_to_the_house(live: Portal, server: Server) -> None:
    user = live.user()
    record = live.record(server.post(live.token(user), ask(live.model(price=PRICE))))
    assert (record.cost, record.payer) == (COST, "house")
    found = wallet(user)
    assert (found.balance, found.used, found.limited) == (0, COST, False)
    books_balance()


def test_a_model_without_a_price_is_refused(live: Portal, server: Server) -> None:
    response = server.post(live.token(), ask(live.model(price=None)))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "model_not_priced" and response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("policy", "billing"), [("delivered", "delivered"), ("free", "free"), ("reserved", "reserved")]
)
def test_who_leaves_pays_by_the_channels_policy(live: Portal, server: Server, policy: str, billing: str) -> None:
    async def slow(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello there, this is some text."))
        await asyncio.sleep(30)

    user = live.user(balance=NANO)
    model = live.model(slow, price=PRICE, disconnect_policy=policy)
    token = live.token(user)
    server.catch_up()
    with httpx.stream(
        "POST",
        f"{server.v1}/chat/completions",
        json=ask(model, stream=True),
        headers={"authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    ) as response:
        pieces = response.iter_raw()
        next(pieces)
    record = live.record(response)
    assert record.end_reason == "client_gone" and record.billing == billing
    if policy == "free":
        assert record.cost == 0 and record.output_tokens > 0
    elif policy == "reserved":
        assert record.cost == record.reserved > 4096 * 10_000
    else:
        assert record.cost == record.input_tokens * 2500 + record.output_tokens * 10_000 > 0
    assert settled(user).used == record.cost
    books_balance()


async def dead(call: Call) -> None:
    await call.error(500)


async def empty(call: Call) -> None:
    await call.reply(200, b"")


@pytest.mark.parametrize("script", [dead, empty])
def test_a_failed_request_costs_nothing_and_holds_nothing(live: Portal, server: Server, script: Any) -> None:
    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(script, price=PRICE)))
    assert response.status_code == 502
    record = live.record(response)
    assert (record.cost, record.billing) == (0, "nothing")
    found = settled(user)
    assert (found.used, found.reserved) == (0, 0)
    books_balance()


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": -7},
        {"prompt_tokens": 2**63, "completion_tokens": 10**30},
        {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 10_000}},
        {"prompt_tokens": "many", "completion_tokens": None},
        {"prompt_tokens": 1e308, "completion_tokens": True},
        {
            "prompt_tokens": 9,
            "completion_tokens": 7,
            "total_tokens": -(2**62),
            "completion_tokens_details": {"reasoning_tokens": -3},
        },
    ],
)
def test_absurd_usage_never_credits_anybody(live: Portal, server: Server, usage: Any) -> None:
    async def absurd(call: Call) -> None:
        await call.reply(200, completion(usage=usage))

    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(absurd, price=PRICE)))
    assert response.status_code == 200
    record = live.record(response)
    assert record.cost >= 0 and settled(user).balance <= NANO
    books_balance()


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2**63},
        {"n": -1},
        {"max_tokens": -1},
        {"max_tokens": 2**63},
        {"max_tokens": 1e300},
        {"max_completion_tokens": 0},
        {"max_tokens": "NaN"},
    ],
)
def test_absurd_requests_never_credit_anybody(live: Portal, server: Server, body: Any) -> None:
    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(price=PRICE), **body))
    assert response.status_code in {200, 400}
    assert settled(user).balance <= NANO
    books_balance()


def test_nan_in_a_usage_object_is_estimated(live: Portal, server: Server) -> None:
    async def nan(call: Call) -> None:
        await call.reply(
            200, json.dumps(completion(usage={"prompt_tokens": float("nan"), "completion_tokens": 5})).encode()
        )

    response = server.post(live.token(live.user(balance=NANO)), ask(live.model(nan, price=PRICE)))
    assert response.status_code in {200, 502}
    books_balance()


def test_a_commit_of_unknown_outcome_is_not_charged_twice(live: Portal) -> None:
    """The connection broke while a transaction was committed: it is looked up before it is written again."""
    from relay.billing.ledger.lines import Charge, ReserveOrder, SpendScope
    from relay.billing.ledger.pending import COLUMNS, PendingRecord, PendingReservation, Settlement
    from relay.billing.ledger.writer import UsageWriter

    user = live.user(balance=NANO)
    token = Token.objects.get(digest=digest_of(live.token(user)))
    scope, writer, loop = SpendScope(user.pk, token.pk, movements.today()), UsageWriter(), asyncio.new_event_loop()
    reservation, request_id = live.name("hold"), live.name("req_unknown")
    writer._commit(
        [
            PendingReservation(
                ReserveOrder(reservation, "o", scope, (), 1000, 0, 1000),
                loop.create_future(),
                loop,
                lambda result, wanted: None,
            )
        ],
        False,
    )
    values: dict[str, Any] = {
        "request_id": request_id,
        "started_at": time.time(),
        "user_id": user.pk,
        "token_id": token.pk,
        "model": "m",
        "endpoint": "e",
        "streamed": False,
        "status": 200,
        "end_reason": "completed",
        "usage_source": "reported",
        "cost": 400,
        "attempt_log": "[]",
        "price_multiplier": 1_000_000,
        "payer": "wallet",
        "billing": "usage",
    }
    text = {"client_request_id", "upstream_model", "error_code", "error_message", "client_ip"}
    row = tuple(values.get(name, "" if name in text else None if name.endswith("_id") else 0) for name in COLUMNS)
    record = PendingRecord(
        row,
        Settlement(reservation, scope, Charge(request_id, 400, 1000, False, time.time()), lambda charged: None),
        None,
        loop,
    )
    from django.db import connection

    if connection.vendor == "sqlite":
        assert connection.cursor().execute("PRAGMA synchronous").fetchone()[0] == 2, (
            "records are synced to the disk, though reservations need not be"
        )
    writer._commit([record], False)
    writer._commit([record], True)
    requests.release_expired(time.time() + 1000)
    loop.close()
    assert (wallet(user).used, wallet(user).reserved) == (400, 0)
    books_balance()


M = 1_000_000_000  # nano-USD in a USD: a price of 1 USD per 1M tokens


def test_fallback_price() -> None:
    assert fallback_price("refuse") is None
    assert fallback_price("free") == Price()
    assert fallback_price("5/15") == Price(input=5 * M, output=15 * M)
