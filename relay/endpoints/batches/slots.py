"""The slots for requests of batches in one worker, and who gets the next. A request that only waits holds none.

What is shared is the time of slots: users have equal shares of it, then the tokens of a user, then the batches of a
token, as in start-time fair queueing (Goyal, Vin, Cheng 1996): who comes begins at the time of those who are there, so
that what was used while nobody else wanted it is not paid for later, and what was not wanted is not owed.

A request that an upstream has had for some seconds is little more than a connection that waits. So it does not keep
others from their share, nor its own user's other batches from a slot.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

AIR_SECONDS: Final = 5.0  # after which a request that is being made no longer counts for others
MOST_IN_AIR: Final = 128  # of those, beside the others; the last half of them for users who have none
_AIR_OF_BATCH: Final = 1  # that a batch may have which gets one more beside its user's share
_MOST_APART: Final = 120.0  # seconds of slots that a share is ahead of the others, or behind them, at most
_MOST_IDLE: Final = 1_000  # users, tokens or batches whose use of slots is remembered while they want none


Later = Callable[[float, Callable[[], None]], object]


class _Share:
    """A user, one of their tokens, or one batch: how long it has held slots, and who waits."""

    __slots__ = ("children", "fresh", "held", "queue", "started", "used", "virtual", "waiting")

    def __init__(self) -> None:
        self.children: dict[Hashable, _Share] = {}  # those who had their turn last at the end
        self.queue: deque[Slot] = deque()
        self.used = 0.0  # seconds of slots that were given back
        self.held = 0
        self.fresh = 0  # of those, held for less than AIR_SECONDS
        self.started = 0.0  # of the slots that are held, summed
        self.waiting = 0
        self.virtual = 0.0  # the time that the children have reached: where one begins that comes

    def time(self, now: float) -> float:
        """Seconds of slots until now."""
        return self.used + self.held * now - self.started

    @property
    def idle(self) -> bool:
        return not self.held and not self.waiting

    @property
    def has_little(self) -> bool:
        """Whether a batch waits, of it or below it, that has at most one slot."""
        if self.children:
            return bool(self.waiting) and any(one.has_little for one in self.children.values())
        return bool(self.waiting) and self.held <= _AIR_OF_BATCH

    def child(self, key: Hashable, now: float) -> _Share:
        """A child that wants a slot."""
        found = self.children.get(key)
        if found is None:
            if len(self.children) >= _MOST_IDLE:
                self.children = {name: one for name, one in self.children.items() if not one.idle}
            found = self.children[key] = _Share()
        busy = [one.time(now) for one in self.children.values() if one is not found and not one.idle]
        # While others are busy, the least of them; when it is alone, all have what they want.
        reached = min(busy) if busy else max(one.time(now) for one in self.children.values())
        self.virtual = max(self.virtual, reached)
        behind = self.virtual - found.time(now)
        if not found.waiting and behind > 0:  # it had all that it wanted
            found.used += behind
        else:
            found.used += behind - max(-_MOST_APART, min(behind, _MOST_APART))
        return found

    def take_turn(self, child: _Share, now: float) -> None:
        """A child is given a slot."""
        self.virtual = max(self.virtual, child.time(now))
        name = next(name for name, one in self.children.items() if one is child)
        self.children[name] = self.children.pop(name)
        child.waiting -= 1


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
    """A number of slots. When all are taken, there are as many again, for users who have less than their share.

    That is an equal part of the number, and one at least; of slots that have been held for AIR_SECONDS, only a user's
    own count. A user of whom only such are held gets one more, for a batch that has hardly any. All that are held for
    AIR_SECONDS are left out of the number of slots, up to MOST_IN_AIR of them.
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
            self._no_longer_fresh(slot)
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

    def _no_longer_fresh(self, slot: Slot) -> None:
        if slot in self._fresh:
            del self._fresh[slot]
            for share in slot.path:
                share.fresh -= 1

    def _age(self, now: float) -> None:
        while self._fresh and (first := next(iter(self._fresh))).since + AIR_SECONDS <= now:
            self._no_longer_fresh(first)

    def _fits(self, user: _Share, share: int) -> bool:
        """Whether a user gets a slot for any of their batches. `share`: the slots that each user may have."""
        if self._total < self._most:
            return True
        if not self._has_air(user):
            return False
        in_air = user.held - user.fresh
        return not user.held or (user.held < share and len(self._fresh) + in_air < self._most)

    def _fits_little(self, user: _Share) -> bool:
        """Whether a user gets one for a batch that has hardly any: the others of the user hang."""
        return not user.fresh and self._has_air(user) and user.has_little

    def _has_air(self, user: _Share) -> bool:
        most = 2 * self._most
        air = MOST_IN_AIR // 2 if user.held else MOST_IN_AIR
        return len(self._fresh) < most and self._total < most + air

    def _look_later(self, now: float) -> None:
        """Look again when a slot no longer counts, if somebody waits who might get one then."""
        if self._looks or not self._fresh or self._total < self._most:
            return
        if any(user.waiting for user in self._users.children.values()):
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
                share.fresh += 1
                share.started += now
            slot.granted.set_result(True)
        self._look_later(now)

    def _next(self, now: float) -> Slot | None:
        """Take the next slot from the queue: of the user who has used least, of their tokens and batches likewise."""
        busy = sum(not user.idle for user in self._users.children.values())
        share = self._most // busy if busy > 1 else self._most
        little: dict[_Share, bool] = {}  # who gets one, and whether only for a batch that has hardly any
        for user in self._users.children.values():
            if user.waiting and ((fits := self._fits(user, max(1, share))) or self._fits_little(user)):
                little[user] = not fits
        if not little:
            return None
        parent, found = self._users, min(little, key=lambda user: user.time(now))
        only_little = little[found]
        while True:
            parent.take_turn(found, now)
            if not found.children:
                return found.queue.popleft()
            parent = found
            if only_little:
                having = [one for one in parent.children.values() if one.has_little]
                found = min(having, key=lambda one: (one.held, one.time(now)))
            else:
                found = min((one for one in parent.children.values() if one.waiting), key=lambda one: one.time(now))
