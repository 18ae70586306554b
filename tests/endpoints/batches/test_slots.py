"""Slots for requests of batches: users take turns, and nobody waits for one who only waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from portal import limits
from relay.endpoints.batches.slots import AIR_SECONDS, MOST_IN_AIR, BatchSlots, Slot
from relay.endpoints.batches.turns import SLICE_SECONDS, next_user, to_make_room


def granted(*slots: Slot) -> list[bool | None]:
    return [slot.granted.result() if slot.granted.done() else None for slot in slots]


async def test_users_take_turns() -> None:
    slots = BatchSlots(2, lambda: 0.0)
    ada = [slots.ask(1) for _ in range(5)]
    assert granted(*ada) == [True, True, None, None, None]
    bob, cid, eve = [[slots.ask(user) for _ in range(2)] for user in (2, 3, 4)]
    assert granted(*bob, *cid) == [True, None, True, None]  # one each, though all are taken
    assert granted(*eve) == [None, None]  # as many again, and no more
    last = slots.ask(2)
    bob[0].give_back()
    bob[1].give_back()
    cid[0].give_back()
    assert granted(bob[1], cid[1], eve[0], eve[1], last) == [True, True, True, None, None]  # in the order of asking
    for slot in (*ada[:2], cid[1]):
        slot.give_back()
    assert granted(ada[2], *ada[3:], last, eve[1]) == [True, None, None, True, None]
    for slot in (eve[0], last, *ada[2:], eve[1]):
        slot.give_back()
    assert granted(*[slots.ask(9) for _ in range(3)]) == [True, True, None]


async def test_a_slot_is_given_back_once() -> None:
    slots = BatchSlots(1, lambda: 0.0)
    first, second, third = slots.ask(1), slots.ask(1), slots.ask(1)
    first.give_back()
    first.give_back()
    assert granted(second, third) == [True, None]
    third.give_back()
    assert granted(third) == [False]
    second.give_back()
    third.give_back()
    assert granted(slots.ask(1), slots.ask(1)) == [True, None]


async def test_who_is_cancelled_keeps_no_place() -> None:
    slots = BatchSlots(1, lambda: 0.0)
    first, second, third = slots.ask(1), slots.ask(1), slots.ask(1)
    waiting = asyncio.ensure_future(asyncio.wait_for(second.granted, None))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    first.give_back()
    assert granted(third) == [True]
    second.give_back()
    assert granted(slots.ask(2), slots.ask(3)) == [True, None]


class Time:
    """A clock, and what is to be called later."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, what))

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        due, self.due = self.due, []
        for at, what in due:
            if at <= self.now:
                what()
            else:
                self.due.append((at, what))


async def test_what_is_in_the_air_keeps_nobody_out_who_has_nothing() -> None:
    time = Time()
    slots = BatchSlots(4, lambda: time.now, time.later)
    first = [slots.ask(1) for _ in range(6)]
    others = [slots.ask(user) for user in range(2, 10) for _ in range(2)]
    assert sum(slot.held for slot in (*first, *others)) == 8, "twice as many, with one for each user who has none"
    bob = [slots.ask(99) for _ in range(3)]
    time.go_on(AIR_SECONDS - 1)
    assert granted(*bob) == [None] * 3 and len(time.due) == 1
    time.go_on(1)
    assert granted(*bob) == [True, None, None], "one, though nothing was given back"
    assert sum(slot.held for slot in others) == 8 + 3, "and one for each other user who had none, or whose one hangs"
    assert sum(slot.held for slot in first) == 4, "who has their share gets no more for that"
    bob[0].give_back()
    assert granted(bob[1]) == [True]
    for slot in others:
        slot.give_back()
    assert sum(slot.held for slot in first) == 4 and granted(bob[2]) == [True], "of four, two are in the air"
    for slot in (*bob, *first):
        slot.give_back()
    time.go_on(AIR_SECONDS)
    assert not time.due, "nobody waits"


async def test_what_is_in_the_air_is_bounded() -> None:
    time = Time()
    slots = BatchSlots(2, lambda: time.now, time.later)
    asked = [slots.ask(user) for user in range(400)]
    for _ in range(200):
        time.go_on(AIR_SECONDS)
        fresh = sum(slot.held and time.now - slot.since < AIR_SECONDS for slot in asked)
        assert fresh <= 4 and sum(slot.held for slot in asked) <= 4 + MOST_IN_AIR
    assert sum(slot.held for slot in asked) == 4 + MOST_IN_AIR
    asked[0].give_back()
    assert sum(slot.held for slot in asked) == 4 + MOST_IN_AIR


async def test_the_loop_tells_when_a_slot_no_longer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.endpoints.batches.slots.AIR_SECONDS", 0.01)
    slots = BatchSlots(1)
    held = [slots.ask(1), slots.ask(2)]
    assert await slots.ask(3).granted and granted(*held) == [True, True]


@dataclass
class Running:
    """A batch that runs."""

    user_id: int
    begun_at: float = 0.0
    ends: bool = False
    waits: bool = False


def running(*users: int, ending: int = 0) -> list[Running]:
    """The first so many only finish what was cancelled."""
    return [Running(user, ends=number < ending) for number, user in enumerate(users)]


@pytest.mark.parametrize(
    ("now", "ending", "waiting", "next_one"),
    [
        ([], 0, [], None),
        ([], 0, [1, 2], 1),
        ([1], 0, [1, 2], 2),  # who has fewest
        ([1, 2], 0, [2, 1], 2),  # of those, who waits longest
        ([1] * limits.BATCHES_AT_ONCE, 0, [1], None),
        ([1] * limits.BATCHES_AT_ONCE, 0, [1, 2], 2),
        ([1] * limits.BATCHES_AT_ONCE, 2, [1], 1),  # cancelled ones do not count
        ([1] * (limits.BATCHES // 2), limits.BATCHES // 2, [1], None),  # up to so many
        (list(range(limits.BATCHES)), 0, [99], None),
        (list(range(limits.BATCHES)), 1, [99], 99),  # what only ends shuts nobody out
        (list(range(limits.BATCHES + limits.BATCHES_ENDING)), limits.BATCHES_ENDING + 1, [999], None),
    ],
)
def test_whose_batch_is_begun_next(now: list[int], ending: int, waiting: list[int], next_one: int | None) -> None:
    assert next_user(waiting, running(*now, ending=ending)) == next_one


@pytest.mark.parametrize(
    ("now", "waiting", "expected"),
    [
        ([Running(1)] * 4, [], []),
        ([Running(1), Running(1)], [1], [0]),  # their own next one
        ([Running(1), Running(1, waits=True)], [1], [1]),  # rather one that only waits
        ([Running(1), Running(1), Running(2)], [3], [0]),  # of who has most
        ([Running(1), Running(2)], [1], [0]),  # not of who has no more
        ([Running(1), Running(2)], [3], [0]),
        ([Running(1, 80.0), Running(1, 90.0)], [2], []),  # they have just begun
        ([Running(1, ends=True), Running(2, 90.0)], [1, 3], []),
        ([Running(1), Running(2, 10.0), Running(3, 20.0)], [4, 5], [0, 1]),
    ],
)
def test_which_batch_makes_room(now: list[Running], waiting: list[int], expected: list[int]) -> None:
    found = to_make_room(waiting, now, 80.0 + SLICE_SECONDS / 2)
    assert [next(at for at, one in enumerate(now) if one is makes) for makes in found] == expected
