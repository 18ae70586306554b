"""Counts the usage records that the ledger's writer has committed, in the slot of this worker.

Exact, also over a kill. The ids of a batch are in the shared memory before it is committed, and stay there until its
records are counted, all at once; who finds the slot of a killed worker looks up which of them there are
(`portal.metrics.counts.recovery`). Records are counted together once a second, which takes a tenth of what one after
another would: about a hundred instructions a record, in the writer's thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, is_not, itemgetter
from typing import Any, Final

import msgspec

from portal.metrics.counts import rows, worker
from portal.metrics.counts.memory import CHANNEL_CELLS, IDS, MODEL_CELLS, Memory, Slot
from relay.billing.ledger.pending import COLUMNS, PendingRecord, with_shortfall

logger: Final = logging.getLogger(__name__)
_EVERY: Final = 1.0  # seconds
_ROOM: Final = IDS // 2  # records that may wait: a batch of the writer has fewer, and must fit beside them

LabelOf = Callable[[str], str]  # the name under which a model is counted; empty: with all others
Found = Sequence[Any]  # of a record, as rows.COLUMNS


class _Try(msgspec.Struct):
    """An attempt, as the log of a record has it."""

    channel: int = 0
    outcome: str = ""


_tries: Final = msgspec.json.Decoder(list[_Try])
_counted: Final = itemgetter(*(COLUMNS.index(name) for name in rows.COLUMNS))
_id: Final = itemgetter(0)
_row: Final = attrgetter("row")
_of_try: Final = attrgetter("channel", "outcome")
_AMOUNTS: Final = slice(3, 3 + rows.AMOUNTS)
_UPSTREAM_COST, _FIRST, _WHOLE, _LOG = 10, 11, 12, 13  # places in rows.COLUMNS


class RecordCounter:
    """Counts in one slot. `begin` and `written` are called in the writer's thread, `count` in any."""

    def __init__(self, memory: Memory, slot: Slot, label_of: LabelOf) -> None:
        self._memory, self._slot, self._label_of = memory, slot, label_of
        self._lock = threading.Lock()  # of all that follows
        self._waiting: list[Found] = []  # committed, and not counted
        self._batches: list[int] = []
        self._commits: list[int] = []  # microseconds
        self._committing = False
        self._next = time.monotonic() + _EVERY
        self._began = 0.0

    def begin(self, records: Sequence[PendingRecord]) -> None:
        """These are about to be committed."""
        with self._lock:
            self._committing = True
            self._slot.keep_ids(len(self._waiting), [*map(_id, map(_row, records))])
        self._began = time.perf_counter()

    def written(self, records: Sequence[PendingRecord]) -> None:
        """They are on disk."""
        now = time.perf_counter()
        with self._lock:
            self._committing = False
            self._waiting.extend(map(_counted, map(with_shortfall, records)))
            self._batches.append(len(records))
            self._commits.append(round((now - self._began) * 1e6))
            if len(self._waiting) >= _ROOM or time.monotonic() >= self._next:
                self._count()

    def count(self) -> None:
        """Count what waits, unless a batch is being committed: then it is counted with that one."""
        if self._lock.acquire(blocking=False):
            try:
                if self._waiting and not self._committing:
                    self._count()
            finally:
                self._lock.release()

    def _count(self) -> None:
        self._next = time.monotonic() + _EVERY
        found, self._waiting = self._waiting, []
        try:
            add_to_slot(self._slot, found, self._memory, self._label_of)
        except Exception:  # what was paid is not lost for it
            logger.exception("%d usage records are missing in the metrics", len(found))
        rows.observe(self._slot.numbers, worker.BATCH_AT, rows.BATCH, self._batches)
        rows.observe(self._slot.numbers, worker.COMMIT_AT, rows.COMMIT, self._commits)
        self._batches.clear()
        self._commits.clear()


def add_to_slot(slot: Slot, records: Sequence[Found], memory: Memory, label_of: LabelOf) -> None:
    """Add records to a slot, all at once: no ids wait there any more then."""
    shown = slot.shown
    numbers, old = slot.banks[1 - shown], slot.banks[shown]
    changed: dict[int, int] = {}  # rows, and how many numbers they have
    try:
        _add_to_models(numbers, records, lambda name: memory.model_row(label_of(name)), changed)
        _add_to_channels(numbers, records, memory.channel_row, changed)
    except BaseException:
        slot.mend()
        slot.show(shown)
        raise
    slot.show(1 - shown)
    for at, size in changed.items():
        old[at : at + size] = numbers[at : at + size]


def _add_to_models(
    numbers: memoryview[int], records: Iterable[Found], row_of: Callable[[str], int], changed: dict[int, int]
) -> None:
    groups: defaultdict[tuple[str, str], list[Found]] = defaultdict(list)
    for record in records:
        groups[record[0], record[2]].append(record)
    for (model, reason), group in groups.items():
        at = rows.model_at(row_of(model))
        changed[at] = MODEL_CELLS
        columns = [*zip(*group, strict=True)]
        for place, amounts in enumerate(columns[_AMOUNTS], at):
            numbers[place] += sum(amounts)
        numbers[at + rows.OUTCOME_AT + rows.outcome(reason)] += len(group)
        rows.observe(numbers, at + rows.MODEL_FIRST_AT, rows.FIRST_TOKEN, [*filter(_is_there, columns[_FIRST])])
        times_at = at + (rows.COMPLETED_AT if reason == "completed" else rows.FAILED_AT)
        rows.observe(numbers, times_at, rows.DURATION, columns[_WHOLE])


_is_there: Final = partial(is_not, None)


def _add_to_channels(
    numbers: memoryview[int], records: Sequence[Found], row_of: Callable[[int], int], changed: dict[int, int]
) -> None:
    groups: defaultdict[tuple[int | None, bool], list[Found]] = defaultdict(list)
    for record in records:
        groups[record[1], record[2] == "completed"].append(record)
    for (channel, completed), group in groups.items():
        if channel is None:
            continue
        at = rows.channel_at(row_of(channel))
        changed[at] = CHANNEL_CELLS
        columns = [*zip(*group, strict=True)]
        numbers[at + (not completed)] += len(group)
        numbers[at + rows.UPSTREAM_COST_AT] += sum(columns[_UPSTREAM_COST])
        rows.observe(numbers, at + rows.CHANNEL_FIRST_AT, rows.FIRST_TOKEN, [*filter(_is_there, columns[_FIRST])])
        rows.observe(numbers, at + rows.CHANNEL_DURATION_AT, rows.DURATION, columns[_WHOLE])
    tries = chain.from_iterable(map(_tries.decode, map(itemgetter(_LOG), records)))
    for (channel, outcome), count in Counter(map(_of_try, tries)).items():
        at = rows.channel_at(row_of(channel))
        changed[at] = CHANNEL_CELLS
        numbers[at + rows.ATTEMPTS_AT + rows.attempt_group(outcome)] += count
