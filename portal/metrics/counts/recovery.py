"""Counts what killed workers have committed and could not count any more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from portal.lib.json import encode
from portal.metrics.counts import rows, worker
from portal.metrics.counts.memory import Memory, Slot
from portal.metrics.counts.records import LabelOf, add_to_slot
from relay.models import UsageRecord

_PATIENCE: Final = 5.0  # seconds in which a database ends the transaction of a client that is gone
_AT_ONCE: Final = 500  # ids in one query


class Recovery:
    """Looks after the slots that belong to no worker any more. Uses the database, in one thread at a time."""

    def __init__(self, memory: Memory, own: Slot | None, label_of: LabelOf) -> None:
        self._memory, self._own, self._label_of = memory, own, label_of
        self._found: dict[int, float] = {}  # when a slot was seen with records that are not counted

    def work(self) -> int:
        """Count the records of workers that were killed some seconds ago; returns how many slots that concerned.

        Raises DatabaseError; they are found again then.
        """
        done = 0
        for slot in self._memory.slots:
            if slot is self._own or (slot.is_clean and not slot.numbers[worker.PID]):
                continue
            if not self._memory.take(slot):  # its worker lives
                self._found.pop(slot.number, None)
                continue
            try:
                done += self._count(slot)
            finally:
                self._memory.give_back(slot)
        return done

    def _count(self, slot: Slot) -> bool:
        slot.numbers[worker.PID] = 0
        if slot.is_clean:
            slot.mend()
            return False
        now = time.monotonic()
        if now - self._found.setdefault(slot.number, now) < _PATIENCE:
            return False
        stored = list(_stored(slot.kept_ids()))
        slot.mend()
        add_to_slot(slot, stored, self._memory, self._label_of)
        del self._found[slot.number]
        return True


def _stored(ids: Sequence[str]) -> Iterator[Sequence[Any]]:
    """The records of these ids that there are, as `rows.COLUMNS`."""
    for first in range(0, len(ids), _AT_ONCE):
        some = ids[first : first + _AT_ONCE]
        for *values, attempts in UsageRecord.objects.filter(request_id__in=some).values_list(*rows.COLUMNS):
            yield *values, encode(attempts).decode()
