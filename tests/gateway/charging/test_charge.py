"""Money over the wire: what requests cost, what is refused, and that the books balance whatever happens."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.verify import verify
from relay.models import Budget, LedgerAccount, LedgerEntry, Token, UsageRecord
from relay.models.token import digest_of
from tests.conftest import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion

PRICE = {"input": Decimal("2.5"), "cached_input": Decimal("1.25"), "output": Decimal(10)}
# The scripted upstream reports 9 prompt tokens (4 cached, 1 audio) and 7 of answer (3 reasoning, 2 audio).
COST = 4 * 1250 + 5 * 2500 + 7 * 10_000


def wallet(user: Any) -> LedgerAccount:
    return LedgerAccount.objects.get(user=user, kind="wallet")


def settled(user: Any, seconds: float = 5) -> LedgerAccount:
    """The wallet once nothing of it is reserved any more."""
    until = time.monotonic() + seconds
    while (found := wallet(user)).reserved and time.monotonic() < until:
        time.sleep(0.05)
    return found


def books_balance() -> None:
    report = verify()
    assert report.clean, "\n".join(map(str, report.differences))


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


def test_an_empty_wallet_is_refused_with_what_is_missing(live: Portal, server: Server) -> None:
    user = live.user(balance=0)
    model = live.model(price=PRICE)
    response = server.post(live.token(user), ask(model, max_tokens=1000))
    assert response.status_code == 429
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota") and response.headers["x-should-retry"] == "false"
    assert "$0.00 is left" in error["message"] and "is missing" in error["message"] and "up to $0.01 for the longest answer" in error["message"]
    assert not live.upstream.count(model)


def test_a_free_model_needs_no_balance(live: Portal, server: Server) -> None:
    assert server.post(live.token(live.user(balance=0)), ask(live.model())).status_code == 200


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", None])
def test_an_answer_is_clamped_to_what_can_be_paid(live: Portal, server: Server, field: str | None) -> None:
    """1000 tokens do not fit; what fits is asked for, in the client's own field."""
    user = live.user(balance=3_000_000)  # 300 tokens of answer
    model = live.model(price=PRICE)
    response = server.post(live.token(user), ask(model, **({field: 1000} if field else {})))
    assert response.status_code == 200, response.text
    sent = live.upstream.last(model).json
    assert 250 <= sent[field or "max_completion_tokens"] < 300
    assert live.record(response).shortfall == 0
    assert settled(user).balance == 3_000_000 - COST
    books_balance()


def test_what_fits_is_not_touched(live: Portal, server: Server) -> None:
    user = live.user(balance=NANO)
    model = live.model(price=PRICE)
    body = json.dumps(ask(model, max_tokens=1000)).encode()
    assert server.post(live.token(user), body).status_code == 200
    assert live.upstream.last(model).body == body


def test_a_token_quota_and_budgets_hold_at_the_same_time(live: Portal, server: Server) -> None:
    user = live.user(balance=NANO)
    model = live.model(price=PRICE)
    secret = live.token(user)
    token = Token.objects.get(digest=digest_of(secret))
    movements.set_quota(token, 10 * COST)
    Budget.objects.create(token=token, period="day", limit=Decimal(5 * COST + COST // 2) / NANO)
    Budget.objects.create(user=user, period="month", limit=Decimal(3 * COST + COST // 2) / NANO)
    for _ in range(3):
        assert server.post(secret, ask(model, max_tokens=7)).status_code == 200
    refused = server.post(secret, ask(model, max_tokens=7))
    assert refused.status_code == 429 and "budget of this month" in refused.json()["error"]["message"]
    Budget.objects.get(user=user).delete()
    for _ in range(2):
        assert server.post(secret, ask(model, max_tokens=7)).status_code == 200
    refused = server.post(secret, ask(model, max_tokens=7))
    assert refused.status_code == 429 and "budget of this day" in refused.json()["error"]["message"]
    budget = Budget.objects.get(token=token)
    budget.limit = Decimal(100)
    budget.save()
    movements.set_quota(token, 5 * COST)
    refused = server.post(secret, ask(model, max_tokens=7))
    assert refused.status_code == 429 and "quota of this token" in refused.json()["error"]["message"]
    movements.set_quota(token, None)
    assert server.post(secret, ask(model, max_tokens=7)).status_code == 200
    settled(user)
    books_balance()


def test_a_budget_counts_what_was_spent_before_it_was_made(live: Portal, server: Server) -> None:
    user = live.user()
    model = live.model(price=PRICE)
    secret = live.token(user)
    for _ in range(3):
        assert server.post(secret, ask(model)).status_code == 200
    Budget.objects.create(user=user, period="week", limit=Decimal(2 * COST) / NANO)
    assert server.post(secret, ask(model)).status_code == 429
    assert LedgerAccount.objects.get(user=user, kind="budget").used == 3 * COST
    books_balance()


@pytest.mark.parametrize("stream", [False, True])
def test_two_hundred_at_once_against_money_for_ten(live: Portal, server: Server, stream: bool) -> None:
    user = live.user(balance=10 * COST)
    model = live.model(price=PRICE)
    token = live.token(user)
    server.catch_up()
    statuses = at_once(server, token, ask(model, max_tokens=7, stream=stream), 200)
    assert 1 <= statuses.count(200) <= 10 and set(statuses) <= {200, 429}
    found = settled(user)
    assert found.balance >= 0 and found.used == COST * statuses.count(200)
    books_balance()


def test_a_burst_does_not_leave_much_held_back(live: Portal, server: Server) -> None:
    """What a worker holds beyond what runs is a few requests' worth, whatever came before; other workers can use the rest."""
    user = live.user(balance=10**15)
    model = live.model(price=PRICE)
    token = live.token(user)
    server.catch_up()
    assert at_once(server, token, ask(model, max_tokens=1000), 150) == [200] * 150
    need = 1010 * 10_000
    until = time.monotonic() + 0.8
    while (held := wallet(user).reserved) > 5 * 16 * need and time.monotonic() < until:
        time.sleep(0.02)
    assert 0 < held <= 5 * 16 * need, held / need
    assert settled(user).reserved == 0
    books_balance()


def at_once(server: Server, token: str, body: dict[str, Any], count: int) -> list[int]:
    async def run() -> list[int]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False, headers={"authorization": f"Bearer {token}"}) as client:
            answers = await asyncio.gather(*(client.post(f"{server.v1}/chat/completions", json=body) for _ in range(count)))
        return [answer.status_code for answer in answers]

    return asyncio.run(run())


def test_an_answer_longer_than_foreseen_is_never_paid_below_zero(live: Portal, server: Server) -> None:
    """The upstream ignores the limit and reports a million tokens: the wallet ends at zero, the rest is on the portal's account."""

    async def greedy(call: Call) -> None:
        await call.reply(200, completion(usage={"prompt_tokens": 9, "completion_tokens": 1_000_000, "total_tokens": 1_000_009}))

    user = live.user(balance=5_000_000)
    model = live.model(greedy, price=PRICE)
    record = live.record(server.post(live.token(user), ask(model, max_tokens=100)))
    assert record.cost == 9 * 2500 + 1_000_000 * 10_000 and record.shortfall == record.cost - 5_000_000
    assert settled(user).balance == 0
    books_balance()


def test_a_stream_is_cut_when_the_money_is_spent(live: Portal, server: Server) -> None:
    async def endless(call: Call) -> None:
        await call.open_stream()
        while True:
            await call.event(chunk("word " * 200))
            await asyncio.sleep(0.002)

    user = live.user(balance=50_000_000)  # 5,000 tokens of answer
    model = live.model(endless, price=PRICE)
    response = server.post(live.token(user), ask(model, stream=True))
    events = [line for line in response.text.split("\n\n") if line]
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error["code"] == "insufficient_quota" and "cut off" in error["message"] and "[DONE]" not in response.text
    assert live.upstream.last_closed(model, 2)
    record = live.record(response)
    assert record.end_reason == "ended" and record.billing == "delivered" and 4000 < record.output_tokens < 6500
    found = settled(user)
    assert 0 <= found.balance < 10_000_000
    books_balance()


def test_a_long_stream_is_paid_while_it_runs(live: Portal, server: Server) -> None:
    """Longer than what is held at first: more is held as it grows, and it comes whole."""

    async def long(call: Call) -> None:
        await call.open_stream()
        for _ in range(60):
            await call.event(chunk("word " * 200))
        await call.event({**chunk(None, "stop"), "usage": {"prompt_tokens": 9, "completion_tokens": 12_000, "total_tokens": 12_009}})
        await call.event("[DONE]")
        await call.end()

    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(long, price=PRICE), stream=True))
    assert response.text.endswith("data: [DONE]\n\n")
    record = live.record(response)
    assert record.cost == 9 * 2500 + 12_000 * 10_000 and record.shortfall == 0 and record.reserved > 2 * 4096 * 10_000
    assert settled(user).used == record.cost
    books_balance()


@pytest.mark.parametrize(("policy", "billing"), [("delivered", "delivered"), ("free", "free"), ("reserved", "reserved")])
def test_who_leaves_pays_by_the_channels_policy(live: Portal, server: Server, policy: str, billing: str) -> None:
    async def slow(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello there, this is some text."))
        await asyncio.sleep(30)

    user = live.user(balance=NANO)
    model = live.model(slow, price=PRICE, disconnect_policy=policy)
    token = live.token(user)
    server.catch_up()
    with httpx.stream("POST", f"{server.v1}/chat/completions", json=ask(model, stream=True), headers={"authorization": f"Bearer {token}"}, trust_env=False) as response:
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
        {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": -(2**62), "completion_tokens_details": {"reasoning_tokens": -3}},
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


@pytest.mark.parametrize("body", [{"n": 2**63}, {"n": -1}, {"max_tokens": -1}, {"max_tokens": 2**63}, {"max_tokens": 1e300}, {"max_completion_tokens": 0}, {"max_tokens": "NaN"}])
def test_absurd_requests_never_credit_anybody(live: Portal, server: Server, body: Any) -> None:
    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(price=PRICE), **body))
    assert response.status_code in {200, 400}
    assert settled(user).balance <= NANO
    books_balance()


def test_nan_in_a_usage_object_is_estimated(live: Portal, server: Server) -> None:
    async def nan(call: Call) -> None:
        await call.reply(200, json.dumps(completion(usage={"prompt_tokens": float("nan"), "completion_tokens": 5})).encode())

    response = server.post(live.token(live.user(balance=NANO)), ask(live.model(nan, price=PRICE)))
    assert response.status_code in {200, 502}
    books_balance()


def test_parallel_changes_of_a_wallet_add_up(live: Portal, server: Server) -> None:
    """Requests, top-ups and deductions at the same time."""
    user = live.user(balance=NANO)
    model = live.model(price=PRICE)
    token = live.token(user)
    server.catch_up()

    def move(number: int) -> None:
        from django.db import connection

        try:
            if number % 2:
                movements.top_up(user, 1000, actor=None, reason="test")
            else:
                movements.deduct(user, 1000, actor=None, reason="test")
        finally:
            connection.close()

    done: list[int] = []
    requests = threading.Thread(target=lambda: done.extend(at_once(server, token, ask(model), 60)))
    requests.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(move, range(40)))
    requests.join()
    assert done == [200] * 60
    found = settled(user)
    assert (found.granted, found.used) == (NANO, 60 * COST)
    assert UsageRecord.objects.filter(user=user).count() == 60
    books_balance()


def test_a_commit_of_unknown_outcome_is_not_charged_twice(live: Portal) -> None:
    """The connection broke while a transaction was committed: it is looked up before it is written again."""
    from relay.billing.ledger.lines import Charge, SpendScope
    from relay.billing.ledger.writer import COLUMNS, ReserveOrder, Settlement, UsageWriter, _Record, _Reserve

    user = live.user(balance=NANO)
    token = Token.objects.get(digest=digest_of(live.token(user)))
    scope, writer, loop = SpendScope(user.pk, token.pk, movements.today()), UsageWriter(), asyncio.new_event_loop()
    reservation, request_id = live.name("hold"), live.name("req_unknown")
    writer._commit([_Reserve(ReserveOrder(reservation, "o", scope, (), 1000, 0, 1000), loop.create_future(), loop, lambda result, wanted: None)], False)
    values: dict[str, Any] = {
        "request_id": request_id, "started_at": time.time(), "user_id": user.pk, "token_id": token.pk, "model": "m", "endpoint": "e", "streamed": False, "status": 200,
        "end_reason": "completed", "usage_source": "reported", "cost": 400, "attempt_log": "[]", "price_multiplier": 1_000_000, "payer": "wallet", "billing": "usage",
    }  # fmt: skip
    text = {"client_request_id", "upstream_model", "error_code", "error_message", "client_ip"}
    row = tuple(values.get(name, "" if name in text else None if name.endswith("_id") else 0) for name in COLUMNS)
    record = _Record(row, Settlement(reservation, scope, Charge(request_id, 400, 1000, False, time.time()), lambda charged: None), None, loop)
    from django.db import connection

    if connection.vendor == "sqlite":
        assert connection.cursor().execute("PRAGMA synchronous").fetchone()[0] == 2, "records are synced to the disk, though reservations need not be"
    writer._commit([record], False)
    writer._commit([record], True)
    requests.sweep(time.time() + 1000)
    loop.close()
    assert (wallet(user).used, wallet(user).reserved) == (400, 0)
    books_balance()


async def test_a_request_cancelled_as_it_is_given_money_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from relay.billing.ledger.lines import Reserved
    from relay.gateway.charging import reservations as module
    from relay.gateway.exchange import Exchange

    released: list[int | None] = []

    class Writer:
        faults = 0

        def reserve(self, order: Any, on_reserved: Any) -> Any:
            loop, result = asyncio.get_running_loop(), Reserved(order.need, 0, order.need, "wallet", "", True)
            future = loop.create_future()

            def answer() -> None:
                on_reserved(result, True)
                future.set_result(result)
                task.cancel()

            loop.call_soon(answer)
            return future

        def release(self, reservation: str, scope: Any, amount: int | None = None) -> None:
            released.append(amount)

    monkeypatch.setattr(module, "writer", Writer())
    reservations = module.Reservations("UTC")
    exchange = Exchange({"headers": []}, None, None, "127.0.0.1")  # type: ignore[arg-type]
    caller: Any = SimpleNamespace(user_id=1, token_id=2, limited=True, house=False, budgets=())
    task = asyncio.ensure_future(reservations.reserve(exchange, caller, 1000, 10))
    with pytest.raises(asyncio.CancelledError):
        await task
    (reservation,) = reservations._reservations.values()
    assert (reservation.granted, reservation.running, reservation.asking, reservation.amount) == (0, 0, 0, 0) and released == [1000]
