"""Reads that are made once for all who want the same thing at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Reads by their keys. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: Final[dict[Hashable, asyncio.Task[T]]] = {}

    async def read(self, key: Hashable, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the read that runs, or of one that is begun; raises what that raises.

        A read goes on when those who wait for it are cancelled.
        """
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.ensure_future(begin())
            running.add_done_callback(partial(self._end, key))
        return await asyncio.shield(running)

    def _end(self, key: Hashable, task: asyncio.Task[T]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # nobody may wait for it any more
