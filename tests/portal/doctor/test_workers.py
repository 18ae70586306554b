"""Which processes serve on the database: what the doctor and the page of running requests say of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from portal.doctor import records
from portal.lib import clock
from relay.models import Worker
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def worker(name: str, relay_only: bool, seconds: int = 1) -> None:
    now = clock.now()
    state: dict[str, Any] = {"running": 0, "rss_mib": 90, "relay_only": relay_only, "database": {}}
    Worker.objects.create(
        name=name, host=name, pid=7, started_at=now, seen_at=now - timedelta(seconds=seconds), state=state
    )


def found() -> Any:
    (check,) = records.workers(settings.CONFIG)
    return check


def test_processes_that_only_relay_are_named(people: People) -> None:
    assert found().status == "skip"
    worker("gone", False, 600)
    worker("relays", True)
    check = found()
    assert check.status == "warn" and "no jobs" in check.message and "--relay-only" in check.next_steps[0]
    worker("pages", False)
    check = found()
    assert check.status == "pass" and "2 processes" in check.message and "1 of them /v1 alone" in check.message
    assert check.data == {"workers": 2, "relay_only": 1}
    page = " ".join(signed_in(people.staff).get("/admin/running/").content.decode().split())
    assert "relays 7: 0 running, 90 MiB, serves /v1 alone </li>" in page
    assert "pages 7: 0 running, 90 MiB </li>" in page
