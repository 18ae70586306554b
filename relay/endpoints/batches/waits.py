"""What follows from an attempt at a line of a batch that gave no answer: whether it waits, for what and how long. Pure.

A limit makes a batch slower and loses no line. What an upstream may bill for has a number of tries, whatever kept its
answer from being one: its own failures, and those of the portal. So have failures of an upstream, unless it says when
it can be asked again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from relay.errors import (
    AddressBlocked,
    ConcurrencyLimited,
    ConversionRefused,
    CredentialsExhausted,
    InsufficientQuota,
    InternalError,
    NoAvailableChannel,
    RateLimited,
    RelayError,
    RelayUnavailable,
    StorageFull,
)
from relay.models.batch import BatchWait

MAX_TRIES: Final = 6  # of a line at upstreams that fail and do not say until when, or that may bill for it
# Seconds that a batch waits for what somebody has to do: top up, give it a channel. Its lines fail then, and say why.
PATIENCE: Final = 3600.0
_TRANSIENT: Final = frozenset((408, 429, 500, 502, 503, 504))
_NO_ROOM: Final = "storage_quota_exceeded"
# Errors of the portal itself, which are no refusals of an upstream.
_OWN: Final = (AddressBlocked, InsufficientQuota, RateLimited, RelayUnavailable, StorageFull)


@dataclass(frozen=True, slots=True)
class Wait:
    """The wait of a line."""

    reason: BatchWait
    seconds: float | None = None  # until it may be tried again, None: not known
    counted: bool = False  # it is one of MAX_TRIES
    bounded: bool = False  # it ends after PATIENCE
    at_once: bool = False  # for requests that are running to end


def wait_after(status: int, error: RelayError | None, reached: bool, now: float, made: bool = False) -> Wait | None:
    """The wait after an attempt; None: what came is the outcome of the line.

    `reached`: an upstream was asked. `made`: one has probably made an answer. `now` in seconds since 1970.
    """
    wait = _wait_after(status, error, reached, now)
    own = error is not None and (isinstance(error, _OWN) or error.public_code == _NO_ROOM)
    if wait is not None and (made or (reached and own)):
        return replace(wait, counted=True)
    return wait


def _wait_after(status: int, error: RelayError | None, reached: bool, now: float) -> Wait | None:
    if isinstance(error, InsufficientQuota):
        return _money(error, now)
    if isinstance(error, (RateLimited, AddressBlocked)):
        return Wait(BatchWait.LIMIT, error.retry_after, at_once=isinstance(error, ConcurrencyLimited))
    if error is not None and error.public_code == _NO_ROOM:
        return Wait(BatchWait.ROOM)
    if isinstance(error, (RelayUnavailable, StorageFull)):
        return Wait(BatchWait.PORTAL, error.retry_after)
    in_own_words = error is not None and bool(error.verbatim)  # with a status of its own as well, such as 529
    if status not in _TRANSIENT and not (in_own_words and status >= 500):
        return None
    if error is not None and error.retry_after is not None:
        return Wait(BatchWait.UPSTREAM, error.retry_after)
    if isinstance(error, ConversionRefused):
        return None  # another API is asked for than any channel of the model has
    if isinstance(error, CredentialsExhausted) or (isinstance(error, NoAvailableChannel) and error.retry is False):
        return Wait(BatchWait.OPERATOR, bounded=True)
    if error is not None and not reached and not isinstance(error, InternalError):
        return Wait(BatchWait.UPSTREAM)  # every channel is left alone for a while
    if error is not None and error.retry is False:
        return None
    return Wait(BatchWait.UPSTREAM, counted=True)


def _money(error: InsufficientQuota, now: float) -> Wait:
    if error.retry:  # held for requests that are running
        return Wait(BatchWait.HELD, error.retry_after, at_once=True)
    if error.renewed_at is not None:
        return Wait(BatchWait.BUDGET, max(0.0, error.renewed_at - now))
    return Wait(BatchWait.MONEY, bounded=True)
