"""Limits of what one address may send to /v1, whatever its token: requests a minute with a burst, and requests at once.

Each worker counts alone, in memory. An address that has been idle long enough to be full again is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from portal.lib.net import block_key
from relay.errors import RateLimited

_TRACKED: Final = 100_000  # addresses; the one that was idle longest is forgotten first
_BURST_SHARE: Final = 3  # of a minute's requests, so many parts may come at once unless it is configured


class AddressLimits:
    """A bucket of requests and the running requests of each address. Times are given by the caller, in seconds."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when
        self._running: dict[str, int] = {}
        self.configure(0, 0, 0)

    def configure(self, per_minute: int, burst: int, at_once: int) -> None:
        """Set the limits; 0 is none."""
        self._per_second = per_minute / 60
        self._burst = float(max(1, burst or per_minute // _BURST_SHARE))
        self._at_once = at_once
        self.limited = bool(per_minute or at_once)

    def enter(self, ip: str, now: float) -> None:
        """Count a request, until `leave`. Raises RateLimited, and counts nothing then."""
        key = block_key(ip)
        if self._at_once and self._running.get(key, 0) >= self._at_once:
            raise RateLimited(
                f"Too many concurrent requests from this IP: at most {self._at_once} at once. Wait for one to end, "
                "then try again.",
                code="too_many_concurrent_requests",
                retry_after=1.0,
            )
        if self._per_second:
            self._take(key, now)
        if self._at_once:
            self._running[key] = self._running.get(key, 0) + 1

    def leave(self, ip: str) -> None:
        """A request that was counted has ended."""
        if not self._at_once:
            return
        key = block_key(ip)
        left = self._running.get(key, 0) - 1
        if left > 0:
            self._running[key] = left
        else:
            self._running.pop(key, None)

    def _take(self, key: str, now: float) -> None:
        had, at = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, had + max(0.0, now - at) * self._per_second)
        enough = left >= 1
        self._buckets[key] = (left - 1 if enough else left, now)
        if len(self._buckets) > _TRACKED:
            self._buckets.popitem(last=False)
        if not enough:
            raise RateLimited(
                "Request rate limit exceeded for this IP. Try again after the time in Retry-After.",
                retry_after=max(1.0, (1 - left) / self._per_second),
            )


address_limits: Final = AddressLimits()
