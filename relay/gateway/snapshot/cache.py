"""What a worker keeps in memory of the configuration, and how it learns of changes.

A change made in this process is in force when its transaction has committed; one made elsewhere when the poller has seen its row in the
feed, which is looked at every 0.4 seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, ParamSpec, TypeVar

from django.db import DataError, connection
from django.db import Error as DatabaseError

from accounts.models import Change
from accounts.models.change import listen
from portal.lib import clock
from relay.errors import InvalidRequest, RelayUnavailable, tell
from relay.gateway.access.address_block import guard
from relay.gateway.snapshot import load
from relay.gateway.snapshot.views import Caller, Snapshot

P = ParamSpec("P")
T = TypeVar("T")

logger: Final = logging.getLogger(__name__)
_CALLERS: Final = 50_000
_UNKNOWN: Final = 5_000
_GAP_SECONDS: Final = 60.0
_KEEP: Final = timedelta(days=1)


class Store:
    """The snapshot and the cache of callers. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, Caller] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()  # digests of bad tokens; apart, so that they push no good one out
        self._epoch = 0  # grows with every drop, so that a read begun before a drop is not cached after it
        self._loading: dict[str, asyncio.Future[Caller | None]] = {}
        self._threads = ThreadPoolExecutor(2, "airelays-load")
        self._slow_threads = ThreadPoolExecutor(4, "airelays-files")
        self._dropped: list[Callable[[str, int], None]] = []
        self._listeners: dict[str, list[Callable[[str], None]]] = {}
        listen(self.apply)

    def on_drop(self, callback: Callable[[str, int], None]) -> None:
        """Call `callback(digest, user_id)` whenever a token ("" and a user id: all tokens of a user) has changed."""
        self._dropped.append(callback)

    def on(self, topic: str, callback: Callable[[str], None]) -> None:
        """Call `callback(key)`, in any thread, for every change of a topic that is none of configuration."""
        self._listeners.setdefault(topic, []).append(callback)

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """Raises RelayUnavailable while nothing could be read yet."""
        if self._snapshot is None:
            raise RelayUnavailable("The portal is starting or cannot read its database. Try again in a few seconds.", retry_after=5)
        return self._snapshot

    def cached(self, digest: str) -> Caller | None:
        """The caller, if this worker knows it already. None says nothing."""
        return self._callers.get(digest)

    async def caller(self, digest: str) -> Caller | None:
        """The caller behind a digest, from memory or with one hop to the database. Raises RelayUnavailable."""
        with self._lock:
            if digest in self._callers:
                self._callers.move_to_end(digest)
                return self._callers[digest]
            if digest in self._unknown:
                return None
        running = self._loading.get(digest)
        if running is None:
            running = self._loading[digest] = asyncio.ensure_future(self.in_thread(self._read_caller, digest))
            running.add_done_callback(lambda _: self._loading.pop(digest, None))
        return await asyncio.shield(running)

    def _read_caller(self, digest: str) -> Caller | None:
        epoch = self._epoch
        caller = load.load_caller(digest)
        with self._lock:
            if epoch == self._epoch and caller is not None:
                self._callers[digest] = caller
                while len(self._callers) > _CALLERS:
                    self._callers.popitem(last=False)
            elif epoch == self._epoch:
                self._unknown[digest] = None
                while len(self._unknown) > _UNKNOWN:
                    self._unknown.popitem(last=False)
        return caller

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something that uses the database, in one hop. Raises RelayUnavailable when the database cannot be used."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: _with_connection(function, *args, **kwargs))

    async def aside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what takes its time, such as writing files, so that nobody else's hop waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._slow_threads, lambda: _with_connection(function, *args, **kwargs))

    # -- changing ----------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the whole configuration again. Readings are serialised, so a later one never loses to an earlier one."""
        with self._reading:
            self._snapshot = load.load_snapshot()
            tell(self._snapshot.remedies)
            guard.replace(load.load_blocks(clock.now()))

    def apply(self, topic: str, key: str) -> None:
        """Take note of one row of the change feed."""
        if topic == Change.CATALOG:
            self.reload()
        elif topic == Change.TOKEN:
            with self._lock:
                self._epoch += 1
                self._callers.pop(key, None)
                self._unknown.pop(key, None)
            self._tell(key, 0)
        elif topic == Change.USER:
            user = int(key)
            with self._lock:
                self._epoch += 1
                for digest in [digest for digest, caller in self._callers.items() if caller.user_id == user]:
                    del self._callers[digest]
            self._tell("", user)
        elif topic == Change.ADDRESS:
            guard.replace(load.load_blocks(clock.now()))
        for callback in self._listeners.get(topic, ()):
            callback(key)

    def _tell(self, digest: str, user: int) -> None:
        for callback in self._dropped:
            callback(digest, user)

    def forget(self) -> None:
        """Drop everything, as after a long time without the database."""
        with self._lock:
            self._epoch += 1
            self._callers.clear()
            self._unknown.clear()


def _with_connection(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    except DataError as error:  # a NUL character, or a text that is too long: PostgreSQL and MySQL refuse what SQLite takes
        connection.close()
        raise InvalidRequest("A value of this request cannot be stored: it is too long, or contains a NUL character.") from error
    except DatabaseError as error:
        logger.error("the database cannot be read: %s", error)
        connection.close()
        raise RelayUnavailable("The portal cannot read its database. Try again in a few seconds.", retry_after=5) from error


class FeedPoller:
    """A thread that looks at the change feed. Rows may become visible out of order (a lower id commits later), so gaps are asked for again."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._high = self.position = 0
        self._gaps: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next_prune = clock.monotonic() + 3600

    def start(self) -> None:
        """Read the position of the feed and the configuration, in this order, then follow the feed. Raises DatabaseError."""
        self._begin()
        connection.close()
        self._thread = threading.Thread(target=self._run, name="airelays-feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _begin(self) -> None:
        """Take the newest position, then read everything. Ids missing just below it may belong to transactions that are still open."""
        newest = list(Change.objects.order_by("-pk").values_list("pk", flat=True)[:100])
        self._high = newest[0] if newest else 0
        now = clock.monotonic()
        self._gaps = {pk: now for pk in range(newest[-1], self._high)} if newest else {}
        for pk in newest:
            self._gaps.pop(pk, None)
        self._store.reload()
        self.position = self._high

    def _run(self) -> None:
        failing = False
        while not self._stop.wait(self._seconds):
            try:
                if failing:
                    # Rows may have been pruned or restored meanwhile: begin anew.
                    self._store.forget()
                    self._begin()
                    failing = False
                    logger.warning("the change feed can be read again")
                self.poll()
            except Exception:  # the loop outlives whatever one round meets
                if not failing:
                    logger.exception("the change feed cannot be read; configuration changes wait")
                failing = True
                connection.close()
        connection.close()

    def rows_after(self, high: int) -> list[tuple[int, str, str]]:
        return list(Change.objects.filter(pk__gt=high).order_by("pk").values_list("pk", "topic", "key"))

    def rows_of(self, ids: list[int]) -> list[tuple[int, str, str]]:
        return list(Change.objects.filter(pk__in=ids).values_list("pk", "topic", "key"))

    def poll(self) -> None:
        """Apply what is new."""
        now = clock.monotonic()
        rows = self.rows_after(self._high)
        if self._gaps:
            late = self.rows_of(list(self._gaps))
            for pk, _, _ in late:
                del self._gaps[pk]
            self._gaps = {pk: since for pk, since in self._gaps.items() if now - since < _GAP_SECONDS}
            rows = late + rows
        for pk, _, _ in rows:
            if pk > self._high:
                for missing in range(max(self._high + 1, pk - 100), pk):
                    self._gaps[missing] = now
                self._high = pk
        for topic, key in dict.fromkeys((topic, key) for _, topic, key in rows):
            self._store.apply(topic, key)
        self.position = self._high
        if now >= self._next_prune:
            self._next_prune = now + 3600
            Change.objects.filter(created_at__lt=clock.now() - _KEEP).delete()


store: Final = Store()
