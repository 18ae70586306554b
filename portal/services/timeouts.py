"""How long a statement on the database is waited for, here and now; and whether a thread works for the disk instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from portal import limits


class Refusals:
    """What this process refused since the database, or a lock in it, was waited for too long."""

    def __init__(self) -> None:
        self.number = 0

    def add(self) -> None:
        """May be called in any thread: one that is lost among many does no harm."""
        self.number += 1


refusals: Final = Refusals()
_seconds: Final[ContextVar[float | None]] = ContextVar("statement_timeout", default=limits.QUERY_SECONDS)


@contextmanager
def statement_timeout(seconds: float | None) -> Iterator[None]:
    """Inside, in this thread or task, a statement on PostgreSQL is waited for so long.

    None: as long as the server answers others, for commands and migrations.
    """
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


class FileWork:
    """What a thread does for one request: it waits for the disk now, or for the database."""

    def __init__(self) -> None:
        self.begun = False  # a thread has it
        self.on_disk = False


_work: Final[ContextVar[FileWork | None]] = ContextVar("file_work", default=None)


@contextmanager
def doing(work: FileWork) -> Iterator[None]:
    """Inside, this thread does this work."""
    token = _work.set(work)
    work.begun = True
    try:
        yield
    finally:
        _work.reset(token)


@contextmanager
def on_disk() -> Iterator[None]:
    """Inside, the thread waits for the disk and not for the database, and may take longer. Also a decorator."""
    work = _work.get()
    if work is None:
        yield
        return
    before, work.on_disk = work.on_disk, True
    try:
        yield
    finally:
        work.on_disk = before


def statement_seconds() -> float | None:
    """How long a statement is waited for here; None: as long as the server answers others."""
    return _seconds.get()
