"""Failures of the portal itself while it runs a batch: when the batch is tried again, and when it ends for them. Pure.

A database that is away fails every batch: it is waited for, though not for ever, since what looks like it may be about
one batch alone. What else fails is a fault, and does so again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json
from relay.errors import RelayError, RelayUnavailable
from relay.storage.batch_input import error

MAX_FAULTS: Final = 5  # of one batch
MAX_FAULTS_ENDING: Final = 2  # of one that was cancelled, or has expired
AWAY_SECONDS: Final = 3600.0  # that the database is waited for, while it lets the batch be claimed
AWAY_SECONDS_ENDING: Final = 300.0
_AWAY_TRIES: Final = 5  # within them, at least
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 40.0
_FORGOTTEN: Final = 7200.0  # seconds after which what has failed before counts no more
_MOST_BATCHES: Final = 1_000  # whose failures are remembered


@dataclass(slots=True)
class _Known:
    since: float
    last: float
    faults: int = 0
    away: int = 0


class BatchFaults:
    """How often batches have failed in this worker, by their keys."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def add(self, batch: int, fault: Exception, ending: bool, now: float) -> float | None:
        """A batch has failed. Returns the seconds until it is tried again; None: it ends.

        `ending`: it was cancelled, or has expired. `now` in seconds of a clock that does not go back.
        """
        known = self._known.pop(batch, None)
        if known is None or now - known.last > _FORGOTTEN:
            known = _Known(now, now)
        if len(self._known) >= _MOST_BATCHES:
            self._known.pop(next(iter(self._known)))
        self._known[batch] = known
        known.last = now
        if isinstance(fault, RelayUnavailable):
            known.away += 1
            most = AWAY_SECONDS_ENDING if ending else AWAY_SECONDS
            over = known.away >= _AWAY_TRIES and now - known.since >= most
        else:
            known.faults += 1
            over = known.faults >= (MAX_FAULTS_ENDING if ending else MAX_FAULTS)
        doubled = min(known.faults + known.away - 1, 8)
        return None if over else min(_FIRST_PAUSE * 2.0**doubled, _LONGEST_PAUSE)

    def forget(self, batch: int) -> None:
        self._known.pop(batch, None)


def entry_of(fault: Exception) -> Json:
    """The entry in `errors` of a batch that ends because of a fault."""
    if isinstance(fault, RelayError):
        return error(fault.public_code or "server_error", fault.message)
    return error(
        "server_error",
        "The portal failed on this batch several times. Tell its administrator, who finds why in the log by the "
        "batch's id; what was answered is kept where it could be written.",
    )
