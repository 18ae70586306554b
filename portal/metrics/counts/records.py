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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, compress
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


_tries: Final = msgspec.json.Decoder(list[list[_Try]])  # of all records at once
_counted: Final = itemgetter(*(COLUMNS.index(name) for name in rows.COLUMNS))
_id: Final = itemgetter(0)
_row: Final = attrgetter("row")
_of_try: Final = attrgetter("channel", "outcome")
_FEW: Final = 8
_of_group: Final = itemgetter(0, 1, 2)
_is_there: Final = partial(is_not, None)
_AMOUNTS: Final = slice(3, 3 + rows.AMOUNTS)
_UPSTREAM_COST, _FIRST, _WHOLE, _LOG = 10, 11, 12, 13  # places in rows.COLUMNS
_log_of: Final = itemgetter(_LOG)


class RecordCounter:
    """Counts in one slot. `begin` and `written` are called in the writer's thread, `count` in any."""

    def __init__(self, memory: Memory, slot: Slot, label_of: LabelOf) -> None:
        self._memory, self._slot, self._label_of = memory, slot, label_of
        self._lock = threading.Lock()  # of all that follows
        self._waiting: list[Found] = []  # committed, and not counted
        self._batches: list[int] = []
        self._commits: list[int] = []  # microseconds
        self._committing = False
        self._next = time.perf_counter() + _EVERY
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
            self._waiting += [
                _counted(one.row if one.charged is None or not one.charged.shortfall else with_shortfall(one))
                for one in records
            ]
            self._batches.append(len(records))
            self._commits.append(round((now - self._began) * 1e6))
            if len(self._waiting) >= _ROOM or now >= self._next:
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
        self._next = time.perf_counter() + _EVERY
        found, self._waiting = self._waiting, []
        try:
            add_to_slot(self._slot, found, self._memory, self._label_of)
        except Exception:  # what was paid is not lost for it
            logger.exception("%d usage records are missing in the metrics", len(found))
        rows.observe(self._slot.numbers, worker.BATCH_AT, rows.BATCH, self._batches)
        rows.observe(self._slot.numbers, worker.COMMIT_AT, rows.COMMIT, self._commits)
        self._batches.clear()
        self._commits.clear()


def _groups(records: Sequence[Found]) -> Mapping[tuple[str, int | None, str], Sequence[Found]]:
    """Records by model, channel and outcome. While they are few kinds, nothing is done for each in Python."""
    keys = [*map(_of_group, records)]
    kinds = set(keys)
    if len(kinds) <= _FEW:
        return {kind: [*compress(records, map(kind.__eq__, keys))] for kind in kinds}
    groups: defaultdict[tuple[str, int | None, str], list[Found]] = defaultdict(list)
    for key, record in zip(keys, records, strict=True):
        groups[key].append(record)
    return groups


class _RowOf:
    """Where the rows of models and channels begin."""

    def __init__(self, memory: Memory, label_of: LabelOf) -> None:
        self._memory, self._label_of = memory, label_of

    def model(self, name: str) -> int:
        return rows.model_at(self._memory.model_row(self._label_of(name)))

    def channel(self, channel: int) -> int:
        return rows.channel_at(self._memory.channel_row(channel))


def add_to_slot(slot: Slot, records: Sequence[Found], memory: Memory, label_of: LabelOf) -> None:
    """Add records to a slot, all at once: no ids wait there any more then."""
    shown = slot.shown
    numbers, old = slot.banks[1 - shown], slot.banks[shown]
    changed: dict[int, int] = {}  # rows, and how many numbers they have
    try:
        _add(numbers, records, _RowOf(memory, label_of), changed)
    except BaseException:
        slot.mend()
        slot.show(shown)
        raise
    slot.show(1 - shown)
    for at, size in changed.items():
        old[at : at + size] = numbers[at : at + size]


def _add(numbers: memoryview[int], records: Sequence[Found], row_of: _RowOf, changed: dict[int, int]) -> None:
    """Add records to the rows of their models and channels. Whatever counts in both is looked at once."""
    for (model, channel, reason), group in _groups(records).items():
        columns = [*zip(*group, strict=True)]
        first = rows.spread(rows.FIRST_TOKEN, [*filter(_is_there, columns[_FIRST])])
        whole = rows.spread(rows.DURATION, columns[_WHOLE])
        at = row_of.model(model)
        changed[at] = MODEL_CELLS
        for place, amounts in enumerate(columns[_AMOUNTS], at):
            numbers[place] += sum(amounts)
        numbers[at + rows.OUTCOME_AT + rows.outcome(reason)] += len(group)
        rows.add(numbers, at + rows.MODEL_FIRST_AT, first)
        rows.add(numbers, at + (rows.COMPLETED_AT if reason == "completed" else rows.FAILED_AT), whole)
        if channel is None:
            continue
        at = row_of.channel(channel)
        changed[at] = CHANNEL_CELLS
        numbers[at + (reason != "completed")] += len(group)
        numbers[at + rows.UPSTREAM_COST_AT] += sum(columns[_UPSTREAM_COST])
        rows.add(numbers, at + rows.CHANNEL_FIRST_AT, first)
        rows.add(numbers, at + rows.CHANNEL_DURATION_AT, whole)
    tries = chain.from_iterable(_tries.decode(f"[{','.join(map(_log_of, records))}]"))
    for (tried, outcome), count in Counter(map(_of_try, tries)).items():
        at = row_of.channel(tried)
        changed[at] = CHANNEL_CELLS
        numbers[at + rows.ATTEMPTS_AT + rows.attempt_group(outcome)] += count
