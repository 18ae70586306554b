"""Usage records are counted once they are on disk, whatever becomes of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from portal.lib import clock
from portal.metrics.counts import recovery, rows, worker
from portal.metrics.counts.memory import CHANNELS, IDS, MODELS, Memory, new_file
from portal.metrics.counts.records import RecordCounter, add_to_slot
from portal.metrics.counts.recovery import Recovery
from portal.metrics.exposition import Exposition
from portal.metrics.samples import Upstreams, all_samples
from relay.billing.ledger.lines import Charged
from relay.billing.ledger.pending import COLUMNS, PendingRecord
from relay.models import UsageRecord

LOG = '[{"channel": 7, "key": 1, "outcome": "rate"}, {"channel": 8, "key": 2, "outcome": "ok"}]'
DEFAULTS = {
    "model": "m", "channel_id": 8, "end_reason": "completed", "input_tokens": 100, "cached_input_tokens": 60,
    "cache_write_tokens": 10, "output_tokens": 20, "reasoning_tokens": 5, "cost": 1_000_000_001, "shortfall": 0,
    "upstream_cost": 700, "first_token_ms": 120, "latency_ms": 1_500, "attempt_log": LOG,
}  # fmt: skip


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(new_file(1_700_000_000_000))
    yield made
    for slot in made.slots:
        made.give_back(slot)


def counter(memory: Memory, number: int = 0) -> RecordCounter:
    slot = memory.slots[number]
    assert memory.take(slot)
    slot.numbers[worker.STARTED] = 1
    return RecordCounter(memory, slot, lambda name: name)


def record(request_id: str = "req_1", charged: Charged | None = None, **values: object) -> PendingRecord:
    found = {**DEFAULTS, **values, "request_id": request_id}
    row = tuple(found.get(name, 0) for name in COLUMNS)
    return PendingRecord(row, None, None, cast(asyncio.AbstractEventLoop, None), charged=charged)


def values(memory: Memory, upstreams: Upstreams | None = None) -> dict[str, float]:
    """The value of each line, by what stands before it."""
    text = Exposition().text(all_samples(memory, upstreams or Upstreams(), "1.0")).decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    assert len({line for line, _, _ in lines}) == len(lines), "a series comes twice"
    return {line: float(value) for line, _, value in lines}


def test_a_record_is_counted_with_all_of_its_numbers(memory: Memory) -> None:
    one = counter(memory)
    records = [record(), record("req_2", charged=Charged(0, 300), end_reason="timeout", first_token_ms=None)]
    one.begin(records)
    assert memory.slots[0].kept_ids() == ["req_1", "req_2"]
    one.written(records)
    one.count()
    assert memory.slots[0].is_clean
    found = values(memory, Upstreams({8: "Eight"}))
    assert found['airelays_requests_total{model="m",outcome="completed"}'] == 1
    assert found['airelays_requests_total{model="m",outcome="timeout"}'] == 1
    assert found['airelays_input_tokens_total{model="m"}'] == 200
    assert found['airelays_cached_input_tokens_total{model="m"}'] == 120
    assert found['airelays_cache_write_tokens_total{model="m"}'] == 20
    assert found['airelays_output_tokens_total{model="m"}'] == 40
    assert found['airelays_reasoning_tokens_total{model="m"}'] == 10
    assert found['airelays_cost_usd_total{model="m"}'] == 2.000000002
    assert found['airelays_shortfall_usd_total{model="m"}'] == 3e-7
    assert found['airelays_upstream_cost_usd_total{model="m"}'] == 1.4e-6
    assert found['airelays_request_first_token_seconds_bucket{le="0.1",model="m"}'] == 0
    assert found['airelays_request_first_token_seconds_bucket{le="0.25",model="m"}'] == 1
    assert found['airelays_request_first_token_seconds_count{model="m"}'] == 1
    assert found['airelays_request_first_token_seconds_sum{model="m"}'] == 0.12
    assert found['airelays_request_duration_seconds_sum{model="m",result="failed"}'] == 1.5
    assert found['airelays_channel_requests_total{channel="Eight",result="failed"}'] == 1
    assert found['airelays_channel_attempts_total{channel="(7)",outcome="limited"}'] == 2
    assert found['airelays_channel_attempts_total{channel="Eight",outcome="ok"}'] == 2
    assert (
        found['airelays_writer_batch_records_bucket{le="2.0"}'] == 1 and found["airelays_writer_batch_records_sum"] == 2
    )


def test_workers_are_added_up_and_a_successor_goes_on(memory: Memory) -> None:
    for number in (0, 1, 0):  # the third is another worker, in the place of the first
        one = counter(memory, number)
        one.begin([record()])
        one.written([record()])
        one.count()
    found = values(memory)
    assert found['airelays_requests_total{model="m",outcome="completed"}'] == 3
    assert found['airelays_cost_usd_total{model="m"}'] == 3.000000003


def test_a_batch_that_is_tried_again_counts_once(memory: Memory) -> None:
    one = counter(memory)
    for _ in range(3):
        one.begin([record(), record("req_2")])
    one.begin([record()])
    one.written([record()])
    one.begin([record("req_2")])
    one.count()
    assert memory.slots[0].kept_ids() == ["req_1", "req_2"], "one is being committed: nothing is counted beside it"
    one.written([record("req_2")])
    one.count()
    assert values(memory)['airelays_requests_total{model="m",outcome="completed"}'] == 2


def test_more_records_than_there_is_room_for_are_counted_at_once(memory: Memory) -> None:
    one = counter(memory)
    one._next = float("inf")
    for first in range(0, 2 * IDS, 500):
        batch = [record(f"req_{number}") for number in range(first, first + 500)]
        one.begin(batch)
        one.written(batch)
    assert values(memory)['airelays_requests_total{model="m",outcome="completed"}'] >= IDS


@pytest.mark.parametrize("committed", [0, 1, 3])
def test_what_a_killed_worker_could_not_count_is_looked_up(
    db: None, memory: Memory, monkeypatch: pytest.MonkeyPatch, committed: int
) -> None:
    monkeypatch.setattr(recovery, "_PATIENCE", 0.0)
    one = counter(memory)
    one._next = float("inf")
    before = [record("req_a"), record("req_b")]
    one.begin(before)
    one.written(before)  # not counted yet
    after = [record("req_c"), record("req_d"), record("req_e")]
    one.begin(after)
    memory.slots[0].banks[1 - memory.slots[0].shown][0] += 77  # it was about to count something
    for name in ["req_a", "req_b", *(f"req_{letter}" for letter in "cde"[:committed])]:
        stored(name)
    other = Recovery(memory, memory.slots[1], lambda name: name)
    assert other.work() == 1 and other.work() == 0
    found = values(memory)
    assert found['airelays_requests_total{model="m",outcome="completed"}'] == 2 + committed
    assert found['airelays_input_tokens_total{model="m"}'] == 100 * (2 + committed)
    assert found['airelays_channel_attempts_total{channel="(8)",outcome="ok"}'] == 2 + committed
    assert memory.slots[0].is_clean


def test_a_killed_workers_batch_is_given_time(db: None, memory: Memory) -> None:
    """Its transaction may end after it."""
    counter(memory).begin([record("req_a")])
    other = Recovery(memory, None, lambda name: name)
    assert other.work() == 0 and other.work() == 0
    assert not memory.slots[0].is_clean


def test_counters_stay_when_a_record_cannot_be_counted(memory: Memory) -> None:
    one = counter(memory)
    one.begin([record()])
    one.written([record()])
    one.count()
    before = values(memory)
    bad = [tuple(DEFAULTS.values()), (*tuple(DEFAULTS.values())[:-1], "no JSON")]
    with pytest.raises(ValueError):
        add_to_slot(memory.slots[0], bad, memory, lambda name: name)
    assert values(memory) == before


def test_labels_are_bounded_whatever_is_asked_for(memory: Memory) -> None:
    """A thousand channels, five hundred models, every outcome, four workers."""
    one = counter(memory)
    words = ("ok", "client", "rate", "key_dead", "transient")
    found: list[Any] = []
    for number in range(1_000):
        for place, reason in enumerate(rows.OUTCOMES):
            attempts = f'[{{"channel": {number + 1}, "outcome": "{words[place % 5]}"}}]'
            values_of = {**DEFAULTS, "model": f"m{number // 2}", "channel_id": number + 1, "end_reason": reason}
            found.append((*tuple(values_of.values())[:-1], attempts))
    add_to_slot(one._slot, found, memory, lambda name: name)
    names = {number: "other" if number == 5 else f"channel {number}" for number in range(1, 1_001)}
    upstreams = Upstreams(names, [(number, "USD", 1.0) for number in names])
    shown = values(memory, upstreams)
    assert len(shown) < 4_500
    assert sum(value for line, value in shown.items() if line.startswith("airelays_requests_total")) == 10_000
    assert sum(value for line, value in shown.items() if line.startswith("airelays_channel_requests_total")) == 10_000
    assert sum(value for line, value in shown.items() if line.startswith("airelays_channel_attempts_total")) == 10_000
    assert len(memory.labels()[0]) == MODELS - 1 and len(memory.labels()[1]) == CHANNELS - 1
    assert 'airelays_channel_requests_total{channel="other (5)",result="completed"}' in shown


def test_two_processes_agree_on_rows(memory: Memory) -> None:
    """As two workers see the same file."""
    other = Memory(memory._file)
    assert memory.model_row("a") == other.model_row("a") == 1
    assert other.model_row("b") == memory.model_row("b") == 2
    assert other.channel_row(70) == memory.channel_row(70) == 1
    assert memory.model_row("") == 0


def stored(request_id: str) -> None:
    found = {**DEFAULTS, "attempt_log": [{"channel": 8, "outcome": "ok"}], "endpoint": "chat", "streamed": False}
    UsageRecord.objects.create(
        request_id=request_id, started_at=clock.now(), status=200, usage_source="reported", **found
    )  # fmt: skip


def test_a_stalled_reader_gets_a_whole_bank(memory: Memory) -> None:
    """The bank that is shown is never changed."""
    one = counter(memory)
    slot = memory.slots[0]
    for number in range(3):
        shown, before = slot.shown, slot.banks[slot.shown].tobytes()
        add_to_slot(slot, [tuple(DEFAULTS.values())], memory, lambda name: name)
        assert slot.shown == 1 - shown and slot.banks[slot.shown].tobytes() != before
        assert slot.banks[0] == slot.banks[1], f"after record {number}"
    assert one._slot is slot
