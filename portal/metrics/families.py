"""The metrics that there are: names, types, labels, and what they mean. Pure.

Names follow Prometheus' conventions: base units (seconds, bytes), USD for money, `_total` for what only grows.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Family(NamedTuple):
    """A metric. `name`: without `_total`."""

    name: str
    kind: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    help: str


def _by(*labels: str) -> tuple[str, ...]:
    return labels


BUILD: Final = Family("airelays_build_info", "gauge", _by("python", "version"), "Version of the portal and of Python.")
BEGAN: Final = Family(
    "airelays_metrics_start_time_seconds", "gauge", _by(),
    "When the counters of this host began at 0, in seconds since 1970.",
)  # fmt: skip
WORKERS: Final = Family("airelays_workers", "gauge", _by(), "Worker processes of this host that are running.")

REQUESTS: Final = Family(
    "airelays_requests", "counter", _by("model", "outcome"), "Requests with a usage record, by the record's end reason."
)
AMOUNTS: Final = (
    Family("airelays_input_tokens", "counter", _by("model"), "Tokens of prompts, cached and written ones included."),
    Family("airelays_cached_input_tokens", "counter", _by("model"), "Tokens of prompts that came from a prompt cache."),
    Family("airelays_cache_write_tokens", "counter", _by("model"), "Tokens of prompts that were written to one."),
    Family("airelays_output_tokens", "counter", _by("model"), "Tokens of answers, reasoning included."),
    Family("airelays_reasoning_tokens", "counter", _by("model"), "Tokens of answers that were reasoning."),
    Family("airelays_cost_usd", "counter", _by("model"), "What requests cost at their prices, in USD."),
    Family("airelays_shortfall_usd", "counter", _by("model"), "What of it nothing was left to pay for, in USD."),
    Family("airelays_upstream_cost_usd", "counter", _by("model"), "What upstreams charge for them, in USD."),
)
FIRST_TOKEN: Final = Family(
    "airelays_request_first_token_seconds", "histogram", _by("model"),
    "Time from a request's first byte to the first event of its stream, or to the answer's headers.",
)  # fmt: skip
DURATION: Final = Family(
    "airelays_request_duration_seconds", "histogram", _by("model", "result"),
    "Time from a request's first byte to the end of its answer, by whether it was completed or failed.",
)  # fmt: skip

CHANNEL_REQUESTS: Final = Family(
    "airelays_channel_requests", "counter", _by("channel", "result"), "Requests by the channel that was asked last."
)
CHANNEL_ATTEMPTS: Final = Family(
    "airelays_channel_attempts", "counter", _by("channel", "outcome"),
    "Attempts at a channel: ok, refused (the request), limited (rate, quota, overload), key, or failed.",
)  # fmt: skip
CHANNEL_COST: Final = Family(
    "airelays_channel_upstream_cost_usd", "counter", _by("channel"), "What a channel's upstream charges, in USD."
)
CHANNEL_FIRST_TOKEN: Final = Family(
    "airelays_channel_first_token_seconds", "histogram", _by("channel"), "As of requests, by channel."
)
CHANNEL_DURATION: Final = Family(
    "airelays_channel_duration_seconds", "histogram", _by("channel"), "As of requests, by channel."
)
CHANNEL_BALANCE: Final = Family(
    "airelays_channel_balance", "gauge", _by("channel", "currency"),
    "What the accounts behind a channel's keys have left, as far as upstreams say so.",
)  # fmt: skip
CHANNELS: Final = Family("airelays_channels", "gauge", _by("state"), "Channels that are enabled or disabled.")
KEYS: Final = Family(
    "airelays_keys", "gauge", _by("state"),
    "Upstream API keys: enabled, cooling (some of their models), out_of_service (by the portal), disabled (by staff).",
)  # fmt: skip
CIRCUITS: Final = Family(
    "airelays_circuits_open", "gauge", _by("cause"), "Channels, keys and their models that are cooling down, by cause."
)

REFUSED: Final = Family(
    "airelays_refused_requests", "counter", _by("status"),
    "Requests to /v1 that were refused before routing, and have no usage record, by HTTP status.",
)  # fmt: skip
DATABASE_REFUSALS: Final = Family(
    "airelays_database_refusals", "counter", _by(), "What was refused since the database was waited for too long."
)
POOL_REFUSALS: Final = Family(
    "airelays_upstream_pool_refusals", "counter", _by(),
    "Attempts that got no connection to an upstream in time, since all were in use.",
)  # fmt: skip
SPANS: Final = Family(
    "airelays_trace_spans", "counter", _by("result"),
    "Spans of traces that a collector took, or that were dropped: it did not take them, or not in time.",
)  # fmt: skip
BATCH: Final = Family(
    "airelays_writer_batch_records", "histogram", _by(), "Usage records that were committed together."
)
COMMIT: Final = Family(
    "airelays_writer_commit_seconds", "histogram", _by(), "Time that such a commit took, waits for locks included."
)

_WORKER: Final = _by("worker")
IN_FLIGHT: Final = Family("airelays_requests_in_flight", "gauge", _WORKER, "Requests that are running.")
WRITER_PENDING: Final = Family(
    "airelays_writer_pending", "gauge", _WORKER, "Records and reservations that wait for the database."
)
WRITER_STALLED: Final = Family(
    "airelays_writer_stalled_seconds", "gauge", _WORKER,
    "For how long the commit that is being made takes, or the database takes no writes.",
)  # fmt: skip
CONNECTIONS: Final = Family("airelays_upstream_connections", "gauge", _WORKER, "Connections to upstreams in use.")
CONNECTIONS_MOST: Final = Family(
    "airelays_upstream_connections_limit", "gauge", _WORKER, "Connections to upstreams that there may be at once."
)
CONNECTIONS_WAITING: Final = Family(
    "airelays_upstream_connections_waiting", "gauge", _WORKER, "Attempts that wait for such a connection."
)
FEED_AGE: Final = Family(
    "airelays_change_feed_age_seconds", "gauge", _WORKER,
    "Time since changes of the configuration were read; more than a few seconds: they do not take effect.",
)  # fmt: skip
LOOP_LAG: Final = Family(
    "airelays_event_loop_lag_seconds", "gauge", _WORKER, "The longest delay of the event loop in the last 15 seconds."
)
MEMORY: Final = Family("airelays_worker_resident_memory_bytes", "gauge", _WORKER, "Resident memory.")
FILES: Final = Family("airelays_worker_open_fds", "gauge", _WORKER, "Open file descriptors.")
CPU: Final = Family("airelays_worker_cpu_seconds", "counter", _WORKER, "CPU time of the process.")
STARTED: Final = Family(
    "airelays_worker_start_time_seconds", "gauge", _WORKER, "When the worker began to serve, in seconds since 1970."
)

ALL: Final = (
    BUILD, BEGAN, WORKERS, REQUESTS, *AMOUNTS, FIRST_TOKEN, DURATION, CHANNEL_REQUESTS, CHANNEL_ATTEMPTS, CHANNEL_COST,
    CHANNEL_FIRST_TOKEN, CHANNEL_DURATION, CHANNEL_BALANCE, CHANNELS, KEYS, CIRCUITS, REFUSED, DATABASE_REFUSALS,
    POOL_REFUSALS, SPANS, BATCH, COMMIT, IN_FLIGHT, WRITER_PENDING, WRITER_STALLED, CONNECTIONS, CONNECTIONS_MOST,
    CONNECTIONS_WAITING, FEED_AGE, LOOP_LAG, MEMORY, FILES, CPU, STARTED,
)  # fmt: skip
