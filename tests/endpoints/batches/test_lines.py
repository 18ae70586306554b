"""The lines of a batch that have no outcome: which is next, and which wait. In virtual time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from portal.lib import clock
from relay.endpoints.batches import runner
from relay.endpoints.batches.lines import FailedLines, LineQueue, Progress
from relay.endpoints.batches.running import RunningBatch
from relay.endpoints.batches.slots import BatchSlots
from relay.endpoints.batches.waits import MAX_TRIES, PATIENCE, Wait
from relay.errors import RateLimited, RelayError, RelayUnavailable, StorageFull, UpstreamRateLimited
from relay.gateway.limits.windows import Limits, MemoryLimiter, Subject, checks
from relay.gateway.snapshot.cache import snapshot_cache
from relay.models import Batch
from relay.models.batch import BatchWait
from relay.storage.batch_input import BatchInput, BatchInputLine

LIMIT, UPSTREAM = Wait(BatchWait.LIMIT, 1.0), Wait(BatchWait.UPSTREAM, 30.0)
FAILED, UNPAID = Wait(BatchWait.UPSTREAM, counted=True), Wait(BatchWait.MONEY, bounded=True)


def lines(count: int, model: str = "m", first: int = 1) -> list[BatchInputLine]:
    return [BatchInputLine(number, f"r{number}", b"{}", model) for number in range(first, first + count)]


def take(queue: LineQueue, now: float) -> BatchInputLine:
    found = queue.take(now)
    assert found is not None
    return found


def test_lines_of_one_model_wait_together_and_one_tries_first() -> None:
    queue = LineQueue([*lines(3), *lines(2, "other", 10)], 0.0)
    first, other = take(queue, 0.0), take(queue, 0.0)
    assert (first.number, other.number) == (1, 10)
    assert queue.put_back(first, LIMIT, 0.0) == []
    assert take(queue, 0.0).number == 11 and queue.take(0.5) is None
    assert queue.ready_in(0.4) == 0.6 and queue.waiting(0.4) is not None
    again = take(queue, 1.0)
    assert again.number == 1 and queue.take(1.0) is None  # it tries alone
    queue.finish(again, 1.1)
    assert take(queue, 1.1).number == 2 and take(queue, 1.1).number == 3 and queue.waiting(1.1) is None
    assert queue.ready_in(2.0) is None and not queue.over


def test_a_line_that_is_left_is_not_answered() -> None:
    queue = LineQueue(lines(2), 0.0)
    queue.finish(take(queue, 0.0), 0.1)
    queue.leave(take(queue, 0.1))
    assert queue.over and not queue.answered


@pytest.mark.parametrize(("makes_room", "ends"), [(True, "put_back"), (False, "finish")])
def test_a_batch_that_makes_room_with_a_line_in_hand_goes_on_later(
    monkeypatch: pytest.MonkeyPatch, makes_room: bool, ends: str
) -> None:
    called: list[str] = []

    async def in_thread(function: Any, *arguments: Any) -> Any:
        called.append(function.__name__)
        if function.__name__ == "read_input":
            return BatchInput((), "", ())
        return None if function.__name__ == "finish" else True

    async def answer_all(run: Any, state: RunningBatch, parsed: BatchInput) -> None:
        state.lines = LineQueue(lines(1), 0.0)
        line = take(state.lines, 0.0)
        state.makes_room = makes_room
        if makes_room:
            state.lines.leave(line)  # the request was ended before an upstream had it
        else:
            state.lines.finish(line, 0.1)

    monkeypatch.setattr(snapshot_cache, "in_thread", in_thread)
    monkeypatch.setattr(snapshot_cache, "in_slow_thread", in_thread)
    monkeypatch.setattr(runner, "_answer_all", answer_all)
    now = clock.now()
    batch = Batch(pk=1, user_id=1, status="in_progress", created_at=now, expires_at=now + timedelta(hours=1))

    async def run() -> None:
        state = RunningBatch(batch, "owner", BatchSlots(1))
        await runner._run_batch(SimpleNamespace(stopping=False), state, [state])  # type: ignore[arg-type]

    asyncio.run(run())
    assert called[-1] == ends


def test_a_request_that_ends_lets_the_next_begin_at_once() -> None:
    queue = LineQueue(lines(4), 0.0)
    running, refused = take(queue, 0.0), take(queue, 0.0)
    queue.put_back(refused, Wait(BatchWait.LIMIT, 1.0, at_once=True), 0.1)
    assert queue.take(0.2) is None
    queue.finish(running, 0.3)
    assert take(queue, 0.3) is refused


def test_an_upstream_that_fails_has_a_number_of_tries_unless_it_says_when() -> None:
    queue, now, tries = LineQueue(lines(1), 0.0), 0.0, 0
    while not (lost := queue.put_back(line := take(queue, now), FAILED, now)):
        tries, now = tries + 1, now + (queue.ready_in(now) or 0.0)
    assert (lost, tries) == ([line], MAX_TRIES - 1) and 15 < now < 120 and queue.over
    queue, now, tries = LineQueue(lines(1), 0.0), 0.0, 0
    while now < 86_400:
        assert queue.put_back(take(queue, now), Wait(BatchWait.UPSTREAM, 1.0), now) == []
        tries, now = tries + 1, now + (queue.ready_in(now) or 0.0)
    assert 100 < tries < 400  # "in a second", said all day


def test_tries_are_remembered_between_the_turns_of_a_batch() -> None:
    failed: FailedLines = {}
    for turn in range(1, MAX_TRIES + 1):
        queue = LineQueue(lines(2), 0.0, failed=failed)
        line = take(queue, 0.0)
        lost = queue.put_back(line, FAILED, 0.0)
        assert lost == ([line] if turn == MAX_TRIES else []) and line.number == 1


def test_an_outage_costs_few_lines_their_tries() -> None:
    queue, now, lost, tries = LineQueue(lines(50_000), 0.0), 0.0, 0, 0
    while now < 600:
        seconds = queue.ready_in(now)
        assert seconds is not None
        now += seconds
        lost, tries = lost + len(queue.put_back(take(queue, now), FAILED, now)), tries + 1
    assert lost < 20 and tries < 150


def test_a_line_that_always_fails_stops_no_other() -> None:
    queue, now, answered = LineQueue(lines(200), 0.0), 0.0, set[int]()
    while len(answered) < 199:
        now += queue.ready_in(now) or 0.0
        line = take(queue, now)
        if line.number == 1:
            assert queue.put_back(line, UPSTREAM, now) == []
        else:
            answered.add(line.number)
            queue.finish(line, now + 0.1)
    assert now < 5 * 60


def test_a_line_that_the_balance_does_not_cover_lets_others_go_first_and_fails_after_an_hour() -> None:
    queue, now, lost = LineQueue(lines(500), 0.0), 0.0, []
    while not queue.over:
        now += queue.ready_in(now) or 0.0
        line = take(queue, now)
        if line.number == 1:
            lost += queue.put_back(line, UNPAID, now)
        else:
            queue.finish(line, now)
            assert now < 60
    assert [line.number for line in lost] == [1] and PATIENCE <= now < PATIENCE + 120


def test_a_model_without_a_channel_stops_no_line_that_waits_with_it() -> None:
    models = [line for number in range(1, 42) for line in lines(1, f"m{number}", number)]
    queue, now, lost, answered = LineQueue([*models, *lines(30, "m41", 100)], 0.0), 0.0, list[BatchInputLine](), 0
    while not queue.over:
        now += queue.ready_in(now) or 0.0
        line = take(queue, now)
        if line.model == "m35":
            lost += queue.put_back(line, Wait(BatchWait.OPERATOR, bounded=True), now)
        else:
            queue.finish(line, now)
            answered += 1
            assert now < 120
    assert (answered, [line.model for line in lost]) == (70, ["m35"])


def test_an_empty_balance_fails_all_lines_after_an_hour_also_after_a_restart() -> None:
    for waited in (0.0, 3_000.0):
        queue, now, tries, lost = LineQueue(lines(50_000), 0.0, waited), 0.0, 0, list[BatchInputLine]()
        while not lost:
            now += queue.ready_in(now) or 0.0
            lost, tries = queue.put_back(take(queue, now), UNPAID, now), tries + 1
        assert len(lost) == 50_000 and queue.over
        assert PATIENCE <= now + waited < PATIENCE + 120 and tries < 200
        assert queue.waiting(now) is None


def test_a_top_up_is_seen_within_a_minute() -> None:
    queue, now = LineQueue(lines(10), 0.0), 0.0
    while now < 1_800:
        now += queue.ready_in(now) or 0.0
        assert queue.put_back(take(queue, now), UNPAID, now) == []
        waits = queue.waiting(now)
        assert waits is not None and waits[:2] == (BatchWait.MONEY, 0.0)
    assert (queue.ready_in(now) or 0.0) <= 60
    line = take(queue, now + 60)
    queue.finish(line, now + 60)
    assert queue.ready_in(now + 60) == 0.0


@dataclass
class Portal:
    """A limiter, and answers that take a while: a batch against it in virtual time."""

    limits: Limits
    seconds: float
    at_once: int = 4
    refused: int = 0
    ended_at: float = 0.0
    running: list[tuple[float, BatchInputLine]] = field(default_factory=list)

    def run(self, count: int) -> None:
        queue, limiter, now = LineQueue(lines(count), 0.0), MemoryLimiter(), 0.0
        wanted = checks([Subject("token:1", "the token", self.limits)])
        while not queue.over:
            while self.running and self.running[0][0] <= now:
                limiter.finish(wanted, 0, None, now, now)
                queue.finish(self.running.pop(0)[1], now)
            while len(self.running) < self.at_once and (line := queue.take(now)) is not None:
                verdict = limiter.acquire(wanted, 0, now)
                if verdict.refused is None:
                    self.running.append((now + self.seconds, line))
                    continue
                slots = not verdict.refused.window
                wait = Wait(BatchWait.LIMIT, max(verdict.retry_after, 1.0 if slots else 0.0), at_once=slots)
                assert queue.put_back(line, wait, now) == []
                self.refused += 1
            nexts = [at for at, _ in self.running[:1]]
            if len(self.running) < self.at_once and (seconds := queue.ready_in(now)) is not None:
                nexts.append(now + seconds)
            now = max(now, min(nexts)) if nexts else now
        self.ended_at = now


def test_a_limit_a_minute_makes_a_batch_slower_and_loses_nothing() -> None:
    for seconds in (0.01, 1.0, 3.0):
        portal = Portal(Limits(rpm=60), seconds)
        portal.run(1_000)
        best = max(16 * 60, 1_000 * seconds / 4)
        assert portal.ended_at < best * 1.1 + 5 and portal.refused < 2_500


def test_one_request_at_once_is_kept_busy() -> None:
    portal = Portal(Limits(concurrency=1), 3.0)
    portal.run(100)
    assert portal.ended_at < 305 and portal.refused < 500


def test_a_limit_a_day_is_looked_at_once_a_minute() -> None:
    portal = Portal(Limits(rpd=100), 0.1)
    portal.run(150)
    assert 86_400 < portal.ended_at < 86_500 and portal.refused < 1_600


@pytest.mark.parametrize("wait", [Wait(BatchWait.OPERATOR, bounded=True), Wait(BatchWait.UPSTREAM, 30.0)])
def test_the_last_line_that_waits_by_itself_is_shown(wait: Wait) -> None:
    queue, now = LineQueue(lines(41), 1_000.0), 1_000.0
    while len(queue._lanes["m"].fresh) + len(queue._lanes["m"].later) > 1:
        now += queue.ready_in(now) or 0.0
        line = take(queue, now)
        if line.number == 1:
            assert queue.put_back(line, wait, now) == []
        else:
            queue.finish(line, now + 0.1)
    for _ in range(20):
        now += (queue.ready_in(now) or 0.0) / 2
        waits = queue.waiting(now)
        assert waits is not None and waits[0] is wait.reason and 1_000.0 <= waits[1] <= now
        assert waits[2] is None if wait.bounded else now <= (waits[2] or 0.0)
        now += queue.ready_in(now) or 0.0
        line = take(queue, now)
        assert queue.waiting(now) is None, "it is being tried"
        assert queue.put_back(line, wait, now) == []


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("reason", "seconds", "look"),
    [
        (BatchWait.BUDGET, 20 * 86_400.0, 60.0),
        (BatchWait.LIMIT, 11 * 3_600.0, 60.0),
        (BatchWait.UPSTREAM, 3_600.0, 600.0),
        (BatchWait.MONEY, None, 60.0),
        (BatchWait.OPERATOR, None, 60.0),
    ],
)
def test_the_end_of_a_wait_is_shown_as_it_is_known_however_often_it_is_looked_at(
    reason: BatchWait, seconds: float | None, look: float, count: int
) -> None:
    queue, now, looks = LineQueue(lines(count), 0.0), 0.0, 0
    while now < 3_000.0:
        wait = Wait(reason, seconds - now if seconds is not None else None, bounded=seconds is None)
        assert queue.put_back(take(queue, now), wait, now) == []
        found = queue.waiting(now)
        assert found is not None and found[::2] == (reason, seconds), "and not when it is looked at next"
        pause = queue.ready_in(now)
        assert pause is not None and pause <= look
        now, looks = now + pause, looks + 1
    assert looks >= 5


async def test_nobody_knows_when_there_is_room() -> None:
    state = _running(2)
    state.lines.put_back(take(state.lines, 0.0), LIMIT, 0.0)
    assert state._waiting(0.5)[::2] == (BatchWait.LIMIT, 1.0)
    state.no_room = True
    assert state._waiting(0.5)[::2] == (BatchWait.ROOM, None)


def test_a_model_that_hangs_leaves_the_others_their_places() -> None:
    queue = LineQueue([*lines(10, "hangs"), *lines(50, "quick", 100)], 0.0)
    taken = [take(queue, 0.0) for _ in range(4)]
    assert Counter(line.model for line in taken) == {"hangs": 2, "quick": 2}
    for now in range(1, 49):
        ended = next(line for line in taken if line.model == "quick")
        taken.remove(ended)
        queue.finish(ended, float(now))
        taken.append(take(queue, float(now)))
        assert taken[-1].model == "quick"
    queue.finish(taken.pop(), 50.0)
    assert take(queue, 50.0).model == "hangs", "and has them all when nothing else is left"


class Settled:
    """A batch of one line whose requests all reach an upstream and end alike, in virtual time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: RelayError, made: bool = False) -> None:
        self.failure, self.now, self.tries = failure, 0.0, 0
        self.request: Any = SimpleNamespace(reached=True, made=made, request_id="req_1")
        self.run: Any = SimpleNamespace(refusals=SimpleNamespace(add=lambda *_: None))
        self.failed: FailedLines = {}
        self.state = _running(1)
        self.rows: list[tuple[int, str]] | None = None
        self.stored = False
        monkeypatch.setattr(snapshot_cache, "in_thread", self._ask)
        monkeypatch.setattr(snapshot_cache, "in_slow_thread", self._write)
        monkeypatch.setattr("relay.endpoints.batches.runner.time.monotonic", lambda: self.now)

    async def _ask(self, *_: Any) -> bool:
        return self.stored

    async def _write(self, function: Any, batch: Batch, rows: list[tuple[int, str]]) -> None:
        self.rows = rows

    async def go_on(self, turn: float = 90_000.0) -> None:
        """Try the line until it has an outcome, or a day is over; in turns of so many seconds."""
        while self.rows is None and self.now < 86_400:
            self.state.lines, until = LineQueue(lines(1), self.now, failed=self.failed), self.now + turn
            self.state.ending.clear()
            while self.rows is None and not self.state.lines.over and self.now < 86_400:
                self.now += self.state.lines.ready_in(self.now) or 0.0
                line = take(self.state.lines, self.now)
                self.now, self.tries = self.now + 20.0, self.tries + 1
                if self.now >= until:
                    self.state.ending.set()
                body = self.failure.body()
                await runner._settle(self.run, self.state, line, (self.request, 503, body, self.failure))


OVERLOADED = RelayUnavailable("The portal is handling as many …", code="overloaded", retry_after=5)


@pytest.mark.parametrize(
    ("failure", "made"),
    [
        (OVERLOADED, False),
        (RelayUnavailable("The portal could not record this request.", retry_after=5), False),
        (StorageFull("The portal's disk is full."), False),
        (RateLimited("x", retry_after=1), False),
        (UpstreamRateLimited("x", retry_after=1), True),
    ],
)
async def test_a_line_whose_answers_come_to_nothing_has_a_number_of_tries(
    monkeypatch: pytest.MonkeyPatch, failure: RelayError, made: bool
) -> None:
    settled = Settled(monkeypatch, failure, made)
    await settled.go_on()
    assert settled.tries == MAX_TRIES and settled.now < 3_600
    assert settled.rows is not None and settled.rows[0][0] == 1 and settled.state.failed == 1


async def test_a_line_with_an_answer_for_which_memory_is_short_is_tried_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settled = Settled(monkeypatch, OVERLOADED)
    await settled.go_on()
    assert 1_200 < settled.now < 2_400 and settled.rows is not None and '"overloaded"' in settled.rows[0][1]


async def test_tries_count_when_the_batch_makes_room_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    settled = Settled(monkeypatch, OVERLOADED)
    await settled.go_on(turn=15.0)  # each of them ends with the turn
    assert settled.tries == MAX_TRIES and settled.state.failed == 1


async def test_no_failure_is_written_of_a_line_whose_answer_was_written_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settled = Settled(monkeypatch, OVERLOADED)
    settled.stored = True
    await settled.go_on()
    assert settled.rows == [] and (settled.state.ok, settled.state.failed) == (1, 0)


def test_lines_that_wait_are_not_shown_while_others_are_in_the_air() -> None:
    queue = LineQueue(lines(2), 100.0)
    failing, running = take(queue, 100.0), take(queue, 100.0)
    assert queue.put_back(failing, FAILED, 101.0) == [] and queue.waiting(101.0) is None
    queue.finish(running, 101.5)
    waits = queue.waiting(101.5)
    assert waits is not None and waits == (BatchWait.UPSTREAM, 101.0, 102.0)


def _running(total: int = 100, succeeded: int = 0) -> RunningBatch:
    now = clock.now()
    batch = Batch(
        pk=1, user_id=1, status="in_progress", total=total, succeeded=succeeded, created_at=now,
        expires_at=now + timedelta(hours=1),
    )  # fmt: skip
    state = RunningBatch(batch, "owner", BatchSlots(1))
    state.lines = LineQueue(lines(total), 0.0)
    return state


async def test_counts_begin_with_what_was_shown_and_wait_for_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    state = _running(succeeded=40)
    assert (state.ok, state.failed) == (40, 0) and state.standing() is None, "they are not known yet"
    state.ok, state.counted = 41, True
    standing = state.standing()
    assert standing is not None and (standing.succeeded, standing.failed) == (41, 0)


async def test_only_a_cancellation_is_news_about_a_running_batch() -> None:
    """What is read of it may be older than its beginning."""
    state = _running()
    state.seen("validating")
    assert (state.active, state.ends) == (True, False)
    state.seen("cancelling")
    assert (state.must_end, state.ends, state.outcome) == (True, True, "cancelled")
    state.seen(None)
    assert (state.lost, state.active) == (True, False)


async def test_a_batch_that_gets_no_slot_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    state, now = _running(), time.monotonic()
    monkeypatch.setattr("relay.endpoints.batches.running.time.monotonic", lambda: now)
    state.counted, state._held_at = True, now
    state._slots = BatchSlots(1, lambda: now)
    taken = state._slots.ask(2)
    more = state._slots.ask(3)  # a user who has none gets one: there are two now

    async def wait() -> None:
        async with state.slot():
            pass

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    assert state._waiting(now + 4.0)[0] == ""
    assert state._waiting(now + 6.0) == (BatchWait.TURN, now, None)
    now += 6.0
    standing = state.standing()
    assert standing is not None and standing.waits_for == "turn" and standing.waits_until is None
    for slot in (taken, more):
        slot.give_back()
    await waiting
    assert state._waiting(now)[0] == ""


@pytest.mark.parametrize(
    ("wait", "shown"),
    [
        (Wait(BatchWait.LIMIT, 30.0), True),
        (Wait(BatchWait.UPSTREAM, 500.0), False),
        (Wait(BatchWait.BUDGET, 20 * 86_400.0), False),
        (Wait(BatchWait.OPERATOR, bounded=True), False),
    ],
)
async def test_no_end_is_foreseen_while_nothing_can_move(wait: Wait, shown: bool) -> None:
    state, now = _running(3), time.monotonic()
    state.counted, state.ok = True, 1
    state._progress.remaining(0, 3, now - 60.0)
    state.lines = LineQueue(lines(2), now)
    state.lines.put_back(take(state.lines, now), wait, now)
    standing = state.standing()
    assert standing is not None and standing.waits_for == wait.reason
    assert (standing.ends_about is not None) is shown


def test_a_probable_end() -> None:
    progress = Progress()
    assert progress.remaining(0, 100, 0.0) is None and progress.remaining(0, 100, 60.0) is None
    assert progress.remaining(10, 100, 100.0) == 900.0
    for now in range(200, 700, 50):
        progress.remaining(20, 100, float(now))
    assert progress.remaining(20, 100, 900.0) is None, "nothing moved for ten minutes"
    progress = Progress()
    for second in range(0, 40, 2):
        progress.remaining(second, 41, float(second))
    assert progress.remaining(40, 41, 100.0) == 2.5
    assert progress.remaining(40, 41, 200.0) is None, "the last one does not come as the others did"
    slow = Progress()
    slow.remaining(0, 10, 0.0)
    assert slow.remaining(1, 10, 300.0) == 2_700.0 and slow.remaining(1, 10, 500.0) is not None
