"""How long a statement on the database is waited for, here and now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from portal import limits

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


def statement_seconds() -> float | None:
    """How long a statement is waited for here; None: as long as the server answers others."""
    return _seconds.get()
