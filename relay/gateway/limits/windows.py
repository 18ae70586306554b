"""Rate and concurrency limits with sliding windows. Pure except for the counters: callers pass the time.

A sliding window weights the count of the previous window by the part of it that still overlaps. So 60 requests a minute
never allow 120 within two seconds, and a limit needs only two numbers. All limits of a request are checked first, and
counted only if none of them refuses. `relay.gateway.limits.redis` does the same in Redis, for several workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MINUTE: Final = 60.0
DAY: Final = 86_400.0
REQUESTS: Final = "rpm"
TOKENS: Final = "tpm"
PER_DAY: Final = "rpd"
SLOTS: Final = "slots"  # requests at once
_WINDOWS: Final = {REQUESTS: MINUTE, TOKENS: MINUTE, PER_DAY: DAY}
_NO_STATE: Final[list[float]] = [0.0, 0.0, 0.0]
_MAX_KEYS: Final = 200_000


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


@dataclass(slots=True)
class LimitRemaining:
    """The remainder of a limit."""

    limit: int
    remaining: int
    reset: float  # seconds until all of it is available again


@dataclass(slots=True)
class LimitVerdict:
    """The result of checking a request against its limits."""

    refused: Check | None = None  # the limit that refuses; None: everything was counted
    retry_after: float = 0.0  # seconds
    requests: LimitRemaining | None = None  # the request limit with the lowest remainder
    tokens: LimitRemaining | None = None  # the token limit with the lowest remainder


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


def window_usage(now: float, start: float, current: float, previous: float, window: float) -> float:
    """The count in the sliding window that ends now."""
    return current + previous * max(0.0, 1.0 - (now - start) / window) if previous else current


def seconds_to_reset(now: float, start: float, current: float, previous: float, window: float) -> float:
    """Seconds until the count is zero, if nothing else comes."""
    if current:
        return 2 * window - (now - start)
    return max(0.0, window - (now - start)) if previous else 0.0


def seconds_to_fit(
    now: float, start: float, current: float, previous: float, window: float, limit: float, cost: float
) -> float:
    """Seconds until `cost` fits, if nothing else comes."""
    elapsed = now - start
    if current + cost <= limit:
        return max(0.0, window * (1.0 - (limit - current - cost) / previous) - elapsed) if previous else 0.0
    later = window * (1.0 - (limit - cost) / current) if current else 0.0
    return window - elapsed + max(0.0, later)


def lower_remaining(found: LimitRemaining | None, check: Check, used: float, reset: float) -> LimitRemaining:
    """The limit with the lower remainder: `found`, or that of `check`."""
    remaining = int(check.limit - used)
    if remaining < 0:
        remaining = 0
    return LimitRemaining(check.limit, remaining, reset) if found is None or remaining < found.remaining else found


class MemoryLimiter:
    """Counters of one process. Not for several threads."""

    def __init__(self) -> None:
        self._windows: dict[str, list[float]] = {}  # start, count, count of the previous window
        self._slots: dict[str, int] = {}

    def acquire(self, wanted: Sequence[Check], tokens: int, slot: str, now: float) -> LimitVerdict:
        """Count a request with its expected tokens against all of its limits, or against none."""
        verdict = LimitVerdict()
        states: list[list[float]] = []
        for check in wanted:
            window = check.window
            if not window:
                states.append(_NO_STATE)
                if self._slots.get(check.key, 0) >= check.limit:
                    verdict.refused, verdict.retry_after = check, max(verdict.retry_after, 1.0)
                continue
            state = self._windows.get(check.key)
            if state is None or now - state[0] >= window:
                state = self._state(check, now)
            states.append(state)
            start, current, previous = state
            cost = check.cost(tokens)
            if window_usage(now, start, current, previous, window) + cost > check.limit:
                needed = seconds_to_fit(now, start, current, previous, window, check.limit, cost)
                if needed >= verdict.retry_after:
                    verdict.refused, verdict.retry_after = check, needed
        counted = verdict.refused is None
        day: LimitRemaining | None = None
        for check, state in zip(wanted, states, strict=True):
            window, kind = check.window, check.kind
            if not window:
                if counted:
                    self._slots[check.key] = self._slots.get(check.key, 0) + 1
                continue
            if counted:
                state[1] += check.cost(tokens)
            start, current, previous = state
            used, reset = (
                window_usage(now, start, current, previous, window),
                seconds_to_reset(now, start, current, previous, window),
            )
            if kind is REQUESTS:
                verdict.requests = lower_remaining(verdict.requests, check, used, reset)
            elif kind is TOKENS:
                verdict.tokens = lower_remaining(verdict.tokens, check, used, reset)
            else:
                day = lower_remaining(day, check, used, reset)
        if verdict.requests is None:
            verdict.requests = day  # limits per minute take precedence over those per day
        if len(self._windows) > _MAX_KEYS:
            self._forget(now)
        return verdict

    def finish(self, counted: Sequence[Check], expected: int, used: int | None, slot: str, now: float) -> None:
        """A request ended: frees its slots, and replaces its expected tokens by the used ones; None: they stand."""
        for check in counted:
            if not check.window:
                left = self._slots.get(check.key, 0) - 1
                if left > 0:
                    self._slots[check.key] = left
                else:
                    self._slots.pop(check.key, None)
            elif used is not None and check.kind is TOKENS:
                state = self._state(check, now)
                state[1] = max(0.0, state[1] + used - check.cost(expected))

    def _state(self, check: Check, now: float) -> list[float]:
        state = self._windows.get(check.key)
        if state is None:
            state = self._windows[check.key] = [now, 0.0, 0.0]
        elif now - state[0] >= check.window:
            steps = int((now - state[0]) // check.window)
            state[0], state[1], state[2] = state[0] + steps * check.window, 0.0, state[1] if steps == 1 else 0.0
        return state

    def _forget(self, now: float) -> None:
        """Drop counters that have become zero."""
        for key, state in list(self._windows.items()):
            if now - state[0] > 2 * (DAY if key.endswith(PER_DAY) else MINUTE):
                del self._windows[key]
