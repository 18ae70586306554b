"""Calls to servers of others in the course of a page: mail servers, sign-in providers, upstreams that staff test.

They may hang, and anybody may cause them by a click. While one runs it holds nothing that other people need: neither
one of the few turns of pages, nor a connection to the database, nor a transaction. Each ends in time, also where a
server sends a byte now and then; its thread may go on, and counts among the few that one server gets at once.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, ParamSpec, TypeVar

from django.db import connection, connections

from portal import limits
from portal.lib.net import Allowance

logger: Final = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


# What sign-in providers may be reached at outside the public Internet.
allowances: Callable[[], Sequence[Allowance]] = lambda: ()  # noqa: E731  # replaced by relay.apps


class NotAnswering(OSError):
    """A server did not answer in time. The message is for the log."""


class PageTurn:
    """The turn in which a page is made, and the time that it has for servers of others. Belongs to one request."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        """`give_back` may be called from any thread, and more than once."""
        self.give_back = give_back
        self._until = 0.0  # `time.monotonic()` seconds, from the first call on

    def seconds_left(self) -> float:
        if not self._until:
            self._until = time.monotonic() + limits.PAGE_OUTSIDE_SECONDS
        return self._until - time.monotonic()


page_turn: Final[ContextVar[PageTurn | None]] = ContextVar("page_turn", default=None)
# Whether a mail that is sent now is not waited for: how long that takes would tell whether there is an account.
unawaited: Final[ContextVar[bool]] = ContextVar("unawaited", default=False)


class _Server:
    """The calls to one server."""

    def __init__(self) -> None:
        self.free = threading.BoundedSemaphore(limits.OUTSIDE_CALLS)
        self.waiting = 0


_servers: Final[dict[str, _Server]] = {}
_lock: Final = threading.Lock()


def in_transaction() -> bool:
    """Whether this thread is inside a transaction, other than that of a test."""
    return any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def seconds_left(seconds: float) -> float:
    """How long a call may take here that may take so long by itself. Raises NotAnswering when no time is left."""
    turn = page_turn.get()
    left = seconds if turn is None else min(seconds, turn.seconds_left())
    if left <= 0:
        raise NotAnswering(f"other servers took the {limits.PAGE_OUTSIDE_SECONDS} seconds that one page has for them")
    return left


def step_aside() -> None:
    """Give up what others need: the page's turn, and this thread's connections to the database."""
    turn = page_turn.get()
    if turn is not None:
        turn.give_back()
    if in_transaction():
        logger.error("another server is asked inside a transaction, which others wait for", stack_info=True)
    for one in connections.all(initialized_only=True):
        if not one.in_atomic_block:
            one.close()


@contextmanager
def waiting_for(server: str, seconds: float) -> Iterator[float]:
    """Inside, a server is asked with a time limit of its own, which is yielded. Raises NotAnswering.

    `server`: its name, by which calls are counted. Must not be entered inside a transaction.
    """
    until = time.monotonic() + seconds_left(seconds)
    step_aside()
    with _lock:
        found = _servers.setdefault(server, _Server())
        if found.waiting >= limits.OUTSIDE_WAITING:
            raise NotAnswering(f"{found.waiting} others wait for {server} already")
        found.waiting += 1
    try:
        if not found.free.acquire(timeout=max(0.0, until - time.monotonic())):
            raise NotAnswering(f"earlier calls to {server} have not been answered")
    finally:
        with _lock:
            found.waiting -= 1
    try:
        yield max(0.1, until - time.monotonic())
    finally:
        found.free.release()


def call(server: str, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that asks a server, in a thread, for at most so long. Raises what it raises, and NotAnswering.

    The function must not use the database. Must not be called inside a transaction.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            with waiting_for(server, seconds):
                if not outcome.set_running_or_notify_cancel():
                    return  # nobody waits for it any more, so it is not begun
                result = function(*args, **kwargs)
        except BaseException as error:
            if not outcome.cancelled():
                outcome.set_exception(error)
        else:
            outcome.set_result(result)

    until = time.monotonic() + seconds_left(seconds)
    step_aside()
    threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name=f"airelays {server}", daemon=True
    ).start()
    try:
        return outcome.result(until - time.monotonic())
    except TimeoutError:
        if outcome.done():
            raise
        outcome.cancel()
        raise NotAnswering(f"{server} did not answer within {seconds:g} seconds") from None


def later(server: str, seconds: float, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Begin a call to a server in a thread of its own. Nobody waits for it; a failure is logged.

    It counts among the calls to the server, and is given up when it cannot begin within `seconds`.
    """

    def work() -> None:
        page_turn.set(None)
        try:
            with waiting_for(server, seconds):
                function(*args, **kwargs)
        except Exception as error:
            logger.error("%s, which nobody waited for: %s", server, error)

    threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name=f"airelays {server}", daemon=True
    ).start()
