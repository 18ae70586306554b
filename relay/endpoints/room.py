"""How much room a user has left, for paths that do not ask the database each time: see `relay.storage.room`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.single_flight import SingleFlight
from relay.storage import room

_FRESH_SECONDS: Final = 10.0  # for which a number is used; what this worker stores meanwhile is taken off it
_MOST_USERS: Final = 10_000


@dataclass(slots=True)
class _Known:
    left: int
    until: float


class UserRoom:
    """The room of users, as this worker knows it."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._reading: SingleFlight[_Known] = SingleFlight()

    async def left(self, user_id: int) -> int:
        """The bytes that may still be stored for a user. Raises RelayUnavailable."""
        known = self._known.get(user_id)
        if known is None or known.until < time.monotonic():
            known = await self._reading.read(user_id, partial(self._read, user_id))
        return known.left

    async def _read(self, user_id: int) -> _Known:
        left = await snapshot_cache.in_thread(room.room_left, user_id)
        if len(self._known) >= _MOST_USERS:
            self._known.clear()
        known = self._known[user_id] = _Known(left, time.monotonic() + _FRESH_SECONDS)
        return known

    def stored(self, user_id: int, size: int) -> None:
        """Take off what is about to be stored."""
        known = self._known.get(user_id)
        if known is not None:
            known.left -= size


user_room: Final = UserRoom()
