"""Rate and concurrency limits with sliding windows. Pure except for the counters: callers pass the time.

A request counts from when it begins until a minute, or a day, later. So no minute ever has more requests than its
limit, wherever it starts, and nobody waits longer than a minute. Those that begin in the same sixtieth of the window
end together, at the time of the last, where they are at most one in `SHARE` of the limit: so never more than that of it
is unused while somebody waits, and of small limits nothing.

All limits of a request are checked first, and counted only if none of them refuses. `relay.gateway.limits.redis` does
the same in Redis, for several workers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

import msgspec

MINUTE: Final = 60.0
DAY: Final = 86_400.0
REQUESTS: Final = "rpm"
TOKENS: Final = "tpm"
PER_DAY: Final = "rpd"
SLOTS: Final = "slots"  # requests at once
_WINDOWS: Final = {REQUESTS: MINUTE, TOKENS: MINUTE, PER_DAY: DAY}
SHARE: Final = 128  # of a limit, that requests of one entry may have
PARTS: Final = 60  # of a window; it has at most 2 * SHARE + PARTS + 1 entries, unless requests use more than expected
MOST: Final = 512  # entries; beyond, all of a part end together
_MAX_KEYS: Final = 200_000
_TIME: Final = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits per minute (requests, tokens), per day (requests), and of requests at once. None: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    concurrency: int | None = None

    def __bool__(self) -> bool:
        return not (self.rpm is self.tpm is self.rpd is self.concurrency is None)


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that has limits: a token, user, group, model, channel or key."""

    key: str  # such as `token:12`
    name: str  # for error messages
    limits: Limits


@dataclass(frozen=True, slots=True)
class Check:
    """One limit of one subject."""

    key: str  # of the counter
    kind: str  # REQUESTS, TOKENS, PER_DAY or SLOTS
    name: str  # of the subject, for error messages
    limit: int
    window: float  # seconds, 0 for slots

    def cost(self, tokens: int) -> int:
        """The amount that a request counts for. One that exceeds the limit by itself may run when nothing else does."""
        if self.kind is not TOKENS:
            return 1
        return tokens if tokens < self.limit else self.limit


class LimitRemaining(msgspec.Struct):
    """The remainder of a limit."""

    limit: int
    remaining: int
    reset: float  # seconds until all of it is available again


class LimitVerdict(msgspec.Struct):
    """The result of checking a request against its limits."""

    refused: Check | None = None  # the limit that refuses; None: everything was counted
    retry_after: float = 0.0  # seconds
    at: float = 0.0  # when it was counted, by the clock of the counters
    requests: LimitRemaining | None = None  # the request limit with the lowest remainder
    tokens: LimitRemaining | None = None  # the token limit with the lowest remainder

    def take(self, check: Check, used: int, reset: float, day: LimitRemaining | None) -> LimitRemaining | None:
        """Take a limit into account that was asked. Returns the lowest limit per day so far."""
        if check.kind is REQUESTS:
            self.requests = _lower(self.requests, check, used, reset)
        elif check.kind is TOKENS:
            self.tokens = _lower(self.tokens, check, used, reset)
        else:
            return _lower(day, check, used, reset)
        return day


def _lower(found: LimitRemaining | None, check: Check, used: int, reset: float) -> LimitRemaining:
    """The limit with the lower remainder: `found`, or that of `check`."""
    remaining = check.limit - used
    if remaining < 0:
        remaining = 0
    return LimitRemaining(check.limit, remaining, reset) if found is None or remaining < found.remaining else found


def checks(subjects: Sequence[Subject]) -> tuple[Check, ...]:
    """The limits of several subjects."""
    found = []
    for subject in subjects:
        limits = subject.limits
        for kind, limit in (
            (REQUESTS, limits.rpm),
            (TOKENS, limits.tpm),
            (PER_DAY, limits.rpd),
            (SLOTS, limits.concurrency),
        ):
            if limit is not None:
                found.append(Check(f"{subject.key}:{kind}", kind, subject.name, limit, _WINDOWS.get(kind, 0.0)))
    return tuple(found)


@dataclass(slots=True)
class Window:
    """What counts in the last minute or day."""

    length: float  # seconds
    used: int = 0
    entries: deque[list[float]] = field(default_factory=deque)  # time and amount, oldest first
    part_until: float = 0.0  # when that part of the window ends in which the newest of them is

    def move(self, now: float) -> None:
        """Drop what no longer counts."""
        entries, since = self.entries, now - self.length
        while entries and entries[0][0] <= since:
            self.used -= int(entries.popleft()[1])

    def add(self, amount: int, limit: int, now: float) -> None:
        entries = self.entries
        self.used += amount
        if now < self.part_until and entries:
            newest = entries[-1]
            if (newest[1] + amount) * SHARE <= limit or len(entries) >= MOST:
                newest[0] = now
                newest[1] += amount
                return
        part = self.length / PARTS
        self.part_until = (now // part + 1) * part
        entries.append([now, amount])

    def give_back(self, amount: int, since: float) -> None:
        """Take back some of what was counted at `since`. It is part of the first entry that is not older."""
        entries = self.entries
        place = len(entries) - 1  # nearly always the newest
        if place < 0 or entries[place][0] < since:
            return
        if place and entries[place - 1][0] >= since:
            place = bisect_left(entries, since, key=_TIME)
        found = entries[place]
        taken = min(amount, int(found[1]))
        found[1] -= taken
        self.used -= taken

    def reset(self, now: float) -> float:
        """Seconds until nothing counts, if nothing else comes."""
        return self.entries[-1][0] + self.length - now if self.entries else 0.0

    def wait(self, over: int, now: float) -> float:
        """Seconds until `over` less counts than now, if nothing else comes. The whole window if that is too much."""
        for time, amount in self.entries:
            over -= int(amount)
            if over <= 0:
                return time + self.length - now
        return self.length


class MemoryLimiter:
    """Counters of one process. Not for several threads. Its clock must not go back."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._slots: dict[str, int] = {}
        self._forget_above = _MAX_KEYS

    def acquire(self, wanted: Sequence[Check], tokens: int, now: float) -> LimitVerdict:
        """Count a request with its expected tokens against all of its limits, or against none."""
        verdict = LimitVerdict(None, 0.0, now)
        states: list[tuple[Window | None, int]] = []  # of each check, and what the request counts for
        for check in wanted:
            if not check.window:
                states.append((None, 1))
                if self._slots.get(check.key, 0) >= check.limit:
                    verdict.refused, verdict.retry_after = check, max(verdict.retry_after, 1.0)
                continue
            state = self._windows.get(check.key)
            if state is None:
                state = self._windows[check.key] = Window(check.window)
            elif state.entries and state.entries[0][0] <= now - state.length:
                state.move(now)
            cost = check.cost(tokens) if check.kind is TOKENS else 1
            states.append((state, cost))
            over = state.used + cost - check.limit
            if over > 0 or check.limit <= 0:
                needed = state.wait(over, now) if check.limit > 0 else state.length
                if needed >= verdict.retry_after:
                    verdict.refused, verdict.retry_after = check, needed
        counted = verdict.refused is None
        day: LimitRemaining | None = None
        for check, (state, cost) in zip(wanted, states, strict=True):
            if state is None:
                if counted:
                    self._slots[check.key] = self._slots.get(check.key, 0) + 1
                continue
            if counted and cost:
                state.add(cost, check.limit, now)
            day = verdict.take(check, state.used, state.reset(now), day)
        if verdict.requests is None:
            verdict.requests = day  # limits per minute take precedence over those per day
        if len(self._windows) > self._forget_above:
            self._forget(now)
        return verdict

    def refusing(self, wanted: Sequence[Check], now: float) -> tuple[Check, float] | None:
        """A limit that is used up, and the seconds to wait; nothing is counted."""
        for check in wanted:
            if not check.window:
                if self._slots.get(check.key, 0) >= check.limit:
                    return check, 1.0
            elif (state := self._windows.get(check.key)) is not None:
                state.move(now)
                if state.used >= check.limit:
                    return check, state.wait(state.used + 1 - check.limit, now)
        return None

    def finish(self, counted: Sequence[Check], expected: int, used: int | None, since: float, now: float) -> None:
        """A request ended that was counted at `since`: frees its slots, and replaces its expected tokens by the used
        ones; `used` None: they stand."""
        for check in counted:
            if not check.window:
                left = self._slots.get(check.key, 0) - 1
                if left > 0:
                    self._slots[check.key] = left
                else:
                    self._slots.pop(check.key, None)
            elif used is not None and check.kind is TOKENS:
                more = used - check.cost(expected)
                state = self._windows.get(check.key)
                if state is None:
                    state = self._windows[check.key] = Window(check.window)
                state.move(now)
                if more > 0:
                    state.add(more, check.limit, now)
                elif since > now - check.window:  # else it no longer counts
                    state.give_back(-more, since)

    def _forget(self, now: float) -> None:
        """Drop counters that are zero. Not tried again before there are twice as many as are left."""
        for key, state in list(self._windows.items()):
            state.move(now)
            if not state.entries:
                del self._windows[key]
        self._forget_above = max(_MAX_KEYS, 2 * len(self._windows))
