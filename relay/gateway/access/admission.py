"""Admission: counts a request against every limit that applies to it, and releases its slots when it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from relay.errors import ConcurrencyLimited, RateLimited
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.limits.windows import SLOTS, Check, LimitVerdict, MemoryLimiter

if TYPE_CHECKING:
    from relay.gateway.limits.redis import RedisLimiter

_KINDS: Final = {
    "rpm": "requests a minute",
    "tpm": "tokens a minute",
    "rpd": "requests a day",
    "slots": "requests at once",
}


@dataclass(slots=True, eq=False)
class AdmissionEntry:
    """A request, or an attempt at a channel, that is counted against limits until it ends."""

    admission: Admission
    exchange: Exchange
    verdict: LimitVerdict
    wanted: Sequence[Check]
    tokens: int  # expected
    over: bool  # refused, or ended

    def leave(self) -> None:
        """The exchange has ended: counts the tokens that it used."""
        if not self.over:
            self.over = True
            self.admission.left(self, self.exchange.tokens_used)

    def cancel(self) -> None:
        """The attempt failed: only the request stays counted, without tokens."""
        if not self.over:
            self.over = True
            self.admission.left(self, 0)


class Admission:
    """Counts requests against limits: in memory, or in Redis where workers share them."""

    def __init__(self, redis_url: str) -> None:
        self.redis = _redis_limiter(redis_url) if redis_url else None
        self._memory = MemoryLimiter()

    async def admit(self, exchange: Exchange, wanted: Sequence[Check], tokens: int) -> None:
        """Count a client's request, and add the remaining limits to the answer's headers.

        Raises RateLimited, ConcurrencyLimited, RelayUnavailable.
        """
        entry = await self.enter(exchange, wanted, tokens)
        headers = rate_headers(entry.verdict)
        if entry.verdict.refused is not None:
            refused = limit_error(entry.verdict.refused, entry.verdict.retry_after)
            refused.extra = {name.decode(): value.decode() for name, value in headers}
            raise refused
        exchange.reply_headers += headers

    def check(self, wanted: Sequence[Check]) -> None:
        """Refuse a request whose limits are used up, without counting it; in Redis they are asked when it is counted.

        Raises RateLimited, ConcurrencyLimited.
        """
        found = self._memory.refusing(wanted, time.monotonic()) if self.redis is None else None
        if found is not None:
            raise limit_error(*found)

    async def enter(self, exchange: Exchange, wanted: Sequence[Check], tokens: int) -> AdmissionEntry:
        """Count a request, or an attempt at a channel, until its entry is left or the exchange ends."""
        verdict = (
            self._memory.acquire(wanted, tokens, time.monotonic())
            if self.redis is None
            else await self.redis.acquire(wanted, tokens)
        )
        entry = AdmissionEntry(self, exchange, verdict, wanted, tokens, over=verdict.refused is not None)
        if not entry.over:
            exchange.at_end.append(entry.leave)
        return entry

    def left(self, entry: AdmissionEntry, used: int | None) -> None:
        """Free the slots of an entry and count its actual tokens; `used` None: the expected ones stand."""
        since = entry.verdict.at
        if self.redis is None:
            self._memory.finish(entry.wanted, entry.tokens, used, since, time.monotonic())
        else:
            self.redis.finish(entry.wanted, entry.tokens, used, since)

    async def close(self) -> None:
        if self.redis is not None:
            await self.redis.close()


def _redis_limiter(url: str) -> RedisLimiter:
    from relay.gateway.limits.redis import RedisLimiter  # redis is imported only where it is used

    return RedisLimiter(url)


def limit_error(check: Check, retry_after: float) -> RateLimited:
    """The error for a request that exceeds a limit."""
    if check.kind == SLOTS:
        text = (
            f"Too many requests of {check.name} are running: at most {check.limit} at once. Wait for one to end, then "
            "try again."
        )
        return ConcurrencyLimited(text, retry_after=max(retry_after, 1.0))
    text = (
        f"The limit of {check.name}, {check.limit:,} {_KINDS[check.kind]}, is reached. Try again after the time in "
        "Retry-After."
    )
    return RateLimited(text, retry_after=retry_after)


def rate_headers(verdict: LimitVerdict) -> list[tuple[bytes, bytes]]:
    """OpenAI's `x-ratelimit-…` headers."""
    found: list[tuple[bytes, bytes]] = []
    left = verdict.requests
    if left is not None:
        found += (
            (b"x-ratelimit-limit-requests", b"%d" % left.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % left.remaining),
            (b"x-ratelimit-reset-requests", duration(left.reset)),
        )
    left = verdict.tokens
    if left is not None:
        found += (
            (b"x-ratelimit-limit-tokens", b"%d" % left.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % left.remaining),
            (b"x-ratelimit-reset-tokens", duration(left.reset)),
        )
    return found


def duration(seconds: float) -> bytes:
    """A duration in the form of those headers: `12ms`, `1s`, `6m0s`, `1h2m3s`."""
    if seconds < 1:
        return b"%dms" % max(0, round(seconds * 1000))
    whole = round(seconds)
    if whole < 60:
        return b"%ds" % whole
    if whole < 3600:
        return b"%dm%ds" % divmod(whole, 60)
    return b"%dh%dm%ds" % (whole // 3600, whole % 3600 // 60, whole % 60)
