"""What all workers are serving now, as they have written it down (`relay.gateway.worker_status`). Synchronous."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from accounts.models import Change, User
from accounts.models.change import announce
from portal.lib import clock
from relay.models import Token, Worker
from relay.usage import running

_MOST = 500
_FRESH = 4.0  # seconds after which a worker's list is not shown any more
_PHASES = {"first_byte": "waits for the upstream", "idle": "streams", "database": "waits for the database", "sending": "sends"}


@dataclass(frozen=True, slots=True)
class Running:
    """`workers` and `rows` are JSON objects, the oldest request first."""

    workers: list[dict[str, Any]]
    rows: list[dict[str, Any]]


def lines() -> Running:
    """Queries: 3."""
    now, moment = time.time(), clock.now()
    workers, rows = [], []
    for worker in running.workers():
        age = (moment - worker.seen_at).total_seconds()
        workers.append({"name": str(worker), "seen": round(age), **worker.state})
        if age <= _FRESH:
            rows += worker.running
    rows = sorted(rows, key=lambda row: float(row["since"]))[:_MOST]
    users = dict(User.objects.filter(pk__in={row["user"] for row in rows}).values_list("pk", "username"))
    tokens = dict(Token.objects.filter(pk__in={row["token"] for row in rows}).values_list("pk", "name"))
    shown = [
        {
            **row,
            "user": users.get(row["user"], "—"),
            "token": tokens.get(row["token"], "—"),
            "age": _age(now - float(row["since"])),
            "phase": _PHASES.get(row["phase"], row["phase"]),
        }
        for row in rows
    ]
    return Running(workers, shown)


def _age(seconds: float) -> str:
    whole = max(0, int(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


GONE_AFTER: Final = 90.0


def look() -> None:
    """Ask every worker to write down what it is serving, for a while. Synchronous."""
    announce(Change.WATCH)


def end_request(request_id: str) -> None:
    """Ask every worker to end a request. Synchronous; the worker that serves it does so within a second."""
    announce(Change.END, [request_id])


def workers() -> list[Worker]:
    """Those that have been seen lately."""
    return list(Worker.objects.filter(seen_at__gte=clock.now() - timedelta(seconds=GONE_AFTER)).order_by("host", "pid"))
