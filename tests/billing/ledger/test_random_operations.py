"""Random operations on money, in one process: after every step the books balance and no wallet is below zero."""

from __future__ import annotations

import os
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.verify import verify
from relay.billing.ledger.writer import UsageWriter, writer
from relay.billing.redemption import create_codes, find_code
from relay.models import Budget, LedgerAccount, ModelPrice, RedemptionBatch, Token
from relay.models.token import digest_of
from tests.support.load.in_process import World
from tests.support.portal import Portal

pytestmark = pytest.mark.shared

OPERATIONS = int(os.environ.get("BOOKS_OPERATIONS", "1000"))
AT_ONCE = 1000  # on one set of books: all of it is verified after each
STEPS = 50

amounts = st.integers(min_value=1, max_value=400_000_000)
people = st.integers(min_value=0, max_value=2)


def machine(world: World, counter: Counter[str]) -> type[RuleBasedStateMachine]:
    class Books(RuleBasedStateMachine):
        @initialize(stream=st.booleans())
        def begin(self, stream: bool) -> None:
            """One request that is paid for: whatever happened before, this user may spend."""
            self.codes: list[str] = []
            movements.set_unlimited(world.users[2], True)
            token = Token.objects.get(digest=digest_of(world.tokens[2]))
            movements.set_quota(token, None)
            for budget in Budget.objects.filter(token=token):
                budget.delete()
            assert world.request(2, "hello", stream, 7)[0] == 200

        def ask(self, person: int, stream: bool, limit: int | None) -> None:
            status, _ = world.request(person, "hello", stream, limit)
            assert status in {200, 429}
            counter[f"hello {status}"] += 1

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
            counter["steps"] += 1
            world.settle()
            report = verify()
            assert report.clean, "\n".join(map(str, report.differences))
            assert not [account for account in LedgerAccount.objects.filter(kind="wallet") if account.balance < 0]

        def teardown(self) -> None:
            RedemptionBatch.objects.filter(name="random").delete()
            world.replace_model("hello")

    return Books


@pytest.mark.parametrize("part", range(-(-OPERATIONS // AT_ONCE)))
@pytest.mark.timeout(2400)
def test_random_operations_leave_the_books_balanced(live: Portal, part: int) -> None:
    operations = min(AT_ONCE, OPERATIONS - part * AT_ONCE)
    assert isinstance(writer, UsageWriter)
    world, counter = World(live), Counter[str]()
    try:
        while counter["steps"] < operations:  # Hypothesis decides how long an example is
            wanted = max(1, (operations - counter["steps"]) // STEPS)
            run_state_machine_as_test(
                machine(world, counter),
                settings=settings(
                    max_examples=wanted,
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
    finally:
        world.close()
    print(f"\n{counter}")
    assert verify().reserved == 0, "after the stop nothing is reserved"
