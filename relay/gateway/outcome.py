"""How a request ended, for its usage record."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from relay.errors import (
    InsufficientQuota,
    InvalidRequest,
    NoAvailableChannel,
    RelayError,
    RelayUnavailable,
    RequestEnded,
    Stopping,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
)
from relay.gateway.exchange.interrupts import Interrupt, ended_error
from relay.protocols.usage import NO_USAGE, Delivered, Usage

# Values of relay.models.usage.EndReason, as plain strings: an enum member would be converted for every row.
COMPLETED, CLIENT_GONE, ENDED, SHUTDOWN, INTERNAL = "completed", "client_gone", "ended", "shutdown", "internal_error"
TRUNCATED = "truncated"


def end_reason(error: RelayError) -> str:
    """The end reason of a request that was answered with this error."""
    if isinstance(error, (UpstreamRefused, InvalidRequest)):
        return "client_error"
    if isinstance(error, NoAvailableChannel):
        return "no_channel"
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    if isinstance(error, (RequestEnded, InsufficientQuota)):
        return ENDED
    if isinstance(error, Stopping):
        return SHUTDOWN
    if isinstance(error, RelayUnavailable):
        return INTERNAL
    return TRUNCATED if isinstance(error, UpstreamTruncated) else "upstream_error"


class Outcome(msgspec.Struct, frozen=True):
    """How a request ended, for its record."""

    reason: str  # a value of relay.models.usage.EndReason
    status: int  # of the answer to the client
    usage: Usage | None = None  # as the upstream reported it
    error: RelayError | None = None  # its public message is in the record, which the user sees
    detail: str = ""  # may name an upstream: is in the list of attempts, which only staff see
    delivered: Delivered | None = None  # None: nothing, or neither text nor audio
    at_work: bool = False  # the upstream was, when something else ended the request: it is charged in spite of an error
    answered: bool = False  # the upstream's answer is complete, whatever became of it: it is charged as used


def told(outcome: Outcome, ended_by: Interrupt, streamed: bool) -> Outcome:
    """The outcome of a request that was ended as if its client had left, with the error that says by whom."""
    error = ended_error(ended_by)
    status = outcome.status if streamed or error is None or ended_by is Interrupt.CANCELLED else error.http_status
    return replace(outcome, status=status, error=error)


def says_something(delivered: Delivered | None) -> bool:
    """Whether a part of an answer went through, be it text, sound or a picture."""
    return delivered is not None and (bool(delivered.units()) or delivered.media() != NO_USAGE)
