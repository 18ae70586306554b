"""Fifty users with batches on one worker, in virtual time: nobody starves, and shares are within a bound.

Nothing sleeps and nothing is sent. The queue of lines, the slots and the turns of batches are the real ones; answers,
the limits of tokens and the database are played.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from relay.endpoints.batches.lines import LineQueue
from relay.endpoints.batches.slots import BatchSlots, Slot
from relay.endpoints.batches.turns import next_user, to_make_room
from relay.endpoints.batches.waits import Wait
from relay.gateway.limits.windows import Limits, MemoryLimiter, Subject, checks
from relay.models.batch import BatchWait
from relay.storage.batch_input import BatchInputLine

SLOTS = 4
QUICK, SLOW, BUSY, DEAD, HANGING = "quick", "slow", "busy", "dead", "hanging"


@dataclass(eq=False)
class Batch:
    user_id: int
    token: int
    upstream: str
    lines: list[BatchInputLine]
    limits: Limits = field(default_factory=Limits)
    number: int = 0
    waiting_since: float = 0.0
    put_back_at: float = 0.0
    done: set[int] = field(default_factory=set)
    first_at: float | None = None
    ended_at: float | None = None
    # While it runs.
    queue: LineQueue | None = None
    begun_at: float = 0.0
    ends: bool = False
    flying: int = 0
    wake_at: float = 0.0
    asked: list[Slot] = field(default_factory=list)
    held: set[Slot] = field(default_factory=set)  # of requests that are being made

    @property
    def waits(self) -> bool:
        return self.queue is not None and self.queue.waiting(self.begun_at + 1e9) is not None


class Worker:
    """One worker, its upstreams and its clock."""

    def __init__(self, seed: int) -> None:
        self.now, self.random = 0.0, random.Random(seed)
        self.slots = BatchSlots(SLOTS, lambda: self.now, lambda seconds, what: self.at(self.now + seconds, what))
        self.limiter = MemoryLimiter()
        self.waiting: list[Batch] = []
        self.running: list[Batch] = []
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.held: Counter[int] = Counter()  # seconds of slots, by user
        self.wanted: Counter[int] = Counter()
        self.answered: defaultdict[int, int] = defaultdict(int)
        self.at(0.0, self.look)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def submit(self, *batches: Batch) -> None:
        for batch in batches:
            batch.number, batch.waiting_since = next(self.numbers), self.now
            self.waiting.append(batch)

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
            while self.granted():
                pass
        self.now = until

    def look(self) -> None:
        """As `runner` does every two seconds."""
        while (user := next_user(self.users(), self.running)) is not None:
            mine = [one for one in self.waiting if one.user_id == user]
            batch = min(mine, key=lambda one: (one.waiting_since, one.number))
            self.waiting.remove(batch)
            self.running.append(batch)
            batch.begun_at, batch.ends, batch.wake_at = self.now, False, 0.0
            batch.queue = LineQueue([line for line in batch.lines if line.number not in batch.done], self.now)
            self.go_on(batch)
        for batch in to_make_room(self.users(), self.running, self.now):
            batch.ends = True
            self.go_on(batch)
        self.at(self.now + 2.0, self.look)

    def users(self) -> list[int]:
        """As `batch_claims.waiting_users` orders them."""
        since: dict[int, float] = {}
        for one in self.waiting:
            at = one.put_back_at or one.waiting_since
            known = since.get(one.user_id)
            since[one.user_id] = at if known is None else max(known, at) if at else known
        return sorted(since, key=lambda user: since[user])

    def go_on(self, batch: Batch) -> None:
        """What the coroutines of a batch do: ask for slots while lines can be taken."""
        queue = batch.queue
        assert queue is not None
        if batch.ends or queue.over:
            for slot in (*batch.asked, *batch.held):  # requests that are being made go on without
                slot.give_back()
            batch.asked = []
            batch.held.clear()
            if not batch.flying and batch in self.running:
                self.running.remove(batch)
                if queue.over:
                    batch.ended_at = self.now
                else:
                    batch.waiting_since = batch.put_back_at = self.now
                    self.waiting.append(batch)
            return
        batch.asked = [slot for slot in batch.asked if slot.held or not slot.granted.done()]
        seconds = queue.ready_in(self.now)
        while seconds == 0 and len(batch.asked) + batch.flying < SLOTS:
            batch.asked.append(self.slots.ask(batch.user_id, batch.token, batch.number))
        if seconds and batch.wake_at <= self.now:
            batch.wake_at = self.now + seconds
            self.at(batch.wake_at, lambda: self.go_on(batch))

    def granted(self) -> bool:
        """Begin the requests whose slots have been granted."""
        found = [(batch, slot) for batch in self.running for slot in batch.asked if slot.held]
        for batch, slot in found:
            batch.asked.remove(slot)
            self.begin(batch, slot)
            self.go_on(batch)
        return bool(found)

    def begin(self, batch: Batch, slot: Slot) -> None:
        queue = batch.queue
        assert queue is not None
        line = queue.take(self.now) if not batch.ends else None
        if line is None:
            slot.give_back()
            return
        batch.flying += 1
        batch.held.add(slot)
        wanted = checks([Subject(f"token:{batch.token}", "a token", batch.limits)])
        verdict = self.limiter.acquire(wanted, 0, self.now)
        wait, seconds = None, 0.001
        if verdict.refused is not None:
            wait = Wait(BatchWait.LIMIT, verdict.retry_after)
        elif batch.upstream == DEAD:
            wait = Wait(BatchWait.UPSTREAM, 3_600.0)
        elif batch.upstream == BUSY and self.random.random() < 0.5:
            wait, seconds = Wait(BatchWait.UPSTREAM, 20.0), 0.2
        elif batch.upstream == HANGING:  # until the time for the first byte is over
            wait, seconds = Wait(BatchWait.UPSTREAM, 1.0), 180.0
        else:
            seconds = self.random.uniform(10, 30) if batch.upstream == SLOW else self.random.uniform(0.1, 1.0)
        began = self.now

        def end() -> None:
            batch.flying -= 1
            self.held[batch.user_id] += round((self.now - began) * 1000)
            if wait is not None:
                assert queue.put_back(line, wait, self.now) == []
            else:
                queue.finish(line, self.now)
                batch.done.add(line.number)
                batch.first_at = batch.first_at or self.now
                self.answered[batch.user_id] += 1
            batch.held.discard(slot)
            slot.give_back()
            self.go_on(batch)

        self.at(self.now + seconds, end)


def lines(count: int) -> list[BatchInputLine]:
    return [BatchInputLine(number, f"r{number}", b"{}", "m") for number in range(1, count + 1)]


async def test_fifty_users_share_the_slots_of_a_worker() -> None:
    worker = Worker(1)
    many, few = lines(1_000), lines(300)  # more than there is time for
    kinds = [QUICK] * 20 + [SLOW] * 15 + [BUSY] * 10 + [DEAD] * 5
    for user, kind in enumerate(kinds, 1):
        limits = Limits(rpm=60) if user % 7 == 0 else Limits()
        worker.submit(
            *(Batch(user, 10 * user + n % 2, kind, many if kind == QUICK else few, limits) for n in range(1 + user % 3))
        )
    small: list[Batch] = []

    def send(user: int) -> None:
        small.append(Batch(user, 10 * user, QUICK, lines(5)))
        worker.submit(small[-1])

    for user in range(101, 126):  # others come with a few lines each
        worker.at(60.0 * (user - 100), partial(send, user))
    worker.run(1_800.0)
    served = {user: worker.answered[user] for user, kind in enumerate(kinds, 1) if kind != DEAD}
    assert min(served.values()) >= 20, "nobody starves"
    quick = [worker.held[user] for user, kind in enumerate(kinds, 1) if kind == QUICK and user % 7]
    assert max(quick) < 1.4 * min(quick)
    slow = [worker.held[user] for user, kind in enumerate(kinds, 1) if kind == SLOW]
    assert max(slow) < 3.2 * min(quick), "requests that an upstream has had for long count no more, and bring no more"
    assert min(quick) > 400_000, "and take nothing from others: without them, it was 250 s at most"
    late = [(one.ended_at or 1e9) - 60.0 * (one.user_id - 100) for one in small]
    assert len(late) == 25 and max(late) < 90, "five lines among fifty users with hours of work"


async def test_a_users_first_batches_do_not_shut_out_the_next() -> None:
    worker = Worker(2)
    worker.submit(*(Batch(1, 1, kind, lines(5_000)) for kind in (DEAD, SLOW, DEAD, SLOW, BUSY, SLOW)))
    late = [Batch(1, 2, QUICK, lines(20)), Batch(2, 3, QUICK, lines(20))]
    worker.at(100.0, lambda: worker.submit(*late))
    worker.run(900.0)
    mine, others = [(one.ended_at or 1e9) - 100.0 for one in late]
    assert mine < 240 and others < 60


async def test_tokens_and_batches_of_a_user_have_equal_shares() -> None:
    worker = Worker(3)
    many = [Batch(1, 1, QUICK, lines(9_000)) for _ in range(3)]
    single = Batch(1, 2, QUICK, lines(9_000))
    worker.submit(*many, single)
    worker.run(1_000.0)
    of_first = sum(len(one.done) for one in many)
    assert 0.8 < len(single.done) / of_first < 1.25, "of each token"
    assert max(len(one.done) for one in many) < 1.25 * min(len(one.done) for one in many), "of each batch"


@pytest.mark.parametrize("hanging", [5, 8, 20, 31, 60])
def test_upstreams_that_hang_shut_out_nobody_else(hanging: int) -> None:
    async def run() -> None:
        worker = Worker(hanging)
        worker.submit(*(Batch(user, user, HANGING, lines(6)) for user in range(1, hanging + 1)))
        small = [Batch(1_000 + number, 1, QUICK, lines(5)) for number in range(40)]
        for number, batch in enumerate(small):
            worker.at(30.0 * number, partial(worker.submit, batch))
        large = [Batch(2_000 + number, 1, QUICK, lines(1_000)) for number in range(3)]
        worker.at(60.0, partial(worker.submit, *large))
        worker.run(1_500.0)
        late = [(one.ended_at or 1e9) - 30.0 * number for number, one in enumerate(small)]
        assert max(late) < 60, "five lines of half a second"
        assert min(len(one.done) for one in large) > 250, "and who has many goes on"

    asyncio.run(run())
