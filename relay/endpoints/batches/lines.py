"""The lines of a running batch that have no outcome yet: which is next, which wait, and until when. Pure.

Lines that wait hold nothing. Those of one model wait together, since what refuses one refuses the others: after the
wait a single one tries whether it is over. All times are in seconds of any clock that does not go back.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from relay.endpoints.batches.waits import MAX_TRIES, PATIENCE, Wait
from relay.models.batch import BatchWait
from relay.storage.batch_input import BatchInputLine

_LANES: Final = 32  # models whose lines wait apart; those of all others wait together
_PROBE_SECONDS: Final = 0.5  # after which a line that tries whether a wait is over counts as admitted
_SHORTEST: Final = 0.05
_FIRST_PAUSE: Final = 0.5  # where the end of a wait is not known; doubled each time
# Seconds after which a wait is looked at again, whatever end was named: limits are raised, and balances topped up.
_LOOK: Final = {BatchWait.UPSTREAM: 600.0}
_LOOK_OTHERS: Final = 60.0
_LONGEST_PAUSE: Final = {BatchWait.UPSTREAM: 300.0, BatchWait.MONEY: 30.0, BatchWait.OPERATOR: 60.0}
_LONGEST_PAUSE_OTHERS: Final = 10.0
_TRY_PAUSE: Final = 60.0  # between tries of one line, at most
_FAILURES: Final = 4  # in a row, after which the other lines of the model are slowed down as well
_SLOWED: Final = 10.0
_POISON: Final = 3  # waits that one line has caused while others were answered
_DEAR: Final = (
    30.0  # seconds that a line waits which the balance does not cover, or no channel, so that others are tried
)
_SHOWN: Final = 5.0  # seconds for which a wait that is over is still shown


@dataclass(slots=True)
class _Failed:
    """What is known of a line that was tried and has no outcome."""

    tries: int = 0
    waits: int = 0
    answered: int = 0  # lines of its model, when it was last tried
    since: float | None = None  # it waits for what somebody has to do
    reason: BatchWait = BatchWait.UPSTREAM  # of its last wait
    waiting_since: float | None = None


FailedLines = dict[int, _Failed]  # by number


@dataclass(slots=True, eq=False)
class _Lane:
    """The lines of one model."""

    fresh: deque[BatchInputLine] = field(default_factory=deque)
    later: list[tuple[float, int, BatchInputLine]] = field(default_factory=list)  # when, number, line: a heap
    later_next: bool = False  # they take turns, so that one line that always fails does not stop the others
    held_until: float = 0.0
    probing: bool = False  # the next line tries whether the wait is over
    probe_until: float = 0.0
    pause: float = 0.0
    failures: int = 0  # in a row
    answered: int = 0
    wait: Wait | None = None  # the last one
    waiting_since: float | None = None  # no line has been answered since
    stuck_since: float | None = None  # the same, of waits for what somebody has to do

    def ready_at(self, now: float) -> float | None:
        if not self.fresh and not self.later:
            return None
        return max(self.held_until, self.probe_until, now if self.fresh else self.later[0][0], now)

    def take(self, now: float) -> BatchInputLine:
        due = bool(self.later) and self.later[0][0] <= now
        from_later = due and (self.later_next or not self.fresh)
        self.later_next = due and not from_later
        if self.probing:
            self.probing, self.probe_until = False, now + _PROBE_SECONDS
        return heapq.heappop(self.later)[2] if from_later else self.fresh.popleft()

    def hold(self, until: float) -> None:
        self.held_until, self.probing = max(self.held_until, until), True


class LineQueue:
    """The lines of one batch that have no outcome."""

    def __init__(
        self, lines: Iterable[BatchInputLine], now: float, waited: float = 0.0, failed: FailedLines | None = None
    ) -> None:
        """`waited`: seconds that the batch has waited already for what somebody has to do.

        `failed`: what this worker knows of its lines, from when it ran the batch before.
        """
        self._lanes: dict[str, _Lane] = {}
        self._failed: FailedLines = failed if failed is not None else {}
        self._flying = 0
        self._left = 0
        for line in lines:
            self._lane(line).fresh.append(line)
        if waited:
            for lane in self._lanes.values():
                lane.stuck_since = now - waited

    def _lane(self, line: BatchInputLine) -> _Lane:
        name = line.model if line.model in self._lanes or len(self._lanes) < _LANES else ""
        return self._lanes.get(name) or self._lanes.setdefault(name, _Lane())

    @property
    def over(self) -> bool:
        """Whether every line has been taken and none can come back."""
        return not self._flying and not any(lane.fresh or lane.later for lane in self._lanes.values())

    @property
    def answered(self) -> bool:
        """Whether every line has its outcome."""
        return self.over and not self._left

    def ready_in(self, now: float) -> float | None:
        """Seconds until a line can be taken; None: none before one that was taken comes back."""
        found = [at for lane in self._lanes.values() if (at := lane.ready_at(now)) is not None]
        return max(0.0, min(found) - now) if found else None

    def take(self, now: float) -> BatchInputLine | None:
        """The next line, if one may be tried now. It is to be given to `finish` or `put_back`."""
        for name, lane in self._lanes.items():
            at = lane.ready_at(now)
            if at is None or at > now:
                continue
            self._flying += 1
            self._lanes[name] = self._lanes.pop(name)  # behind the other models
            return lane.take(now)
        return None

    def drain(self) -> list[BatchInputLine]:
        """Take all lines that have not been taken."""
        return [line for lane in self._lanes.values() for line in _drained(lane)]

    def finish(self, line: BatchInputLine, now: float) -> None:
        """A line has its outcome."""
        self._flying -= 1
        self._failed.pop(line.number, None)
        lane = self._lane(line)
        lane.answered += 1
        lane.failures, lane.pause, lane.probe_until = 0, 0.0, 0.0
        lane.waiting_since = lane.stuck_since = None
        if lane.wait is not None and lane.wait.at_once:
            lane.held_until = min(lane.held_until, now)

    def leave(self, line: BatchInputLine) -> None:
        """A line that was taken gets no outcome here, since the batch ends, or goes on elsewhere."""
        self._flying -= 1
        self._left += 1

    def put_back(self, line: BatchInputLine, wait: Wait, now: float) -> list[BatchInputLine]:
        """A line waits. Returns the lines that wait no longer, with what came of this one as their outcome."""
        self._flying -= 1
        lane = self._lane(line)
        failed = self._failed.setdefault(line.number, _Failed())
        if lane.waiting_since is None:
            lane.waiting_since = now
        lane.wait, lane.probe_until = wait, 0.0
        failed.reason = wait.reason
        failed.waiting_since = now if failed.waiting_since is None else failed.waiting_since
        if wait.counted:
            return self._count(line, lane, failed, now)
        poison = failed.waits >= _POISON and lane.answered > failed.answered
        failed.waits, failed.answered = failed.waits + 1, lane.answered
        if wait.bounded:
            failed.since = now if failed.since is None else failed.since
            lane.stuck_since = now if lane.stuck_since is None else lane.stuck_since
            if now - lane.stuck_since >= PATIENCE:
                return [line, *_drained(lane)]
            if now - failed.since >= PATIENCE:
                return [line]
        if lane.held_until <= now:  # a wait of its own, and not one more of several that were begun together
            longest = _LONGEST_PAUSE.get(wait.reason, _LONGEST_PAUSE_OTHERS)
            lane.pause = min(max(_FIRST_PAUSE, 2 * lane.pause), longest)
        known = wait.seconds is not None
        seconds = lane.pause if wait.seconds is None else max(wait.seconds, _SHORTEST)
        if known and wait.reason is BatchWait.UPSTREAM:
            seconds = max(seconds, lane.pause)  # what says "in a second" all day
        until = now + min(seconds, _LOOK.get(wait.reason, _LOOK_OTHERS))
        if poison:
            until = now + min(max(seconds, _DEAR * failed.waits), _LOOK[BatchWait.UPSTREAM])
        else:
            lane.hold(until)
        if wait.bounded:  # it may be about this line alone
            heapq.heappush(lane.later, (max(until, now + _DEAR), line.number, line))
        elif poison or wait.reason is BatchWait.UPSTREAM:
            heapq.heappush(lane.later, (until, line.number, line))
        else:
            lane.fresh.appendleft(line)
        return []

    def _count(self, line: BatchInputLine, lane: _Lane, failed: _Failed, now: float) -> list[BatchInputLine]:
        """An upstream failed on a line."""
        failed.tries += 1
        if failed.tries >= MAX_TRIES:
            return [line]
        lane.failures += 1
        if lane.failures > _FAILURES:
            lane.hold(now + min(2.0 ** (lane.failures - _FAILURES - 1), _SLOWED))
        heapq.heappush(lane.later, (now + min(2.0 ** (failed.tries - 1), _TRY_PAUSE), line.number, line))
        return []

    def waiting(self, now: float) -> tuple[BatchWait, float, float] | None:
        """What the batch waits for, since when and until when at the soonest; None while it goes on."""
        found = None
        for lane in self._lanes.values():
            if not lane.fresh and not lane.later:
                continue
            if lane.wait is not None and lane.held_until > now - (_SHOWN if lane.fresh else 0.0):
                since = lane.stuck_since if lane.wait.bounded else lane.waiting_since
                reason = lane.wait.reason
                until = lane.held_until if lane.fresh else max(lane.held_until, lane.later[0][0])
            elif lane.fresh or self._flying:
                return None
            else:  # only lines that wait by themselves are left
                until, number, _ = lane.later[0]
                reason, since = self._failed[number].reason, self._failed[number].waiting_since
                if until <= now - _SHOWN:
                    return None
            if found is None or until < found[2]:
                found = reason, now if since is None else since, until
        return found


def _drained(lane: _Lane) -> list[BatchInputLine]:
    found = [*lane.fresh, *(line for _, _, line in lane.later)]
    lane.fresh.clear()
    lane.later.clear()
    return found


class Progress:
    """How fast a batch has lately been, and so when it will probably be done."""

    __slots__ = ("_done", "_moved_at", "_samples")

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._done, self._moved_at = 0, 0.0

    def remaining(self, done: int, total: int, now: float) -> float | None:
        """Seconds until all lines probably have their outcomes; None: nothing moved lately, or it has just begun."""
        samples = self._samples
        if done != self._done or not samples:
            self._done, self._moved_at = done, now
        if not samples or now - samples[-1][0] >= _SAMPLE_SECONDS:
            samples.append((now, done))
        while now - samples[0][0] > _WINDOW_SECONDS and len(samples) > 1:
            samples.popleft()
        since, before = samples[0]
        if done <= before or now - since < _SAMPLE_SECONDS:
            return None
        each = (now - since) / (done - before)
        return (total - done) * each if now - self._moved_at <= max(_STILL_SECONDS, 2 * each) else None


_SAMPLE_SECONDS: Final = 2.0
_WINDOW_SECONDS: Final = 600.0
_STILL_SECONDS: Final = 90.0  # without an outcome, after which no end is foreseen; a limit a minute is shorter
