"""Why a running request ends before its answer does."""

from __future__ import annotations

from enum import Enum
from typing import Final

from relay.errors import RequestEnded, UpstreamTimeout


class Interrupt(Enum):
    """Why a running request was cancelled from outside its own task."""

    CLIENT_GONE = "the client left"
    FIRST_BYTE = "no first byte in time"
    IDLE = "silent for too long"
    TOTAL = "took too long"
    DATABASE = "the database did not answer in time"
    REVOKED = "the token was revoked"
    WITHDRAWN = "its owner revoked the token"
    USER_DISABLED = "the user was disabled"
    PLAN_OFF = "the user's own plan was turned off"
    CANCELLED = "its user cancelled it"
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

# What ends a running request in the error that says so.
_ENDED: Final = {
    Interrupt.REVOKED: "This request was ended because its token was revoked or disabled. Use another token.",
    Interrupt.WITHDRAWN: (
        "This request was ended because the owner of its token revoked, disabled or rotated it. Use another token."
    ),
    Interrupt.USER_DISABLED: (
        "This request was ended because the account of its token was disabled. Ask the portal's administrator."
    ),
    Interrupt.PLAN_OFF: (
        "This request was ended because the ChatGPT plan that answered it was turned off, or its owner signed out or "
        "may not use it any more. Turn it on again, or use another model."
    ),
    Interrupt.CANCELLED: "This request was cancelled by its user. Send it again for another answer.",
    Interrupt.KILLED: (
        "This request was ended by an administrator of the portal. Ask them why before you send it again."
    ),
}
# As if the client had left: the answer is read on for its usage, and charged. A user can cause each of these.
AS_IF_LEFT: Final = frozenset(
    (Interrupt.REVOKED, Interrupt.WITHDRAWN, Interrupt.USER_DISABLED, Interrupt.PLAN_OFF, Interrupt.CANCELLED)
)


class Ended(Exception):
    """The request must end, for a reason other than a failure of the upstream."""

    def __init__(self, reason: Interrupt) -> None:
        super().__init__(reason.value)
        self.reason = reason


def ended_error(reason: Interrupt) -> RequestEnded | None:
    """The client's error for a request that somebody has ended; None for other reasons."""
    text = _ENDED.get(reason)
    return RequestEnded(text) if text is not None else None


def timeout_error(reason: Interrupt) -> UpstreamTimeout:
    return UpstreamTimeout(_TIMEOUTS[reason])
