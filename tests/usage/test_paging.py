"""Pages of requests by keyset."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.lib import clock
from relay.models import RefusedRequest, UsageRecord
from relay.usage import paging
from relay.usage.paging import merged_page, usage_page
from tests.support.money import refused
from tests.support.portal import People
from tests.usage.records import record

pytestmark = pytest.mark.shared


def test_pages_by_keyset_show_every_request_once(alone: None, people: People) -> None:
    same = clock.now()
    for number in range(25):
        record(
            number,
            people.owner,
            started_at=same - timedelta(seconds=number // 3),
            model="rare" if number % 5 == 0 else "m",
        )
    rows = UsageRecord.objects.filter(user=people.owner)
    seen, before = [], ""
    while True:
        page = usage_page(rows, None, before, 7)
        seen += [row.pk for row in page.rows]
        before = page.before
        if not before:
            break
    assert len(seen) == len(set(seen)) == 25
    from django.db.models import Q

    found = usage_page(rows, Q(model="rare"), "", 3)
    assert len(found.rows) == 3 and found.before and len(usage_page(rows, Q(model="rare"), found.before, 3).rows) == 2
    assert usage_page(rows, None, "nonsense", 3).rows and usage_page(rows, None, "99999999999999999-1", 3).rows


def test_a_rare_filter_is_searched_in_windows(alone: None, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db.models import Q

    monkeypatch.setattr(paging, "SCAN_SIZE", 5)
    now = clock.now()
    for number in range(40):
        record(number, people.owner, started_at=now - timedelta(seconds=number), model="rare" if number == 33 else "m")
    rows = UsageRecord.objects.filter(user=people.owner)
    page = usage_page(rows, Q(model="rare"), "", 10)
    assert not page.rows and page.until is not None and page.before
    page = usage_page(rows, Q(model="rare"), page.before, 10)
    assert [row.model for row in page.rows] == ["rare"]


def test_pages_of_records_and_refused_requests_show_each_once_by_time(alone: None, people: People) -> None:
    from django.db.models import Q

    RefusedRequest.objects.all().delete()
    now = clock.now()
    for number in range(20):
        record(number, people.owner, started_at=now - timedelta(seconds=number // 3))
        refused(people.owner, started_at=now - timedelta(seconds=number // 4), request_id=f"req_refused_{number}")
    sources = ((UsageRecord.objects.all(), None), (RefusedRequest.objects.all(), None))
    for size in (1, 3, 7, 40):
        seen, before = [], ""
        while True:
            page = merged_page(sources, before, size)
            assert len(page.rows) <= size
            seen += page.rows
            before = page.before
            if not before:
                break
        assert len({row.request_id for row in seen}) == len(seen) == 40
        times = [row.started_at for row in seen]
        assert times == sorted(times, reverse=True)
    assert merged_page(sources, "nonsense", 3).rows == merged_page(sources, "", 3).rows
    none = (UsageRecord.objects.none(), None)
    assert len(merged_page((none, (RefusedRequest.objects.all(), Q(model="no-such-model"))), "", 50).rows) == 20


def test_pages_of_both_do_not_run_ahead_of_a_bounded_search(
    alone: None, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db.models import Q

    RefusedRequest.objects.all().delete()
    monkeypatch.setattr(paging, "SCAN_SIZE", 5)
    now = clock.now()
    for number in range(60):
        record(number, people.owner, started_at=now - timedelta(seconds=number), model="rare" if number == 55 else "m")
    for number in (10, 40, 59):
        refused(people.owner, started_at=now - timedelta(seconds=number), request_id=f"req_refused_{number}")
    sources = ((UsageRecord.objects.all(), Q(model="rare")), (RefusedRequest.objects.all(), None))
    seen, before, rounds = [], "", 0
    while True:
        page = merged_page(sources, before, 2)
        seen += page.rows
        before, rounds = page.before, rounds + 1
        if not before:
            break
    assert [int((now - row.started_at).total_seconds()) for row in seen] == [10, 40, 55, 59] and rounds > 2
