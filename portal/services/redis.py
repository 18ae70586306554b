"""How long Redis is waited for, by every client of it."""

from __future__ import annotations

from typing import Any

from portal import limits


def options() -> dict[str, Any]:
    """Keyword arguments of every connection to Redis, which would wait for ever without them.

    Nothing is tried twice: a kept connection that Redis has closed, as when it was restarted, is seen before it is
    used, and whoever waits for a Redis that hangs would wait several times as long.
    """
    return {
        "socket_connect_timeout": limits.REDIS_SECONDS,
        "socket_timeout": limits.REDIS_SECONDS,
        "retry": None,
        "retry_on_error": [],
    }
