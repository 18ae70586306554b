"""The numbers of this worker that are no rows of models or channels: their places in its slot."""

from __future__ import annotations

from typing import Final

from portal.metrics.counts.rows import HISTOGRAM

# Kept for recovery and for who reads.
PID: Final = 0  # of the worker, 0: it has ended
SEEN: Final = 1  # when it measured last, in milliseconds since 1970
STARTED: Final = 2  # the same
# What holds now, written once a second.
GAUGES: Final = (
    "in_flight", "writer_waiting", "stalled_ms", "connections", "connections_most", "connections_waiting",
    "feed_age_ms", "loop_lag_us", "resident_bytes", "open_files", "cpu_ms",
)  # fmt: skip
GAUGES_AT: Final = 8

# What only grows; counts of the same process, so that up to a second of them is lost with it.
STATUSES: Final = (400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500, 502, 503, 504)
COUNTS: Final = (
    "pool_refused",
    "database_refused",
    "spans_exported",
    "spans_dropped",
    *(f"status_{status}" for status in STATUSES),
    "status_other",
)
COUNTS_AT: Final = 32

# Written with each batch of the writer.
BATCH_AT: Final = 64
COMMIT_AT: Final = BATCH_AT + HISTOGRAM
