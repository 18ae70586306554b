"""Blocks addresses that repeatedly present invalid tokens. A valid token still works from a blocked address."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from portal.lib.net import block_key

_TRACKED: Final = 100_000  # addresses with recent failures; the oldest is dropped first


@dataclass(frozen=True, slots=True)
class BlockVerdict:
    """The result of a failed attempt."""

    blocked_for: float  # seconds left, 0: not blocked
    failures: int  # recent ones of the address
    new_block: bool  # this failure began the block


class AddressBlock:
    """Counts failures per address in a sliding window. Times are seconds since 1970, given by the caller."""

    def __init__(self, attempts: int = 8, window: float = 300.0, block: float = 900.0) -> None:
        self.attempts, self.window, self.block = attempts, window, block
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._blocked: dict[str, float] = {}
        self._lock = threading.Lock()

    def configure(self, attempts: int, window: float, block: float) -> None:
        self.attempts, self.window, self.block = attempts, window, block

    def failed(self, ip: str, now: float) -> BlockVerdict:
        """Count an invalid token.

        The attempt that reaches the limit is still answered with 401; later ones are blocked.
        """
        key = block_key(ip)
        with self._lock:
            until = self._blocked.get(key, 0.0)
            if until > now:
                return BlockVerdict(until - now, 0, False)
            self._blocked.pop(key, None)
            recent = [at for at in self._failures.pop(key, ()) if at > now - self.window]
            recent.append(now)
            if len(recent) >= self.attempts:
                self._blocked[key] = now + self.block
                return BlockVerdict(0.0, len(recent), True)
            self._failures[key] = recent
            while len(self._failures) > _TRACKED:
                self._failures.popitem(last=False)
            return BlockVerdict(0.0, len(recent), False)

    def succeeded(self, ip: str) -> None:
        """A valid token clears the count of its address."""
        if self._failures:
            with self._lock:
                self._failures.pop(block_key(ip), None)

    def replace(self, blocked: dict[str, float]) -> None:
        """Replace the blocks by those that all workers share through the database."""
        with self._lock:
            for key in self._blocked.keys() - blocked.keys():
                self._failures.pop(key, None)
            self._blocked = dict(blocked)


address_block: Final = AddressBlock()
