"""Caches the configuration and the callers of a worker in memory, and invalidates them after changes.

A change made in this process takes effect when its transaction has committed; one made elsewhere when the poller has
read its row in the change feed, every 0.4 seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from django.db import DataError, connection
from django.db import Error as DatabaseError

from accounts.models import Change
from accounts.models.change import listen
from portal import limits
from portal.services.timeouts import FileWork, doing, refusals, statement_timeout
from relay.errors import InvalidRequest, RelayUnavailable, set_remedies
from relay.gateway.snapshot import load
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.channels import ChannelViews
from relay.gateway.snapshot.single_flight import SingleFlight
from relay.gateway.snapshot.snapshot import Snapshot
from relay.models.token import digest_of_sha256, sha256_of

P = ParamSpec("P")
T = TypeVar("T")

logger: Final = logging.getLogger(__name__)
_CALLERS: Final = 50_000
_UNKNOWN: Final = 10_000  # two of each secret
_LOOK_SECONDS: Final = 0.5  # between looks at what the thread of a request waits for


class SnapshotCache:
    """The snapshot and the cache of callers. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._reading = threading.Lock()
        self._channels = ChannelViews()
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, Caller] = OrderedDict()
        # Digests of invalid tokens, and whether they were revoked; they must evict no valid one.
        self._unknown: OrderedDict[str, bool] = OrderedDict()
        self._epoch = 0  # grows with every drop, so that a read that began before it is not cached
        self._loading: SingleFlight[Caller | None] = SingleFlight()
        self._threads = ThreadPoolExecutor(2, "airelays-load")
        self._file_threads = ThreadPoolExecutor(4, "airelays-files")
        self._file_work: set[FileWork] = set()
        self._slow_threads = ThreadPoolExecutor(4, "airelays-slow")
        self._dropped: list[Callable[[str, int], None]] = []
        self._reloaded: list[Callable[[], None]] = []
        self._listeners: dict[str, list[Callable[[str], None]]] = {}
        listen(self.apply)

    def on_drop(self, callback: Callable[[str, int], None]) -> None:
        """Call `callback(digest, user_id)` when a token has changed; "" and a user id: all tokens of a user."""
        self._dropped.append(callback)

    def on(self, topic: str, callback: Callable[[str], None]) -> None:
        """Call `callback(key)`, in any thread, for every change of a topic other than the configuration."""
        self._listeners.setdefault(topic, []).append(callback)

    def on_reload(self, callback: Callable[[], None]) -> None:
        """Call `callback()` after the whole configuration was read again, in the thread that read it."""
        self._reloaded.append(callback)

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot. Raises RelayUnavailable before the first one could be read."""
        if self._snapshot is None:
            raise RelayUnavailable(
                "The portal is starting or cannot read its database. Try again in a few seconds.", retry_after=5
            )
        return self._snapshot

    def cached(self, digest: str) -> Caller | None:
        """The caller from memory; None when it is not cached, whether or not it exists."""
        return self._callers.get(digest)

    def was_revoked(self, digest: str) -> bool:
        """Whether an unknown token, which has just been looked for, is one that was revoked."""
        return self._unknown.get(digest, False)

    async def caller(self, digest: str, secret: str = "") -> Caller | None:
        """The caller of a token's digest, from memory or from the database. Raises RelayUnavailable.

        `secret`: what has this digest, if it was presented: a token is also found by the SHA-256 of it.
        """
        names = (digest, digest_of_sha256(sha256_of(secret))) if secret else (digest,)
        with self._lock:
            if digest in self._callers:
                self._callers.move_to_end(digest)
                return self._callers[digest]
            if all(name in self._unknown for name in names):
                return None
        return await self._loading.read(names, partial(self.in_thread, self._read_caller, names, secret))

    def _read_caller(self, names: tuple[str, ...], secret: str) -> Caller | None:
        epoch = self._epoch
        caller = load.load_caller(names[0], secret)
        revoked = caller is None and load.is_revoked(names)
        with self._lock:
            if epoch == self._epoch and caller is not None:
                self._callers[names[0]] = caller
                while len(self._callers) > _CALLERS:
                    self._callers.popitem(last=False)
            elif epoch == self._epoch:
                self._unknown.update(dict.fromkeys(names, revoked))
                while len(self._unknown) > _UNKNOWN:
                    self._unknown.popitem(last=False)
        return caller

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses the database in a thread.

        Raises RelayUnavailable when the database fails, and after THREAD_SECONDS. What the function had begun by then
        it may finish all the same.
        """
        with_connection = partial(_with_connection, limits.DATABASE_SECONDS, function, *args, **kwargs)
        work = asyncio.get_running_loop().run_in_executor(self._threads, with_connection)
        return await _waited_for(work, limits.THREAD_SECONDS, "database")

    async def in_file_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `in_thread`, for a request's work with files: a separate pool, so that no other call waits for it.

        What it does `on_disk` may take FILE_SECONDS together, and everything else THREAD_SECONDS.
        """
        work = FileWork()

        def call() -> T:
            try:
                with doing(work):
                    return _with_connection(limits.DATABASE_SECONDS, function, *args, **kwargs)
            finally:
                self._file_work.discard(work)

        self._file_work.add(work)
        outcome = asyncio.get_running_loop().run_in_executor(self._file_threads, call)
        most = {True: limits.FILE_SECONDS, False: limits.THREAD_SECONDS}  # by whether it waits for the disk
        left: dict[bool, float] = dict(most)
        try:
            while not outcome.done():
                on_disk, since = self._waits_for_disk(work), time.monotonic()
                await asyncio.wait((outcome,), timeout=min(_LOOK_SECONDS, max(0, left[on_disk])))
                left[on_disk] -= time.monotonic() - since
                if left[on_disk] <= 0 and not outcome.done():
                    raise _not_answering("disk" if on_disk else "database", most[on_disk])
        finally:
            if not outcome.done():
                outcome.cancel()
            if not work.begun:
                self._file_work.discard(work)
        return outcome.result()

    def _waits_for_disk(self, work: FileWork) -> bool:
        """Whether a call waits for the disk: its thread does, or one that it waits for."""
        return work.on_disk or (not work.begun and any(one.on_disk for one in tuple(self._file_work)))

    async def in_slow_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `in_thread`, for long work that no client waits for: it may take FILE_SECONDS in a pool of its own."""
        with_connection = partial(_with_connection, limits.DATABASE_SECONDS, function, *args, **kwargs)
        work = asyncio.get_running_loop().run_in_executor(self._slow_threads, with_connection)
        return await _waited_for(work, limits.FILE_SECONDS, "disk or database")

    # -- changing ----------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the whole configuration again. Reads are serialised, so an earlier one never replaces a later one."""
        with self._reading:
            self._snapshot = load.load_snapshot(self._channels)
            set_remedies(self._snapshot.remedies)
            for callback in self._reloaded:
                callback()

    def apply(self, topic: str, key: str) -> None:
        """Apply one row of the change feed."""
        if topic == Change.CATALOG:
            if (
                self._snapshot is not None
            ):  # else nobody here serves, as in a command: whoever begins to serve reads it then
                self.reload()
        elif topic == Change.TOKEN:
            with self._lock:
                self._epoch += 1
                self._callers.pop(key, None)
                self._unknown.pop(key, None)
            self._notify_dropped(key, 0)
        elif topic == Change.USER:
            user = int(key)
            with self._lock:
                self._epoch += 1
                for digest in [digest for digest, caller in self._callers.items() if caller.user_id == user]:
                    del self._callers[digest]
            self._notify_dropped("", user)
        for callback in self._listeners.get(topic, ()):
            callback(key)

    def _notify_dropped(self, digest: str, user: int) -> None:
        for callback in self._dropped:
            callback(digest, user)

    def forget(self) -> None:
        """Drop all callers, after a time without the database."""
        with self._lock:
            self._epoch += 1
            self._callers.clear()
            self._unknown.clear()


async def _waited_for(work: asyncio.Future[T], seconds: float, what: str) -> T:
    """The result of what a thread does. Raises RelayUnavailable when it is not there in time.

    The limits of the database's client end most waits before. This one is for what has none (a disk), and for the
    time until a thread is free.
    """
    try:
        async with asyncio.timeout(seconds) as timer:
            return await work
    except TimeoutError:
        if not timer.expired():
            raise
        raise _not_answering(what, seconds) from None


def _not_answering(what: str, seconds: float) -> RelayUnavailable:
    logger.error("the %s did not answer within %d seconds", what, seconds)
    if what != "disk":
        refusals.add()
    return RelayUnavailable(f"The portal's {what} does not answer. Try again in a few seconds.", retry_after=5)


def _with_connection(seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        with statement_timeout(seconds):
            return function(*args, **kwargs)
    except DataError as error:  # a NUL character or too long a text: PostgreSQL and MySQL refuse what SQLite accepts
        connection.close()
        raise InvalidRequest(
            "A value of this request cannot be stored: it is too long, or contains a NUL character."
        ) from error
    except DatabaseError as error:
        logger.error("the database cannot be used: %s", error)
        refusals.add()
        connection.close()
        raise RelayUnavailable(
            "The portal cannot use its database. Try again in a few seconds.", retry_after=5
        ) from error
    finally:
        # The worker has more threads than connections: one that idles must not keep others from the database.
        if connection.vendor == "postgresql":
            connection.close()  # which gives it back to the pool


snapshot_cache: Final = SnapshotCache()
