"""How long Redis is waited for, by every client of it, and what its errors mean."""

from __future__ import annotations

from typing import Any, Final

from portal import limits

SILENT: Final = "does not answer"


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


def fault_of(error: BaseException) -> str:
    """What is wrong with Redis, to follow its name: that it does not answer, or what its answer says. Nothing secret.

    A Redis can be well and take no writes: a replica, one whose memory is full, or one that cannot save.
    """
    from redis import exceptions  # imported only where Redis is configured

    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)):
        return "does not let the portal in: check the user and the password in AIRELAYS_REDIS_URL"
    if isinstance(error, exceptions.BusyLoadingError):
        return "is starting"
    if isinstance(error, exceptions.ResponseError):
        return "takes no writes: it is a read-only replica, its memory is full, or it cannot save"
    return SILENT
