"""The bytes of bodies that a worker holds at once: of requests, and of answers that are read whole. Pure."""

from __future__ import annotations

from typing import Final

from portal import limits


class MemoryBudget:
    """Counts bytes in memory, of all and of each owner. Used on the event loop only."""

    def __init__(self, most: int, share: int) -> None:
        """`share`: what one owner may hold, so that nobody takes all of it."""
        self.most, self.share, self.used = most, share, 0
        self._owners: dict[str, int] = {}

    def take(self, owner: str, size: int) -> bool:
        """Count bytes of an owner; returns whether there was room for them. They are not counted otherwise."""
        own = self._owners.get(owner, 0) + size
        if self.used + size > self.most or own > self.share:
            return False
        self.used += size
        self._owners[owner] = own
        return True

    def give_back(self, owner: str, size: int) -> None:
        self.used -= size
        left = self._owners.get(owner, 0) - size
        if left > 0:
            self._owners[owner] = left
        else:
            self._owners.pop(owner, None)

    def configure(self, most: int) -> None:
        self.most, self.share = most, most // 2


bodies: Final = MemoryBudget(512 * limits.MIB, 256 * limits.MIB)  # of /v1; the setting MAX_MEMORY_BYTES
forms: Final = MemoryBudget(limits.PAGES_BYTES, limits.PAGES_BYTES // 4)  # of the pages, whose senders may be anybody


class HeldBytes:
    """What one request has in memory, counted among the bodies."""

    __slots__ = ("owner", "size")

    def __init__(self) -> None:
        self.owner, self.size = "", 0  # in whose name; empty: nobody has taken any

    def take(self, size: int) -> bool:
        """Returns whether there was room."""
        if not bodies.take(self.owner, size):
            return False
        self.size += size
        return True

    def give_back(self, size: int | None = None) -> None:
        """Let go of so many bytes, None: of all. More than are held are none."""
        size = self.size if size is None else min(size, self.size)
        self.size -= size
        bodies.give_back(self.owner, size)
