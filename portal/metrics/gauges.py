"""Writes what this worker measures into its slot, once a second, beside its requests."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Final

from portal.lib.processes import open_files, resident_bytes
from portal.metrics.counts import worker
from portal.metrics.counts.memory import Slot
from portal.metrics.counts.recovery import Recovery
from portal.metrics.installed import installed
from portal.services.timeouts import refusals
from portal.tracing.counts import counts as spans
from relay.billing.ledger.writer import writer
from relay.errors import RelayUnavailable
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache

logger: Final = logging.getLogger(__name__)
_PAUSE: Final = 1.0  # seconds between two measurements
_SLOW: Final = 5  # measurements, after which what takes longer is measured again
_RECOVERY: Final = 3  # measurements between looks for workers that were killed
_LAG_FOR: Final = 15  # measurements for which the longest delay is shown


async def keep_gauges(run: Runtime) -> None:
    """Count from now on, and measure until the end. Does nothing where metrics are off."""
    counter = installed.begin()
    if counter is None or installed.slot is None or installed.memory is None:
        return
    writer.counter = counter
    gauges = Gauges(run, installed.slot)
    recovery = Recovery(installed.memory, installed.slot, installed.label_of)
    try:
        turn = 0
        while True:
            try:
                counter.count()
                gauges.measure(slow=turn % _SLOW == 0)
                if turn % _RECOVERY == _RECOVERY - 1 and (found := await snapshot_cache.in_thread(recovery.work)):
                    logger.warning("records of %d worker(s) that were killed have been counted", found)
            except RelayUnavailable:
                pass  # it has been logged; they are counted later
            except Exception:
                logger.exception("a measurement failed; the next one comes")
            turn += 1
            await gauges.pause()
    finally:
        gauges.end()
        counter.count()


class Gauges:
    """The gauges and counts of one worker."""

    def __init__(self, run: Runtime, slot: Slot) -> None:
        self._run, self._numbers = run, slot.numbers
        self._before = self._numbers[worker.COUNTS_AT : worker.COUNTS_AT + len(worker.COUNTS)].tolist()
        self._refused = refusals.number  # before this worker began to count
        self._files = 0
        self._lags: list[float] = []
        for place in range(worker.GAUGES_AT, worker.GAUGES_AT + len(worker.GAUGES)):
            self._numbers[place] = 0
        self._numbers[worker.STARTED] = round(time.time() * 1000)
        self._numbers[worker.PID] = os.getpid()

    def measure(self, slow: bool) -> None:
        run, numbers = self._run, self._numbers
        connections = run.upstreams.counts()
        if slow:
            self._files = open_files()
        found = {
            "in_flight": len(run.watchdog.running),
            "writer_waiting": writer.waiting,
            "stalled_ms": round(writer.stalled * 1000),
            "connections": connections["upstream_connections"],
            "connections_most": connections["upstream_most"],
            "connections_waiting": connections["upstream_waiting"],
            "feed_age_ms": round(run.feed_age * 1000),
            "loop_lag_us": round(max(self._lags, default=0.0) * 1e6),
            "resident_bytes": resident_bytes(),
            "open_files": self._files,
            "cpu_ms": round(time.process_time() * 1000),
        }
        for place, name in enumerate(worker.GAUGES, worker.GAUGES_AT):
            numbers[place] = found[name]
        statuses = dict(run.refusals.statuses)
        counts = [connections["upstream_refused"], refusals.number - self._refused, spans.exported, spans.dropped]
        counts += [statuses.pop(status, 0) for status in worker.STATUSES]
        counts.append(sum(statuses.values()))
        for place, (before, now) in enumerate(zip(self._before, counts, strict=True), worker.COUNTS_AT):
            numbers[place] = before + now
        numbers[worker.SEEN] = round(time.time() * 1000)

    async def pause(self) -> None:
        """Wait for the next measurement, and note how late it comes: so long does everything else wait as well."""
        began = time.monotonic()
        await asyncio.sleep(_PAUSE)
        self._lags.append(max(0.0, time.monotonic() - began - _PAUSE))
        del self._lags[:-_LAG_FOR]

    def end(self) -> None:
        """This worker has ended. What the writer still counts stays."""
        self._numbers[worker.PID] = 0
