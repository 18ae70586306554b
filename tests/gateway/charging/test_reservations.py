"""Money held for running requests: nobody spends what they do not have, and nothing stays held."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

import httpx
import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.lines import Charged, Reserved, ReserveOrder
from relay.errors import InsufficientQuota
from relay.gateway.background import BackgroundRequest
from relay.gateway.charging import reservations as module
from relay.models import Budget, LedgerAccount, Token, UsageRecord
from relay.models.token import digest_of
from tests.gateway.attempts import CALLER, new_exchange
from tests.support.asserts import until
from tests.support.money import COST, PRICE, at_once, books_balance, settled, wallet
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion, hello

pytestmark = pytest.mark.shared


def test_an_empty_wallet_is_refused_with_what_is_missing(live: Portal, server: Server) -> None:
    user = live.user(balance=0)
    model = live.model(price=PRICE)
    response = server.post(live.token(user), ask(model, max_tokens=1000))
    assert response.status_code == 429
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota") and response.headers[
        "x-should-retry"
    ] == "false"
    assert (
        "$0.00 is left" in error["message"]
        and "is missing" in error["message"]
        and "up to $0.01 for the longest answer" in error["message"]
    )
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
    assert refused.status_code == 429 and "budget of this month of this account" in refused.json()["error"]["message"]
    Budget.objects.get(user=user).delete()
    for _ in range(2):
        assert server.post(secret, ask(model, max_tokens=7)).status_code == 200
    refused = server.post(secret, ask(model, max_tokens=7))
    assert refused.status_code == 429 and "budget of this day of this token" in refused.json()["error"]["message"]
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


_THOUGHTS = {"prompt_tokens": 9, "completion_tokens": 3000, "completion_tokens_details": {"reasoning_tokens": 2990}}


@pytest.mark.parametrize(
    ("vendor", "more"), [("siliconflow", {}), ("vllm", {"thinking": {"type": "enabled", "budget_tokens": 3000}})]
)
def test_thirty_at_once_that_think_longer_than_their_limit(
    live: Portal, server: Server, vendor: str, more: dict[str, Any]
) -> None:
    """One of them at most is not covered: the last that found something left."""

    async def thinks(call: Call) -> None:
        await call.reply(200, completion("short", usage={**_THOUGHTS, "total_tokens": 3009}))

    cost = 9 * 2500 + 3000 * 10_000
    user = live.user(balance=4 * cost)
    model = live.model(thinks, channels=[live.channel(provider=vendor)], price=PRICE, max_output_tokens=3000)
    token = live.token(user)
    server.catch_up()
    statuses = at_once(server, token, ask(model, max_tokens=16, **more), 30)
    assert 3 <= statuses.count(200) <= 5 and set(statuses) <= {200, 429}
    found = settled(user)
    assert 0 <= statuses.count(200) * cost - found.used < cost and found.balance >= 0
    books_balance()


def test_a_burst_does_not_leave_much_held_back(live: Portal, server: Server) -> None:
    """What a worker holds beyond what runs is a few requests' worth, whatever came before; other workers can use the
    rest.
    """
    go = asyncio.Event()

    async def waits(call: Call) -> None:
        await go.wait()
        await hello(call)

    user = live.user(balance=10**15)
    model, running = live.model(price=PRICE), live.model(waits, price=PRICE)
    token = live.token(user)
    server.catch_up()
    need = 1010 * 10_000
    with ThreadPoolExecutor(1) as pool:  # while one runs, nothing is given back only because nobody uses it
        last = pool.submit(server.post, token, ask(running, max_tokens=1000))
        until(lambda: live.upstream.count(running))
        assert at_once(server, token, ask(model, max_tokens=1000), 150) == [200] * 150
        until(lambda: need <= wallet(user).reserved <= 5 * 16 * need)
        live.upstream.set(go)
        assert last.result().status_code == 200
    assert settled(user).reserved == 0
    books_balance()


def test_an_answer_longer_than_foreseen_is_never_paid_below_zero(live: Portal, server: Server) -> None:
    """The upstream ignores the limit and makes twenty thousand tokens: the wallet ends at zero, the rest is on the
    portal's account.
    """

    async def greedy(call: Call) -> None:
        usage = {"prompt_tokens": 9, "completion_tokens": 20_000, "total_tokens": 20_009}
        await call.reply(200, completion("word " * 20_000, usage=usage))

    user = live.user(balance=5_000_000)
    model = live.model(greedy, price=PRICE)
    record = live.record(server.post(live.token(user), ask(model, max_tokens=100)))
    assert record.cost == 9 * 2500 + 20_000 * 10_000 and record.shortfall == record.cost - 5_000_000
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
    live.upstream.wait_closed(model)
    record = live.record(response)
    assert record.end_reason == "ended" and record.billing == "delivered" and 4000 < record.output_tokens < 6500
    found = settled(user)
    assert 0 <= found.balance < 10_000_000
    books_balance()


def test_a_long_stream_is_paid_while_it_runs(live: Portal, server: Server) -> None:
    """Longer than what is held at first: more is held as it grows, and it comes whole."""

    half = threading.Event()  # the client has the first part, so that the portal has counted it before the rest comes

    async def long(call: Call) -> None:
        await call.open_stream()
        for number in range(60):
            await call.event(chunk("word " * 200))
            if number == 40:
                await asyncio.to_thread(half.wait, 60)
        await call.event(
            {**chunk(None, "stop"), "usage": {"prompt_tokens": 9, "completion_tokens": 12_000, "total_tokens": 12_009}}
        )
        await call.event("[DONE]")
        await call.end()

    user = live.user(balance=NANO)
    token, model = live.token(user), live.model(long, price=PRICE)
    server.catch_up()
    headers, text = {"authorization": f"Bearer {token}"}, b""
    with httpx.stream(
        "POST",
        f"{server.v1}/chat/completions",
        json=ask(model, stream=True),
        headers=headers,
        trust_env=False,
        timeout=60,
    ) as response:
        for piece in response.iter_raw():
            text += piece
            if text.count(b"data: ") >= 41:
                half.set()
    assert text.endswith(b"data: [DONE]\n\n")
    record = live.record(response)
    assert record.cost == 9 * 2500 + 12_000 * 10_000 and record.shortfall == 0 and record.reserved > 2 * 4096 * 10_000
    assert settled(user).used == record.cost
    books_balance()


def test_parallel_changes_of_a_wallet_add_up(live: Portal, server: Server) -> None:
    """Requests, top-ups and deductions at the same time."""
    user = live.user(balance=100 * NANO)  # all sixty may be held at once
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
    assert (found.granted, found.used) == (100 * NANO, 60 * COST)
    assert UsageRecord.objects.filter(user=user).count() == 60
    books_balance()


async def test_a_request_cancelled_as_it_is_given_money_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from relay.gateway.exchange.exchange import Exchange

    released: list[int | None] = []

    class Cancelling:
        faults = 0

        def admit_user(self, user_id: int) -> None:
            """Nobody's rows are locked."""

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

    monkeypatch.setattr(module, "writer", Cancelling())
    reservations = module.Reservations("UTC")
    exchange = Exchange({"headers": []}, None, None, "127.0.0.1")  # type: ignore[arg-type]
    caller: Any = SimpleNamespace(user_id=1, token_id=2, limited=True, house=False, budgets=())
    task = asyncio.ensure_future(reservations.reserve(exchange, caller, 1000, 10))
    with pytest.raises(asyncio.CancelledError):
        await task
    (reservation,) = reservations._reservations.values()
    assert (reservation.granted, reservation.running, reservation.pending_orders, reservation.amount) == (
        0,
        0,
        0,
        0,
    ) and released == [1000]


# -- without a database ------------------------------------------------------------------------------------------------


class Writer:
    """In the place of the writer: grants what `balance` has, and notes what is given back."""

    def __init__(self) -> None:
        self.faults = 0
        self.balance, self.tight = 10**9, False
        self.held = 0  # by requests of others
        self.orders: list[ReserveOrder] = []
        self.released: list[int | None] = []
        self.prolonged: list[str] = []
        self.slow = False  # answers wait in `answers` until the test calls them
        self.answers: list[Callable[[], None]] = []

    def admit_user(self, user_id: int) -> None:
        """Nobody's rows are locked."""

    def reserve(self, order: ReserveOrder, on_reserved: Any) -> asyncio.Future[Reserved]:
        self.orders.append(order)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reserved] = loop.create_future()

        def answer() -> None:
            amount = order.need if self.tight else order.need + order.headroom
            amount = min(amount, self.balance) if self.balance >= order.minimum else 0
            self.balance -= amount
            wanted, result = (
                not future.done(),
                Reserved(amount, self.balance, self.balance + self.held, "wallet", "", self.tight),
            )
            on_reserved(result, wanted)
            if wanted:
                future.set_result(result)

        if self.slow:
            self.answers.append(answer)
        else:
            loop.call_soon(answer)
        return future

    def release(self, reservation: str, scope: Any, amount: int | None = None) -> None:
        self.released.append(amount)

    def prolong(self, owner: str) -> None:
        self.prolonged.append(owner)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Writer:
    found = Writer()
    monkeypatch.setattr(module, "writer", found)
    return found


LIMITED = replace(CALLER, limited=True, house=False)


async def test_a_charge_beyond_what_was_granted_is_covered_by_what_the_worker_holds_spare(fake: Writer) -> None:
    reservations = module.Reservations("UTC")
    grant = await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    assert (grant.amount, grant.reservation and grant.reservation.spare) == (1000, 16_000)
    settlement = grant.settlement("req_1", 1500, 0.0)
    assert settlement is not None and (settlement.charge.cost, settlement.charge.covered) == (1500, 1500)
    settlement.on_settled(Charged(1500, 0))
    assert grant.reservation is not None
    assert (grant.reservation.amount, grant.reservation.granted, grant.reservation.running) == (15_500, 0, 0)
    assert grant.settlement("req_1", 1500, 0.0) is None, "once"


async def test_headroom_is_what_is_missing_of_it(fake: Writer) -> None:
    reservations = module.Reservations("UTC")
    await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    assert len(fake.orders) == 1, "the second is paid from what is there"
    await reservations.reserve(new_exchange(), LIMITED, 20_000, 10)
    assert (fake.orders[1].need, fake.orders[1].headroom) == (20_000, 16 * 20_000 - 15_000)


async def test_what_comes_for_a_request_that_has_gone_is_given_back_at_once(fake: Writer) -> None:
    fake.tight = fake.slow = True
    reservations = module.Reservations("UTC")
    task = asyncio.ensure_future(reservations.reserve(new_exchange(), LIMITED, 1000, 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (answer,) = fake.answers
    answer()
    (reservation,) = reservations._reservations.values()
    assert reservation.idle and reservation.amount == 0 and fake.released == [1000]


async def test_a_charge_that_could_not_be_written_ends_its_reservation_when_nothing_runs_on_it_any_more(
    fake: Writer,
) -> None:
    reservations = module.Reservations("UTC")
    first = await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    second = await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    settlement = first.settlement("req_1", 400, 0.0)
    assert settlement is not None
    settlement.on_settled(None)
    assert not fake.released, "the other request is paid from it"
    third = await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    assert third.reservation is not second.reservation, "nobody else is"
    second.drop()
    assert fake.released == [None]


async def test_after_a_fault_of_the_database_reservations_go_on_under_another_name(fake: Writer) -> None:
    """Those of requests that still run are kept alive under the old one."""
    reservations = module.Reservations("UTC")
    running = await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    before = reservations.owner
    fake.faults += 1
    reservations.tidy()
    after = await reservations.reserve(new_exchange(), LIMITED, 1000, 10)
    assert after.reservation is not running.reservation and fake.orders[-1].owner == reservations.owner != before
    reservations._prolong_at = 0.0
    reservations.tidy()
    assert sorted(fake.prolonged) == sorted((before, reservations.owner))
    running.drop()
    reservations._prolong_at = 0.0
    reservations.tidy()
    assert fake.prolonged[2:] == [reservations.owner]


class _Line(BackgroundRequest):
    __slots__ = ()
    waits_for_money: ClassVar[bool] = False


async def test_a_line_of_a_batch_waits_elsewhere_for_money_that_is_held(fake: Writer) -> None:
    """It is neither clamped while others only hold the money, nor does it wait here."""
    reservations, fake.tight = module.Reservations("UTC"), True
    for balance, held, need, minimum, retry in (
        (500, 5_000, 1_000, 10, True),
        (500, 300, 1_000, 10, True),  # it would be cut to a half, and later to less
        (5, 100, 1_000, 60, True),  # not even a short answer, while others run
        (5, 0, 1_000, 60, False),
    ):
        fake.balance, fake.held = balance, held
        with pytest.raises(InsufficientQuota) as caught:
            await reservations.reserve(_Line(LIMITED, b""), LIMITED, need, minimum)
        assert caught.value.retry is retry and caught.value.renewed_at is None
    fake.balance, fake.held = 500, 0
    assert (await reservations.reserve(_Line(LIMITED, b""), LIMITED, 1_000, 10)).amount == 500, "the end of a balance"


def test_a_refusal_tells_money_that_is_held_back_for_others_from_money_that_is_missing() -> None:
    held = module.quota_error(Reserved(0, 100, 5000, "wallet", "", True), 1000, 10)
    assert "held back" in held.message and (held.retry, held.retry_after) == (True, 2)
    gone = module.quota_error(Reserved(0, 100, 500, "budget", "day", True), 1000, 600)
    assert "budget of this day of this account" in gone.message and "the administrator can raise it" in gone.message
    assert (gone.retry, gone.retry_after) == (False, None)
    own = module.quota_error(Reserved(0, 100, 500, "budget", "day", True, True), 1000, 600).message
    assert "budget of this day of this token" in own and "the token's owner can raise it" in own
