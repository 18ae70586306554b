"""Responses that run and are stored when they end: they can be deleted before that, on any worker.

Nothing of a running answer is in the database. A worker that is asked to delete what it does not run asks the others
through the change feed, and the one that runs it says there that it will not be stored.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

from accounts.models import Change
from accounts.models.change import announce
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.cache import snapshot_cache

_TIME_DIGITS: Final = 12  # of an id, behind its kind, as `portal.lib.ids` writes it


class RunningResponse:
    """A response that is stored when it ends, unless it is deleted before."""

    __slots__ = ("_deleted", "_ended", "_lock")

    def __init__(self) -> None:
        self._deleted = self._ended = False
        self._lock = threading.Lock()  # the change feed is read in a thread of its own

    def delete(self) -> bool:
        """Returns False when it has been deleted already, or is being written."""
        with self._lock:
            first = not (self._deleted or self._ended)
            self._deleted = self._deleted or first
            return first

    def end(self) -> bool:
        """Returns whether it is to be stored."""
        with self._lock:
            self._ended = True
            return not self._deleted


class RunningResponses:
    """Those of one worker. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[str, RunningResponse] = {}
        self._asked: dict[str, asyncio.Future[None]] = {}  # of other workers
        self._loop = asyncio.get_running_loop()

    def begin(self, exchange: Exchange, user_id: int, response_id: str) -> RunningResponse:
        """A response whose id its client is told before it ends."""
        key, found = _key(user_id, response_id), RunningResponse()
        self._running[key] = found
        exchange.at_end.append(lambda: self._running.pop(key, None))  # type: ignore[arg-type]
        return found

    def runs(self, user_id: int, response_id: str) -> bool:
        return _key(user_id, response_id) in self._running

    def delete(self, user_id: int, response_id: str) -> bool:
        """Returns whether it runs here, and will not be stored."""
        found = self._running.get(_key(user_id, response_id))
        return found is not None and found.delete()

    async def delete_elsewhere(self, user_id: int, response_id: str, seconds: float) -> bool:
        """The same of the other workers, which have so long to say so. Raises RelayUnavailable."""
        key = _key(user_id, response_id)
        answer = self._asked.setdefault(key, self._loop.create_future())
        try:
            await snapshot_cache.in_thread(announce, Change.DELETE, [key])
            await asyncio.wait((answer,), timeout=seconds)
            return answer.done()
        finally:
            self._asked.pop(key, None)

    def on_delete(self, key: str) -> None:
        """Another worker asks. Called in any thread that may use the database."""
        found = self._running.get(key)
        if found is not None and found.delete():
            announce(Change.DELETED, [key])

    def on_deleted(self, key: str) -> None:
        """One that was asked will not store it. Called on the event loop."""
        answer = self._asked.get(key)
        if answer is not None and not answer.done():
            answer.set_result(None)


def may_run(response_id: str, seconds: float) -> bool:
    """Whether a response of this id can be running: it is one of the portal's, not older than so many seconds."""
    try:
        made = int(response_id.partition("_")[2][:_TIME_DIGITS], 16) / 1000
    except ValueError:
        return False
    return -seconds < time.time() - made < seconds


def _key(user_id: int, response_id: str) -> str:
    return f"{user_id} {response_id}"
