"""The slots for requests of batches in one worker, and who gets the next. A request that only waits holds none.

What is shared is the time of slots: users have equal shares of it, then the tokens of a user, then the batches of a
token. So an upstream that takes long for each request slows its own batches down, and not those of others: a request
that it has had for some seconds does not keep users out who have none.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

AIR_SECONDS: Final = 5.0  # after which a request that is being made no longer counts for users who have none
MOST_IN_AIR: Final = 128  # of those, beside the others: each is little more than a connection that waits
_MOST_IDLE: Final = 1_000  # users, tokens or batches whose use of slots is remembered while they want none


Later = Callable[[float, Callable[[], None]], object]


class _Share:
    """A user, one of their tokens, or one batch: how long it has held slots, and who waits."""

    __slots__ = ("children", "held", "queue", "started", "used", "waiting")

    def __init__(self) -> None:
        self.children: dict[Hashable, _Share] = {}  # those who had their turn last at the end
        self.queue: deque[Slot] = deque()
        self.used = 0.0  # seconds of slots that were given back
        self.held = 0
        self.started = 0.0  # of the slots that are held, summed
        self.waiting = 0

    def time(self, now: float) -> float:
        """Seconds of slots until now."""
        return self.used + self.held * now - self.started

    @property
    def idle(self) -> bool:
        return not self.held and not self.waiting

    def child(self, key: Hashable, now: float) -> _Share:
        """A child that wants a slot. What it did not use while it wanted none is not owed to it."""
        found = self.children.get(key)
        if found is None:
            if len(self.children) >= _MOST_IDLE:
                self.children = {name: one for name, one in self.children.items() if not one.idle}
            found = self.children[key] = _Share()
        if found.idle:
            busy = [one.time(now) for one in self.children.values() if not one.idle]
            found.used = max(found.used, min(busy, default=found.used))
        return found


class Slot:
    """A place among the requests that are being made; until it is granted, a place in the queue."""

    __slots__ = ("_slots", "asked_at", "granted", "held", "path", "since")

    def __init__(self, slots: BatchSlots, path: tuple[_Share, ...]) -> None:
        self._slots, self.path = slots, path  # its user, token and batch
        self.held = False
        self.asked_at = self.since = 0.0
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # False: given back before

    def give_back(self) -> None:
        """Let somebody else have it. May be called again."""
        self._slots.give_back(self)


class BatchSlots:
    """A number of slots. A user who has none gets one though all are taken, until there are twice as many.

    Slots that have been held for AIR_SECONDS are left out of the latter, up to MOST_IN_AIR of them.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic, later: Later | None = None) -> None:
        """`later`: the `call_later` of whatever makes the time of `clock`; by default that of the loop."""
        self._most, self._clock, self._later = most, clock, later
        self._total = 0
        self._users = _Share()
        self._fresh: dict[Slot, None] = {}  # held for less than AIR_SECONDS, longest first
        self._looks = False  # again when the first of those has been held so long

    def ask(self, user_id: int, token_id: int | None = 0, batch_id: int = 0) -> Slot:
        """Ask for a slot: await its `granted`, and give it back in any case."""
        now = self._clock()
        user = self._users.child(user_id, now)
        token = user.child(token_id, now)
        batch = token.child(batch_id, now)
        slot = Slot(self, (user, token, batch))
        slot.asked_at = now
        batch.queue.append(slot)
        for share in slot.path:
            share.waiting += 1
        self._grant()
        return slot

    def give_back(self, slot: Slot) -> None:
        if slot.held:
            now = self._clock()
            slot.held = False
            self._fresh.pop(slot, None)
            self._total -= 1
            for share in slot.path:
                share.held -= 1
                share.started -= slot.since
                share.used += now - slot.since
            self._grant()
        elif slot in (queue := slot.path[-1].queue):
            queue.remove(slot)
            for share in slot.path:
                share.waiting -= 1
            if not slot.granted.done():
                slot.granted.set_result(False)

    def _fits(self, user: _Share) -> bool:
        if self._total < self._most:
            return True
        most = 2 * self._most
        return not user.held and len(self._fresh) < most and self._total < most + MOST_IN_AIR

    def _age(self, now: float) -> None:
        while self._fresh and (first := next(iter(self._fresh))).since + AIR_SECONDS <= now:
            del self._fresh[first]

    def _look_later(self, now: float) -> None:
        """Look again when a slot no longer counts, if somebody who has none waits for that."""
        if self._looks or not self._fresh:
            return
        if any(user.waiting and not user.held for user in self._users.children.values()):
            self._looks = True
            later = self._later or asyncio.get_running_loop().call_later
            later(next(iter(self._fresh)).since + AIR_SECONDS - now, self._look)

    def _look(self) -> None:
        self._looks = False
        self._grant()

    def _grant(self) -> None:
        """Grant what is free to those who have used least, until nothing fits."""
        now = self._clock()
        self._age(now)
        while (slot := self._next(now)) is not None:
            if slot.granted.done():  # who asked was cancelled
                continue
            slot.held, slot.since = True, now
            self._fresh[slot] = None
            self._total += 1
            for share in slot.path:
                share.held += 1
                share.started += now
            slot.granted.set_result(True)
        self._look_later(now)

    def _next(self, now: float) -> Slot | None:
        share = self._users
        while share.children:
            fit = (
                (name, one)
                for name, one in share.children.items()
                if one.waiting and (share is not self._users or self._fits(one))
            )
            found = min(fit, key=lambda pair: pair[1].time(now), default=None)
            if found is None:
                return None
            share.children[found[0]] = share.children.pop(found[0])
            share = found[1]
            share.waiting -= 1
        return share.queue.popleft() if share.queue else None
