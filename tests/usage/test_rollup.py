"""Daily sums: each request counted once, however late it becomes visible, and pages that ask few questions."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import User
from portal.lib import clock
from relay.billing.ledger.verify import verify
from relay.models import ChannelDay, MonthSum, RollupMark, TallyDay, UsageRecord, UserDay
from relay.tokens.lifecycle import create_token
from relay.usage import rollup
from relay.usage.paging import page_of
from relay.usage.reports import ReportScope, dearest, errors, first_token_times, lines, today_ordinal, total
from tests.conftest import People


def record(number: int, user: Any = None, **more: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "request_id": f"req_{number:032x}", "started_at": clock.now(), "user": user, "model": "m", "endpoint": "chat.completions", "streamed": False, "status": 200,
        "end_reason": "completed", "usage_source": "reported", "latency_ms": 5, "input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 3, "cost": 1000, "upstream_cost": 400,
        "first_token_ms": 100,
    }  # fmt: skip
    return UsageRecord.objects.create(**{**values, **more})


@pytest.fixture
def alone(db: None) -> None:
    """No request but those of this test: what other tests have left is put aside until this one is rolled back."""
    UsageRecord.objects.all().delete()
    rollup.rebuild()


def test_each_request_is_counted_once(alone: None, people: People) -> None:
    for number in range(5):
        record(number, people.owner)
    record(6, people.owner, status=502, end_reason="upstream_error", error_code="upstream_error", cost=0, first_token_ms=None)
    assert rollup.catch_up() == 0 and rollup.catch_up() == 0
    sums = total(ReportScope.days(1, user=people.owner.pk))
    assert (sums.requests, sums.failed, sums.faults, sums.input, sums.cached, sums.output, sums.cost, sums.upstream_cost) == (6, 1, 1, 60, 24, 18, 5000, 2400)
    assert total(ReportScope.days(1)).requests == 6 and rollup.differences() == []
    assert errors(ReportScope.days(1)) == [("upstream_error", "upstream_error", 1)]
    assert rollup.percentile(first_token_times(ReportScope.days(1)), 0.5) == pytest.approx(100, rel=0.1)


def test_what_becomes_visible_late_is_counted_then(alone: None, people: People) -> None:
    """Two hosts on PostgreSQL: a lower id may be committed after a higher one has been added up."""
    first = record(1, people.owner)
    rollup.catch_up()
    record(2, people.owner, pk=first.pk + 5)
    rollup.catch_up()
    assert RollupMark.objects.get().gaps[0][:2] == [first.pk + 1, first.pk + 4]
    record(3, people.owner, pk=first.pk + 3)
    rollup.catch_up()
    assert total(ReportScope.days(1, user=people.owner.pk)).requests == 3
    assert [gap[:2] for gap in RollupMark.objects.get().gaps] == [[first.pk + 1, first.pk + 2], [first.pk + 4, first.pk + 4]]
    assert rollup.differences() == []


def test_what_a_token_used_is_known_before_it_is_added_up(alone: None, people: People) -> None:
    """GET /v1/usage adds nothing up, and leaves nothing out: what waits, and what lies in a gap, is counted from its records."""
    token, other = (create_token(people.owner, name, actor=None)[0] for name in ("one", "other"))
    assert rollup.of_token(people.owner.pk, token.pk) == {}
    first = record(1, people.owner, token=token, shortfall=300)
    day = today_ordinal()
    one = [1, 0, 0, 10, 4, 3, 700, 400]
    assert rollup.of_token(people.owner.pk, token.pk) == {day: one}
    rollup.catch_up()
    assert rollup.of_token(people.owner.pk, token.pk) == {day: one}
    record(2, people.owner, pk=first.pk + 5, token=token)
    rollup.catch_up()
    record(3, people.owner, pk=first.pk + 3, token=token, model="another", status=502, end_reason="upstream_error", cost=0)
    record(4, people.owner, token=token, started_at=clock.now() - timedelta(days=3))
    record(5, people.owner, token=other)
    before = UserDay.objects.count()
    assert rollup.of_token(people.owner.pk, token.pk) == {day: [3, 1, 1, 30, 12, 9, 1700, 1200], day - 3: [1, 0, 0, 10, 4, 3, 1000, 400]}
    assert UserDay.objects.count() == before
    assert rollup.of_token(people.owner.pk, other.pk) == {day: [1, 0, 0, 10, 4, 3, 1000, 400]}
    rollup.catch_up()
    assert rollup.of_token(people.owner.pk, token.pk) == {day: [3, 1, 1, 30, 12, 9, 1700, 1200], day - 3: [1, 0, 0, 10, 4, 3, 1000, 400]}


def test_a_wrong_sum_is_found_and_made_right(alone: None, people: People) -> None:
    record(1, people.owner)
    rollup.catch_up()
    call_command("rollup", "verify")
    UserDay.objects.update(charged=7)
    with pytest.raises(CommandError, match="differ"):
        call_command("rollup", "verify")
    call_command("rollup", "rebuild")
    assert total(ReportScope.days(1, user=people.owner.pk)).cost == 1000 and rollup.differences() == []


def test_reports_by_everything(alone: None, people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    record(1, people.owner, token=token, model="a", cost=5)
    record(2, people.owner, token=token, model="b", cost=7, started_at=clock.now() - timedelta(days=2))
    record(3, people.other, model="b", cost=11)
    rollup.catch_up()
    assert [(line.label, line.sums.cost) for line in lines(ReportScope.days(7), "model")] == [("b", 18), ("a", 5)]
    assert [(line.label, line.sums.cost) for line in lines(ReportScope.days(1), "model")] == [("b", 11), ("a", 5)]
    assert [line.sums.requests for line in lines(ReportScope.days(7, user=people.owner.pk), "day")] == [1, 1]
    assert [(line.label, line.sums.cost) for line in lines(ReportScope.days(7, user=people.owner.pk), "token")] == [("laptop (alice)", 12)]
    assert [line.label for line in lines(ReportScope.days(7, user=people.owner.pk), "channel")] == ["no channel"]
    month = rollup.month_of(today_ordinal())
    assert {line.label: line.sums.cost for line in dearest("user", month)}["bob"] == 11
    assert MonthSum.objects.filter(kind="token", subject=token.pk).exists()


@given(st.lists(st.integers(1, 600_000), min_size=1, max_size=200), st.sampled_from((0.5, 0.95)))
def test_percentiles_are_near_the_truth(times: list[int], share: float) -> None:
    tally: dict[int, int] = {}
    for milliseconds in times:
        tally[rollup.bucket(milliseconds)] = tally.get(rollup.bucket(milliseconds), 0) + 1
    truth = sorted(times)[max(0, -(-len(times) * round(share * 100) // 100) - 1)]
    found = rollup.percentile(tally, share)
    assert found is not None and (abs(found - truth) <= 1.5 or 0.8 <= found / truth <= 1.25)


def test_months_end_where_the_calendar_says() -> None:
    assert rollup.month_of(date(2026, 12, 31).toordinal()) + 1 == rollup.month_of(date(2027, 1, 1).toordinal())


def test_pages_by_keyset_show_every_request_once(alone: None, people: People) -> None:
    same = clock.now()
    for number in range(25):
        record(number, people.owner, started_at=same - timedelta(seconds=number // 3), model="rare" if number % 5 == 0 else "m")
    rows = UsageRecord.objects.filter(user=people.owner)
    seen, before = [], ""
    while True:
        page = page_of(rows, None, before, 7)
        seen += [row.pk for row in page.rows]
        before = page.before
        if not before:
            break
    assert len(seen) == len(set(seen)) == 25
    from django.db.models import Q

    found = page_of(rows, Q(model="rare"), "", 3)
    assert len(found.rows) == 3 and found.before and len(page_of(rows, Q(model="rare"), found.before, 3).rows) == 2
    assert page_of(rows, None, "nonsense", 3).rows and page_of(rows, None, "99999999999999999-1", 3).rows


def test_a_rare_filter_is_searched_in_windows(alone: None, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db.models import Q

    from relay.usage import paging

    monkeypatch.setattr(paging, "WINDOW", 5)
    now = clock.now()
    for number in range(40):
        record(number, people.owner, started_at=now - timedelta(seconds=number), model="rare" if number == 33 else "m")
    rows = UsageRecord.objects.filter(user=people.owner)
    page = page_of(rows, Q(model="rare"), "", 10)
    assert not page.rows and page.until is not None and page.before
    page = page_of(rows, Q(model="rare"), page.before, 10)
    assert [row.model for row in page.rows] == ["rare"]


def test_seeding_refuses_a_portal_in_use_and_fills_an_empty_one(alone: None) -> None:
    UsageRecord.objects.all().delete()
    User.objects.create_user("somebody")
    with pytest.raises(CommandError, match="has users"):
        call_command("seed", requests=10)
    User.objects.update(is_superuser=True)  # administrators may be there
    call_command("seed", users=5, tokens=9, requests=300, days=3)
    books = verify()
    assert books.clean and books.entries > 250 and books.accounts >= 14, books.differences
    assert UsageRecord.objects.count() == 300 and ChannelDay.objects.exists() and TallyDay.objects.exists()
    assert rollup.differences() == []
