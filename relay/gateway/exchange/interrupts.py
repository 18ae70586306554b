"""Why a running request ends before its answer does."""

from __future__ import annotations

from enum import Enum
from typing import Final

from relay.errors import UpstreamTimeout


class Interrupt(Enum):
    """Why a running request was cancelled from outside its own task."""

    CLIENT_GONE = "the client left"
    FIRST_BYTE = "no first byte in time"
    IDLE = "silent for too long"
    TOTAL = "took too long"
    DATABASE = "the database did not answer in time"
    REVOKED = "the token was revoked"
    USER_DISABLED = "the user was disabled"
    SPENT = "nothing was left to pay with"
    KILLED = "ended by an administrator"
    STOPPING = "the portal is stopping"


_TIMEOUTS: Final = {
    Interrupt.FIRST_BYTE: (
        "The upstream did not begin to answer in time (first-byte timeout). Try again, or use a faster model."
    ),
    Interrupt.IDLE: "The upstream fell silent in the middle of its answer (idle timeout). Try again.",
    Interrupt.TOTAL: "The answer took longer than this portal allows (total timeout). Ask for a shorter answer.",
}


class Ended(Exception):
    """The request must end, for a reason other than a failure of the upstream."""

    def __init__(self, reason: Interrupt) -> None:
        super().__init__(reason.value)
        self.reason = reason


def timeout_error(reason: Interrupt) -> UpstreamTimeout:
    return UpstreamTimeout(_TIMEOUTS[reason])
