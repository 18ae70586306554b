"""How users, tokens and batches share the slots over time, in virtual time: nobody pays for what nobody else wanted,
and nobody waits for what hangs.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable

import pytest

from relay.endpoints.batches.slots import AIR_SECONDS, MOST_IN_AIR, BatchSlots, Slot

MOST = 4
HANGS = 180.0  # until the time for the first byte is over
Who = tuple[int, int, int]  # a user, a token, a batch


class Machine:
    """A worker's slots, and batches that make one request after another in them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.slots = BatchSlots(MOST, lambda: self.now, self.later)
        self.asked: list[tuple[Slot, Who, Callable[[], None]]] = []
        self.answered: Counter[Who] = Counter()
        self.stopped: set[Who] = set()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), what))

    def work(self, who: Who, seconds: float, lines: float = float("inf"), places: int = MOST) -> None:
        """A batch whose requests take so long. It makes so many at once, in places of which each asks anew."""
        left = lines

        def ask() -> None:
            nonlocal left
            if left > 0 and who not in self.stopped:
                left -= 1
                slot = self.slots.ask(*who)
                self.asked.append((slot, who, lambda: self.later(seconds, lambda: end(slot))))
                self.begin()

        def end(slot: Slot) -> None:
            slot.give_back()
            self.answered[who] += 1
            self.begin()
            ask()

        self.stopped.discard(who)
        for _ in range(places):
            ask()

    def begin(self) -> None:
        while ready := [one for one in self.asked if one[0].held]:
            for one in ready:
                self.asked.remove(one)
                one[2]()

    def stop(self, who: Who) -> None:
        """A batch makes no more requests."""
        self.stopped.add(who)
        for one in [one for one in self.asked if one[1] == who]:
            self.asked.remove(one)
            one[0].give_back()

    def run(self, seconds: float) -> Counter[Who]:
        """Go on for so long; returns what was answered meanwhile."""
        before, until = self.answered.copy(), self.now + seconds
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
            self.begin()
        self.now = until
        return self.answered - before


@pytest.mark.parametrize("idle", [60.0, 0.0])
@pytest.mark.parametrize(
    ("first", "second"),
    [((1, 1, 1), (2, 2, 2)), ((1, 1, 1), (1, 2, 2)), ((1, 1, 1), (1, 1, 2))],
    ids=["users", "tokens", "batches"],
)
async def test_nobody_pays_later_for_slots_that_nobody_else_wanted(first: Who, second: Who, idle: float) -> None:
    machine = Machine()
    machine.work(first, 10.0)
    assert machine.run(2_000.0)[first] >= 790
    if idle:
        machine.stop(first)
        machine.run(idle)
        machine.work(second, 10.0)
        machine.run(1.0)
        machine.work(first, 10.0)
    else:
        machine.work(second, 10.0)
    for _ in range(2):
        found = machine.run(300.0)
        assert 0.8 < found[first] / found[second] < 1.25


async def test_what_somebody_did_not_want_is_not_owed() -> None:
    machine = Machine()
    machine.work((1, 1, 1), 2.0)
    machine.work((2, 2, 2), 2.0, places=1)
    found = machine.run(600.0)
    assert found[2, 2, 2] > 250 and found[1, 1, 1] > 2 * found[2, 2, 2]
    machine.work((2, 2, 3), 2.0)
    found = machine.run(300.0)
    assert found[2, 2, 2] + found[2, 2, 3] < 1.3 * found[1, 1, 1]


async def test_who_had_requests_that_hung_has_a_share_as_before_when_they_no_longer_do() -> None:
    machine = Machine()
    machine.work((1, 1, 1), HANGS)
    for user in range(2, 11):
        machine.work((user, user, user), 4.0)
    machine.run(HANGS)
    machine.stop((1, 1, 1))
    machine.work((1, 1, 2), 4.0)
    machine.run(200.0)
    found = machine.run(200.0)
    others = [found[user, user, user] for user in range(2, 11)]
    assert found[1, 1, 2] > 0.7 * max(others) and max(others) < 1.4 * min(others)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("hanging", [1, MOST])
@pytest.mark.parametrize("quick", [(2, 2, 3), (2, 3, 3)], ids=["batch", "token"])
async def test_what_hangs_of_a_user_keeps_their_other_lines_from_no_slot(quick: Who, hanging: int, alone: bool) -> None:
    machine = Machine()
    if not alone:
        machine.work((1, 1, 1), HANGS)
        machine.run(1.0)
    machine.work((2, 2, 2), HANGS, places=hanging)
    machine.run(9.0)
    machine.work(quick, 0.1, lines=20)
    assert machine.run(20.0)[quick] == 20


async def test_what_hangs_of_others_keeps_nobody_from_their_share() -> None:
    machine = Machine()
    machine.work((1, 1, 1), HANGS)
    machine.run(AIR_SECONDS)
    machine.work((2, 2, 2), 1.0)
    assert machine.run(100.0)[2, 2, 2] >= 190, "two at once, as if the other had only two"
    machine.work((3, 3, 3), 1.0)
    found = machine.run(50.0)
    assert min(found[2, 2, 2], found[3, 3, 3]) >= 45


async def test_who_has_something_in_the_air_leaves_half_of_it_to_those_who_have_nothing() -> None:
    machine = Machine()
    for user in range(1, 41):
        for batch in range(6):
            machine.work((user, user, 10 * user + batch), 100_000.0)
    machine.run(2_000.0)
    held = sum(user.held for user in machine.slots._users.children.values())
    assert 60 < held <= 2 * MOST + MOST_IN_AIR // 2
    machine.work((99, 99, 99), 0.1, lines=5)
    assert machine.run(AIR_SECONDS + 1.0)[99, 99, 99] == 5
