"""Lists the requests that are running on all workers, from the status rows of `relay.gateway.worker_status`.

Synchronous.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from accounts.models import AuditEvent, Change, User
from accounts.models.change import announce
from portal.lib import clock
from relay.models import Token, Worker

_MAX_ROWS = 500
_FRESH_FOR = 4.0  # seconds after which the list of a worker is no longer shown
# Names of the phases in the workers' rows, and what pages show for them.
_PHASES = {
    "first_byte": "waits for the upstream",
    "idle": "streams",
    "database": "waits for the database",
    "sending": "sends",
}


@dataclass(frozen=True, slots=True)
class RunningRequests:
    """Workers and their running requests, as JSON objects."""

    workers: list[dict[str, Any]]
    rows: list[dict[str, Any]]  # one a request, the oldest first


def running_requests() -> RunningRequests:
    """Read what all workers are serving. Takes 3 queries."""
    now, moment = time.time(), clock.now()
    workers, rows = [], []
    for worker in live_workers():
        age = (moment - worker.seen_at).total_seconds()
        workers.append({"name": str(worker), "seen": round(age), **worker.state})
        if age <= _FRESH_FOR:
            rows += worker.running
    rows = sorted(rows, key=lambda row: float(row["since"]))[:_MAX_ROWS]
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
    return RunningRequests(workers, shown)


def _age(seconds: float) -> str:
    whole = max(0, int(seconds))
    return (
        f"{whole} s"
        if whole < 60
        else f"{whole // 60} min {whole % 60} s"
        if whole < 3600
        else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


_GONE_AFTER: Final = 90.0  # seconds
_LATELY: Final = 200  # entries of the audit log that are searched


def request_worker_status() -> None:
    """Ask every worker to write its running requests into its status row for a while."""
    announce(Change.WATCH)


def end_request(request_id: str) -> None:
    """Ask every worker to end a request. The one that serves it does so within a second."""
    announce(Change.END, [request_id])


def ended_by(request_id: str) -> int | None:
    """Return the id of the user who asked for the end of a request lately, None when it is not known."""
    events = AuditEvent.objects.order_by("-pk").values_list("action", "actor", "detail")[:_LATELY]
    ends = ((actor, detail) for action, actor, detail in events if action == "request.end")
    return next((actor for actor, detail in ends if detail.get("request_id") == request_id), None)


def live_workers() -> list[Worker]:
    """Return the workers that have written a status row in the last 90 seconds."""
    return list(
        Worker.objects.filter(seen_at__gte=clock.now() - timedelta(seconds=_GONE_AFTER)).order_by("host", "pid")
    )
