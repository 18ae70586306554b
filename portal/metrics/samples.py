"""What all workers have counted and measure, as samples of metrics."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Final

from portal.metrics import families
from portal.metrics.counts import rows, worker
from portal.metrics.counts.memory import CELL, CHANNEL_CELLS, MODEL_CELLS, OWN_CELLS, Memory, Slot
from portal.metrics.exposition import Sample, Samples, bound
from portal.metrics.families import Family
from portal.metrics.installed import OTHER

WITH_ATTEMPTS: Final = 100  # channels, the first that were used: beyond them, only requests are told apart
WITH_TIMES: Final = 15  # channels
_TRIES: Final = 20  # to read a slot that is being changed
_SECONDS: Final = 1000  # of milliseconds
_USD: Final = 10**9  # of nano-USD
_UNITS: Final = (1, 1, 1, 1, 1, _USD, _USD, _USD)  # of rows.AMOUNTS


@dataclass(frozen=True)
class Upstreams:
    """What the configuration says of channels and keys, and what is known of their health."""

    names: Mapping[int, str] = field(default_factory=dict)  # of channels, by id
    balances: Sequence[tuple[int, str, float]] = ()  # channel, currency, amount
    channels: Mapping[str, int] = field(default_factory=dict)  # number by state
    keys: Mapping[str, int] = field(default_factory=dict)
    circuits: Mapping[str, int] = field(default_factory=dict)  # number by cause


def all_samples(memory: Memory, upstreams: Upstreams, version: str) -> Samples:
    """Every metric of this host, in the order of `families.ALL`."""
    models, channels = memory.labels()
    slots = [slot for slot in memory.slots if slot.numbers[worker.STARTED]]
    total = _sum_of([_copy(slot, len(channels)) for slot in slots] or [bytes(rows.channel_at(1) * CELL)])
    own = _sum_of([slot.numbers.tobytes() for slot in slots] or [bytes(OWN_CELLS * CELL)])
    names = [OTHER, *models]
    label_of = _labels_of_channels(upstreams.names)
    names_of_channels = [OTHER, *map(label_of, channels)]
    python = ".".join(map(str, sys.version_info[:3]))
    found: list[tuple[Family, Iterable[Sample]]] = [
        (families.BUILD, [("", (python, version), 1)]),
        (families.BEGAN, [("", (), memory.began)]),
    ]
    alive = [slot for slot in memory.slots if _is_alive(slot)]
    found.append((families.WORKERS, [("", (), len(alive))]))
    found += _of_models(total, names)
    found += _of_channels(total, names_of_channels)
    balances = [("", (label_of(one), currency), amount) for one, currency, amount in upstreams.balances[:WITH_ATTEMPTS]]
    found.append((families.CHANNEL_BALANCE, balances))
    for family, numbers in (
        (families.CHANNELS, upstreams.channels), (families.KEYS, upstreams.keys),
        (families.CIRCUITS, upstreams.circuits),
    ):  # fmt: skip
        found.append((family, [("", (state,), number) for state, number in sorted(numbers.items())]))
    found += _of_workers_counts(own)
    found += _of_workers(alive)
    return found


# -- reading ---------------------------------------------------------------------------------------------------------


def _copy(slot: Slot, channels: int) -> bytes:
    """The rows of a slot as they were at one moment."""
    copied = b""
    for _ in range(_TRIES):
        shown = slot.shown
        copied = slot.banks[shown][: rows.channel_at(channels + 1)].tobytes()
        if slot.shown == shown:  # else it may have been changed meanwhile
            break
    return copied


def _sum_of(slots: Sequence[bytes]) -> memoryview[int]:
    """The sums of all numbers, which are small enough and never negative: that of two long numbers is theirs."""
    size = max(map(len, slots), default=CELL)
    total = sum(int.from_bytes(one, "little") for one in slots)
    return memoryview(total.to_bytes(size + CELL, "little")).cast("q")


def _is_alive(slot: Slot) -> bool:
    pid = slot.numbers[worker.PID]
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# -- samples ---------------------------------------------------------------------------------------------------------


def _histogram(
    numbers: memoryview[int], at: int, bounds: Sequence[str], unit: int, labels: tuple[str, ...]
) -> Iterator[Sample]:
    counts = numbers[at : at + rows.SUM].tolist()
    for le, count in zip(bounds, accumulate(counts), strict=True):
        yield "_bucket", (*labels, le), count
    yield "_count", labels, sum(counts)
    yield "_sum", labels, numbers[at + rows.SUM] / unit if unit > 1 else numbers[at + rows.SUM]


def _bounds(limits: Sequence[int], unit: int) -> tuple[str, ...]:
    return (*(bound(limit / unit) for limit in limits), bound(float("inf")))


_FIRST: Final = _bounds(rows.FIRST_TOKEN, _SECONDS)
_DURATION: Final = _bounds(rows.DURATION, _SECONDS)
_BATCH: Final = _bounds(rows.BATCH, 1)
_COMMIT: Final = _bounds(rows.COMMIT, 1_000_000)
_RESULTS: Final = (("completed", rows.COMPLETED_AT), ("failed", rows.FAILED_AT))


def _labels_of_channels(names: Mapping[int, str]) -> Callable[[int], str]:
    """How channels are called, no two of them the same. One that is gone has its number."""
    taken = {OTHER, *names.values()}

    def label(channel: int) -> str:
        name = names.get(channel)
        if name is None:
            return f"({channel})" if f"({channel})" not in taken else f"(({channel}))"
        return name if name != OTHER else f"{name} ({channel})"

    return label


def _used(numbers: memoryview[int], at: int, cells: int) -> bool:
    return any(numbers[at : at + cells])


def _of_models(total: memoryview[int], names: Sequence[str]) -> Samples:
    places = [(name, rows.model_at(row)) for row, name in enumerate(names)]
    places = [(name, at) for name, at in places if _used(total, at, MODEL_CELLS)]
    requests: list[Sample] = []
    amounts: list[list[Sample]] = [[] for _ in families.AMOUNTS]
    first: list[Sample] = []
    duration: list[Sample] = []
    for name, at in places:
        label = (name,)
        for place, outcome in enumerate(rows.OUTCOMES, at + rows.OUTCOME_AT):
            if total[place]:
                requests.append(("_total", (name, outcome), total[place]))
        for place, (samples, unit) in enumerate(zip(amounts, _UNITS, strict=True), at):
            samples.append(("_total", label, total[place] / unit if unit > 1 else total[place]))
        first += _histogram(total, at + rows.MODEL_FIRST_AT, _FIRST, _SECONDS, label)
        for result, offset in _RESULTS:
            duration += _histogram(total, at + offset, _DURATION, _SECONDS, (name, result))
    return [
        (families.REQUESTS, requests), *zip(families.AMOUNTS, amounts, strict=True), (families.FIRST_TOKEN, first),
        (families.DURATION, duration),
    ]  # fmt: skip


def _of_channels(total: memoryview[int], names: Sequence[str]) -> Samples:
    requests: list[Sample] = []
    for row, name in enumerate(names):
        at = rows.channel_at(row)
        for result, number in zip(("completed", "failed"), total[at : at + 2], strict=True):
            if number:
                requests.append(("_total", (name, result), number))
    attempts: list[Sample] = []
    costs: list[Sample] = []
    for name, numbers in _joined(total, names, WITH_ATTEMPTS):
        for outcome, number in zip(rows.ATTEMPTS, numbers[rows.ATTEMPTS_AT :], strict=False):
            if number:
                attempts.append(("_total", (name, outcome), number))
        costs.append(("_total", (name,), numbers[rows.UPSTREAM_COST_AT] / _USD))
    first: list[Sample] = []
    duration: list[Sample] = []
    for name, numbers in _joined(total, names, WITH_TIMES):
        first += _histogram(numbers, rows.CHANNEL_FIRST_AT, _FIRST, _SECONDS, (name,))
        duration += _histogram(numbers, rows.CHANNEL_DURATION_AT, _DURATION, _SECONDS, (name,))
    return [
        (families.CHANNEL_REQUESTS, requests), (families.CHANNEL_ATTEMPTS, attempts), (families.CHANNEL_COST, costs),
        (families.CHANNEL_FIRST_TOKEN, first), (families.CHANNEL_DURATION, duration),
    ]  # fmt: skip


def _joined(total: memoryview[int], names: Sequence[str], most: int) -> Iterator[tuple[str, memoryview[int]]]:
    """The numbers of the first so many channels, and those of all others together."""
    rest = [0] * CHANNEL_CELLS
    for row, name in enumerate(names):
        at = rows.channel_at(row)
        numbers = total[at : at + CHANNEL_CELLS]
        if row and row <= most:
            yield name, numbers
        elif any(numbers):
            rest = [one + other for one, other in zip(rest, numbers, strict=True)]
    if any(rest):
        yield OTHER, memoryview(b"".join(one.to_bytes(CELL, "little") for one in rest)).cast("q")


def _of_workers_counts(total: memoryview[int]) -> Samples:
    counts = dict(zip(worker.COUNTS, total[worker.COUNTS_AT :], strict=False))
    refused = [
        ("_total", (name.removeprefix("status_"),), number)
        for name, number in counts.items()
        if name.startswith("status_") and number
    ]
    return [
        (families.REFUSED, refused),
        (families.DATABASE_REFUSALS, [("_total", (), counts["database_refused"])]),
        (families.POOL_REFUSALS, [("_total", (), counts["pool_refused"])]),
        (families.SPANS, [("_total", (name,), counts[f"spans_{name}"]) for name in ("dropped", "exported")]),
        (families.BATCH, _histogram(total, worker.BATCH_AT, _BATCH, 1, ())),
        (families.COMMIT, _histogram(total, worker.COMMIT_AT, _COMMIT, 1_000_000, ())),
    ]


_GAUGES: Final = (
    (families.IN_FLIGHT, "in_flight", 1), (families.WRITER_PENDING, "writer_waiting", 1),
    (families.WRITER_STALLED, "stalled_ms", 1_000), (families.CONNECTIONS, "connections", 1),
    (families.CONNECTIONS_MOST, "connections_most", 1), (families.CONNECTIONS_WAITING, "connections_waiting", 1),
    (families.FEED_AGE, "feed_age_ms", 1_000), (families.LOOP_LAG, "loop_lag_us", 1_000_000),
    (families.MEMORY, "resident_bytes", 1), (families.FILES, "open_files", 1), (families.CPU, "cpu_ms", 1_000),
)  # fmt: skip


def _of_workers(alive: Sequence[Slot]) -> Samples:
    found: list[tuple[Family, Iterable[Sample]]] = []
    for family, name, unit in _GAUGES:
        at = worker.GAUGES_AT + worker.GAUGES.index(name)
        suffix = "_total" if family.kind == "counter" else ""
        value = partial(_lag, at) if family is families.LOOP_LAG else partial(_gauge, at, unit)
        found.append((family, [(suffix, (str(slot.number),), value(slot)) for slot in alive]))
    started = [("", (str(slot.number),), slot.numbers[worker.STARTED] / 1000) for slot in alive]
    found.append((families.STARTED, started))
    return found


def _gauge(at: int, unit: int, slot: Slot) -> float:
    return slot.numbers[at] / unit if unit > 1 else slot.numbers[at]


def _lag(at: int, slot: Slot) -> float:
    """A worker whose event loop stands still does not say so itself."""
    silent = time.time() - slot.numbers[worker.SEEN] / 1000 - 1.5
    return max(slot.numbers[at] / 1_000_000, round(silent, 3))
