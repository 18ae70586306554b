"""Pages of requests by keyset."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.lib import clock
from relay.models import UsageRecord
from relay.usage import paging
from relay.usage.paging import usage_page
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
