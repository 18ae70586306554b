"""The slots for requests of batches in one worker. Users take turns, and a request that only waits holds none."""

from __future__ import annotations

import asyncio
from collections import deque


class Slot:
    """A place among the requests that are being made; until it is granted, a place in the queue."""

    __slots__ = ("_slots", "granted", "held", "user_id")

    def __init__(self, slots: BatchSlots, user_id: int) -> None:
        self._slots, self.user_id = slots, user_id
        self.held = False
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # False: given back before

    def give_back(self) -> None:
        """Let somebody else have it. May be called again."""
        self._slots.give_back(self)


class BatchSlots:
    """A number of slots. A user who has none gets one though all are taken, until there are twice as many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0
        self._held: dict[int, int] = {}  # slots by user
        self._queues: dict[int, deque[Slot]] = {}  # by user; the first is whose turn is next

    def ask(self, user_id: int) -> Slot:
        """Ask for a slot: await its `granted`, and give it back in any case."""
        slot = Slot(self, user_id)
        self._queues.setdefault(user_id, deque()).append(slot)
        self._grant()
        return slot

    def give_back(self, slot: Slot) -> None:
        if slot.held:
            slot.held = False
            self._total -= 1
            left = self._held.pop(slot.user_id) - 1
            if left:
                self._held[slot.user_id] = left
            self._grant()
        elif slot in (queue := self._queues.get(slot.user_id, deque())):
            queue.remove(slot)
            if not queue:
                del self._queues[slot.user_id]
            if not slot.granted.done():
                slot.granted.set_result(False)

    def _fits(self, user_id: int) -> bool:
        return self._total < self._most or (user_id not in self._held and self._total < 2 * self._most)

    def _grant(self) -> None:
        """Grant what is free, one to each user who waits, until nothing fits."""
        granted = True
        while granted:
            granted = False
            for user_id in [user_id for user_id in self._queues if self._fits(user_id)]:
                if not self._fits(user_id):
                    continue
                queue = self._queues.pop(user_id)
                slot = queue.popleft()
                if queue:
                    self._queues[user_id] = queue  # behind the other users
                granted = True
                if not slot.granted.done():  # otherwise who asked was cancelled
                    slot.held = True
                    self._total += 1
                    self._held[user_id] = self._held.get(user_id, 0) + 1
                    slot.granted.set_result(True)
