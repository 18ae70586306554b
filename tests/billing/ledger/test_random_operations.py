"""Random operations on money, in one process: after every step the books balance and no wallet is below zero."""

from __future__ import annotations

import asyncio
import json
import os
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.verify import verify
from relay.billing.ledger.writer import UsageWriter, writer
from relay.billing.redemption import create_codes, find_code
from relay.models import Budget, LedgerAccount, ModelPrice, RedemptionBatch, Token
from relay.models.token import digest_of
from tests.conftest import Portal, ask
from tests.support.upstream import Call, chunk, hello

OPERATIONS = int(os.environ.get("BOOKS_OPERATIONS", "1000"))
STEPS = 50
amounts = st.integers(min_value=1, max_value=400_000_000)
people = st.integers(min_value=0, max_value=2)


async def dead(call: Call) -> None:
    await call.error(500)


async def cut(call: Call) -> None:
    """Fails after the first byte."""
    if not call.json.get("stream"):
        call.cut()
        return
    await call.open_stream()
    await call.event(chunk("Some text that"))
    call.cut()


async def endless(call: Call) -> None:
    if not call.json.get("stream"):
        await asyncio.sleep(5)
    await call.open_stream()
    for _ in range(500):
        await call.event(chunk("word " * 20))
        await asyncio.sleep(0.005)


class World:
    """A portal inside this process: its ASGI application on an event loop of the test's."""

    def __init__(self, live: Portal) -> None:
        self.live = live
        self.loop = asyncio.new_event_loop()
        self.users = [live.user(balance=0), live.user(balance=0), live.user()]
        self.tokens = [live.token(user) for user in self.users]
        price = {"input": Decimal("2.5"), "cached_input": Decimal("1.25"), "output": 10}
        self.models = {name: live.model(script, price=price) for name, script in (("hello", hello), ("dead", dead), ("cut", cut), ("endless", endless))}
        from django.contrib.auth.models import Group

        from accounts.models import GroupSettings

        self.group = GroupSettings.objects.create(group=Group.objects.create(name=live.name("group")))
        for user in self.users:
            user.groups.add(self.group.group)

    def request(self, person: int, model: str, stream: bool, limit: int | None, leave: bool = False) -> tuple[int, bytes]:
        return self.loop.run_until_complete(asyncio.wait_for(self._request(person, model, stream, limit, leave), 30))

    async def _request(self, person: int, model: str, stream: bool, limit: int | None, leave: bool) -> tuple[int, bytes]:
        from portal.asgi import relay
        from relay.gateway.exchange import Interrupt
        from relay.gateway.runtime import runtime

        run = await runtime()
        run.health.live.breaker.circuits.clear()  # this is about money: every channel is asked, whatever it did before
        body = json.dumps(ask(self.models[model], stream=stream, **({"max_tokens": limit} if limit else {}))).encode()
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http",
            "headers": [(b"authorization", b"Bearer " + self.tokens[person].encode())], "http_version": "1.1", "extensions": {},
        }  # fmt: skip
        sent: list[Any] = []
        given = False

        async def receive() -> Any:
            nonlocal given
            if given:
                await asyncio.sleep(60)
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        def go_away() -> None:
            for exchange in list(run.watchdog.running):
                exchange.interrupt(Interrupt.CLIENT_GONE)

        async def send(message: Any) -> None:
            sent.append(message)
            if leave and message["type"] == "http.response.body":
                asyncio.get_running_loop().call_soon(go_away)

        leaving = asyncio.get_running_loop().call_later(0.02 if leave and not stream else 60, go_away)
        await asyncio.wait((asyncio.ensure_future(relay(scope, receive, send)),))
        leaving.cancel()
        status = sent[0]["status"] if sent else 499
        return status, b"".join(message.get("body", b"") for message in sent[1:])

    def crash(self) -> None:
        """The worker dies: what it had not written is lost, nobody gives back what it held; another one takes its place."""
        from relay.gateway.charging.reservations import Reservations
        from relay.gateway.runtime import runtime

        run = self.loop.run_until_complete(runtime())
        abandoned = run.reservations.owner
        run.reservations = Reservations("UTC")
        self.settle()
        assert verify().clean, "after the crash, before the sweep"
        requests.sweep(time.time(), lambda owner: owner == abandoned)

    def settle(self) -> None:
        """Let the writer finish what is queued."""
        until = time.monotonic() + 5
        while writer._pending and time.monotonic() < until:
            self.loop.run_until_complete(asyncio.sleep(0.001))
        self.loop.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        from relay.gateway.runtime import runtime

        run = self.loop.run_until_complete(runtime())
        self.loop.run_until_complete(run.stop())
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()


def machine(world: World, counter: dict[str, int]) -> type[RuleBasedStateMachine]:
    class Books(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.codes: list[str] = []

        def ask(self, person: int, stream: bool, limit: int | None) -> None:
            status, _ = world.request(person, "hello", stream, limit)
            assert status in {200, 429}
            counter[f"hello {status}"] = counter.get(f"hello {status}", 0) + 1

        @rule(person=people, stream=st.booleans(), limit=st.sampled_from([None, 7, 5000]))
        def succeeds(self, person: int, stream: bool, limit: int | None) -> None:
            self.ask(person, stream, limit)

        @rule(person=people, stream=st.booleans(), count=st.integers(min_value=2, max_value=4))
        def succeed_one_after_the_other(self, person: int, stream: bool, count: int) -> None:
            for _ in range(count):
                self.ask(person, stream, 7)

        @rule(person=people, stream=st.booleans())
        def fails_before_the_first_byte(self, person: int, stream: bool) -> None:
            assert world.request(person, "dead", stream, None)[0] in {502, 429}

        @rule(person=people, stream=st.booleans())
        def fails_after_the_first_byte(self, person: int, stream: bool) -> None:
            assert world.request(person, "cut", stream, None)[0] in {200, 502, 429}

        @rule(person=people, stream=st.booleans())
        def is_cancelled(self, person: int, stream: bool) -> None:
            assert world.request(person, "endless", stream, None, leave=True)[0] in {200, 499, 429}

        @rule()
        def crashes(self) -> None:
            world.crash()

        @rule()
        def is_idle(self) -> None:
            from relay.gateway.runtime import runtime

            run = world.loop.run_until_complete(runtime())
            for reservation in run.reservations._reservations.values():
                reservation.used_at -= 10
            run.reservations.tidy()

        @rule(person=people, amount=amounts)
        def tops_up(self, person: int, amount: int) -> None:
            movements.top_up(world.users[person], amount, actor=None, reason="random")

        @rule(person=people, amount=amounts)
        def deducts(self, person: int, amount: int) -> None:
            try:
                movements.deduct(world.users[person], amount, actor=None, reason="random")
            except movements.NotEnough:
                pass

        @rule(person=people, amount=amounts)
        def redeems(self, person: int, amount: int) -> None:
            if not self.codes:
                self.codes = create_codes("random", amount, 2, actor=None)[1]
            code = find_code(self.codes[0])
            assert code is not None
            movements.redeem(code, world.users[person])
            with pytest.raises(movements.NotRedeemable):
                movements.redeem(code, world.users[person])
            del self.codes[0]

        @rule(price=st.integers(min_value=0, max_value=40))
        def changes_the_price(self, price: int) -> None:
            from relay.models import Model

            model = Model.objects.get(name=world.models["hello"])
            ModelPrice.objects.create(model=model, input=price, output=2 * price)

        @rule(multiplier=st.sampled_from(["0", "0.5", "1", "2.25"]))
        def changes_the_group(self, multiplier: str) -> None:
            world.group.price_multiplier = Decimal(multiplier)
            world.group.save()

        @rule(person=people, quota=st.one_of(st.none(), amounts))
        def changes_the_quota(self, person: int, quota: int | None) -> None:
            movements.set_quota(Token.objects.get(digest=digest_of(world.tokens[person])), quota)

        @rule(person=people, unlimited=st.booleans())
        def changes_who_is_unlimited(self, person: int, unlimited: bool) -> None:
            movements.set_unlimited(world.users[person], unlimited)

        @rule(person=people, period=st.sampled_from(["day", "week", "month"]), limit=st.one_of(st.none(), amounts))
        def changes_a_budget(self, person: int, period: str, limit: int | None) -> None:
            token = Token.objects.get(digest=digest_of(world.tokens[person]))
            found = Budget.objects.filter(token=token, period=period).first() or Budget(token=token, period=period)
            if limit is None:
                if found.pk:
                    found.delete()
                return
            found.limit = Decimal(limit) / NANO
            found.save()

        @invariant()
        def the_books_balance(self) -> None:
            counter["steps"] = counter.get("steps", 0) + 1
            world.settle()
            report = verify()
            assert report.clean, "\n".join(map(str, report.differences))
            assert not [account for account in LedgerAccount.objects.filter(kind="wallet") if account.balance < 0]

        def teardown(self) -> None:
            RedemptionBatch.objects.filter(name="random").delete()

    return Books


@pytest.mark.timeout(1200)
def test_random_operations_leave_the_books_balanced(live: Portal) -> None:
    assert isinstance(writer, UsageWriter)
    world, counter = World(live), dict[str, int]()
    try:
        run_state_machine_as_test(
            machine(world, counter),
            settings=settings(max_examples=OPERATIONS // STEPS * 5 // 4, stateful_step_count=STEPS, deadline=None, database=None, suppress_health_check=list(HealthCheck)),
        )
    finally:
        world.close()
    print(f"\n{counter}")
    assert counter["steps"] >= OPERATIONS and counter.get("hello 200", 0) > 0
    assert verify().reserved == 0, "after the stop nothing is reserved"
