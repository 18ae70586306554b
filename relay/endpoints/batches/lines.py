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
# The same where the portal failed on what an upstream may bill for: 5, 20, 80, 320 and 1,280 seconds.
_OWN_TRY_PAUSE: Final = 5.0
_OWN_TRY_FACTOR: Final = 4.0
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
    until: float | None = None  # when its last wait ends at the soonest, None: not known


FailedLines = dict[int, _Failed]  # by number


@dataclass(slots=True, eq=False)
class _Lane:
    """The lines of one model."""

    fresh: deque[BatchInputLine] = field(default_factory=deque)
    later: list[tuple[float, int, BatchInputLine]] = field(default_factory=list)  # when, number, line: a heap
    later_next: bool = False  # they take turns, so that one line that always fails does not stop the others
    flying: int = 0  # lines that were taken
    held_until: float = 0.0
    held_for: float | None = None  # when what it waits for ends at the soonest, None: not known
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

    def hold(self, until: float, ends: float | None) -> None:
        """Take no line until then. `ends`: when the wait ends at the soonest, None: not known."""
        if until >= self.held_until:
            self.held_until, self.held_for = until, ends
        self.probing = True


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
        """The next line, if one may be tried now. It is to be given to `finish`, `leave` or `put_back`.

        Of the model of which fewest are being made: one that hangs leaves the others their part of the batch's places.
        """
        ready = [name for name, lane in self._lanes.items() if (at := lane.ready_at(now)) is not None and at <= now]
        if not ready:
            return None
        name = min(ready, key=lambda name: self._lanes[name].flying)
        lane = self._lanes[name] = self._lanes.pop(name)  # behind the other models
        self._flying += 1
        lane.flying += 1
        return lane.take(now)

    def _land(self, line: BatchInputLine) -> _Lane:
        """A line that was taken is back."""
        lane = self._lane(line)
        self._flying -= 1
        lane.flying -= 1
        return lane

    def drain(self) -> list[BatchInputLine]:
        """Take all lines that have not been taken."""
        return [line for lane in self._lanes.values() for line in _drained(lane)]

    def finish(self, line: BatchInputLine, now: float) -> None:
        """A line has its outcome."""
        lane = self._land(line)
        self._failed.pop(line.number, None)
        lane.answered += 1
        lane.failures, lane.pause, lane.probe_until = 0, 0.0, 0.0
        lane.waiting_since = lane.stuck_since = None
        if lane.wait is not None and lane.wait.at_once:
            lane.held_until = min(lane.held_until, now)

    def leave(self, line: BatchInputLine, wait: Wait | None = None) -> list[BatchInputLine]:
        """A line that was taken gets no outcome here, since the batch ends, or goes on elsewhere or later.

        `wait`: what would be its wait otherwise. Returns the line if that was the last of its tries.
        """
        self._land(line)
        if wait is not None and wait.counted:
            failed = self._failed.setdefault(line.number, _Failed())
            failed.tries += 1
            if failed.tries >= MAX_TRIES:
                return [line]
        self._left += 1
        return []

    def put_back(self, line: BatchInputLine, wait: Wait, now: float) -> list[BatchInputLine]:
        """A line waits. Returns the lines that wait no longer, with what came of this one as their outcome."""
        lane = self._land(line)
        failed = self._failed.setdefault(line.number, _Failed())
        if lane.waiting_since is None:
            lane.waiting_since = now
        lane.wait, lane.probe_until = wait, 0.0
        failed.reason = wait.reason
        failed.waiting_since = now if failed.waiting_since is None else failed.waiting_since
        if wait.bounded:
            failed.since = now if failed.since is None else failed.since
            lane.stuck_since = now if lane.stuck_since is None else lane.stuck_since
        if wait.counted:
            return self._count(line, lane, failed, wait, now)
        poison = failed.waits >= _POISON and lane.answered > failed.answered
        failed.waits, failed.answered = failed.waits + 1, lane.answered
        if wait.bounded and lane.stuck_since is not None and now - lane.stuck_since >= PATIENCE:
            return [line, *_drained(lane)]
        if wait.bounded and failed.since is not None and now - failed.since >= PATIENCE:
            return [line]
        if lane.held_until <= now:  # a wait of its own, and not one more of several that were begun together
            longest = _LONGEST_PAUSE.get(wait.reason, _LONGEST_PAUSE_OTHERS)
            lane.pause = min(max(_FIRST_PAUSE, 2 * lane.pause), longest)
        known = wait.seconds is not None
        seconds = lane.pause if wait.seconds is None else max(wait.seconds, _SHORTEST)
        if known and wait.reason is BatchWait.UPSTREAM:
            seconds = max(seconds, lane.pause)  # what says "in a second" all day
        if poison:
            seconds = max(seconds, _DEAR * failed.waits)
        look = _LOOK[BatchWait.UPSTREAM] if poison else _LOOK.get(wait.reason, _LOOK_OTHERS)
        until = now + min(seconds, look)
        failed.until = now + seconds if known or not wait.bounded else None
        if not poison:
            lane.hold(until, failed.until)
        if wait.bounded:  # it may be about this line alone
            heapq.heappush(lane.later, (max(until, now + _DEAR), line.number, line))
        elif poison or wait.reason is BatchWait.UPSTREAM:
            heapq.heappush(lane.later, (until, line.number, line))
        else:
            lane.fresh.appendleft(line)
        return []

    def _count(
        self, line: BatchInputLine, lane: _Lane, failed: _Failed, wait: Wait, now: float
    ) -> list[BatchInputLine]:
        """An upstream failed on a line, or the portal on what an upstream may bill for."""
        failed.tries += 1
        if failed.tries >= MAX_TRIES:
            return [line]
        if wait.reason is BatchWait.UPSTREAM:
            pause = min(2.0 ** (failed.tries - 1), _TRY_PAUSE)
        else:
            pause = _OWN_TRY_PAUSE * _OWN_TRY_FACTOR ** (failed.tries - 1)
        failed.until = until = now + max(pause, wait.seconds or 0.0)
        lane.failures += 1
        if wait.seconds is not None and wait.reason is not BatchWait.PORTAL:  # the others are refused likewise
            lane.hold(now + min(wait.seconds, _LOOK.get(wait.reason, _LOOK_OTHERS)), now + wait.seconds)
        elif lane.failures > _FAILURES:
            slowed = now + min(2.0 ** (lane.failures - _FAILURES - 1), _SLOWED)
            lane.hold(slowed, slowed)
        heapq.heappush(lane.later, (until, line.number, line))
        return []

    def waiting(self, now: float) -> tuple[BatchWait, float, float | None] | None:
        """What the batch waits for, since when and until when at the soonest; None while it goes on.

        That end is what was named, however often it is looked at meanwhile whether it has come already; None: nobody
        knows, since somebody has to do something.
        """
        found = None
        for lane in self._lanes.values():
            if not lane.fresh and not lane.later:
                continue
            if lane.wait is not None and lane.held_until > now - (_SHOWN if lane.fresh else 0.0):
                since = lane.stuck_since if lane.wait.bounded else lane.waiting_since
                reason = lane.wait.reason
                until = lane.held_for
                if not lane.fresh:
                    own = self._failed[lane.later[0][1]].until
                    until = None if until is None or own is None else max(until, own)
            elif lane.fresh or self._flying:
                return None
            else:  # only lines that wait by themselves are left
                at, number, _ = lane.later[0]
                failed = self._failed[number]
                reason, since, until = failed.reason, failed.waiting_since, failed.until
                if at <= now - _SHOWN:
                    return None
            if found is None or (until is not None and (found[2] is None or until < found[2])):
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
