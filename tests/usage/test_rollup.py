"""Daily sums: each request counted once, however late it becomes visible."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.core.management import CommandError, call_command

from portal.lib import clock
from relay.models import RollupMark, UserDay
from relay.tokens.lifecycle import create_token
from relay.usage import rollup
from relay.usage.durations.classes import percentile
from relay.usage.reports import ReportScope, error_counts, first_token_times, report_total, today_ordinal
from tests.support.portal import People
from tests.usage.records import record

pytestmark = pytest.mark.shared


def test_each_request_is_counted_once(alone: None, people: People) -> None:
    for number in range(5):
        record(number, people.owner)
    record(
        6,
        people.owner,
        status=502,
        end_reason="upstream_error",
        error_code="upstream_error",
        cost=0,
        first_token_ms=None,
    )
    assert rollup.catch_up() == 0 and rollup.catch_up() == 0
    sums = report_total(ReportScope.days(1, user=people.owner.pk))
    assert (
        sums.requests,
        sums.failed,
        sums.faults,
        sums.input,
        sums.cached,
        sums.output,
        sums.cost,
        sums.upstream_cost,
    ) == (6, 1, 1, 60, 24, 18, 5000, 2400)
    assert report_total(ReportScope.days(1)).requests == 6 and rollup.differences() == []
    assert error_counts(ReportScope.days(1)) == [("upstream_error", "upstream_error", 1)]
    assert percentile(first_token_times(ReportScope.days(1)), 0.5) == pytest.approx(100, rel=0.1)


def test_what_becomes_visible_late_is_counted_then(alone: None, people: People) -> None:
    """Two hosts on PostgreSQL: a lower id may be committed after a higher one has been added up."""
    first = record(1, people.owner)
    rollup.catch_up()
    record(2, people.owner, pk=first.pk + 5)
    rollup.catch_up()
    assert RollupMark.objects.get().gaps[0][:2] == [first.pk + 1, first.pk + 4]
    record(3, people.owner, pk=first.pk + 3)
    rollup.catch_up()
    assert report_total(ReportScope.days(1, user=people.owner.pk)).requests == 3
    assert [gap[:2] for gap in RollupMark.objects.get().gaps] == [
        [first.pk + 1, first.pk + 2],
        [first.pk + 4, first.pk + 4],
    ]
    assert rollup.differences() == []


def test_what_a_token_used_is_known_before_it_is_added_up(alone: None, people: People) -> None:
    """GET /v1/usage adds nothing up, and leaves nothing out: what waits, and what lies in a gap, is counted from its
    records.
    """
    token, other = (create_token(people.owner, name, actor=None)[0] for name in ("one", "other"))
    assert rollup.token_days(people.owner.pk, token.pk) == {}
    first = record(1, people.owner, token=token, shortfall=300)
    day = today_ordinal()
    one = [1, 0, 0, 10, 4, 3, 700, 400]
    assert rollup.token_days(people.owner.pk, token.pk) == {day: one}
    rollup.catch_up()
    assert rollup.token_days(people.owner.pk, token.pk) == {day: one}
    record(2, people.owner, pk=first.pk + 5, token=token)
    rollup.catch_up()
    record(
        3, people.owner, pk=first.pk + 3, token=token, model="another", status=502, end_reason="upstream_error", cost=0
    )
    record(4, people.owner, token=token, started_at=clock.now() - timedelta(days=3))
    record(5, people.owner, token=other)
    before = UserDay.objects.count()
    assert rollup.token_days(people.owner.pk, token.pk) == {
        day: [3, 1, 1, 30, 12, 9, 1700, 1200],
        day - 3: [1, 0, 0, 10, 4, 3, 1000, 400],
    }
    assert UserDay.objects.count() == before
    assert rollup.token_days(people.owner.pk, other.pk) == {day: [1, 0, 0, 10, 4, 3, 1000, 400]}
    rollup.catch_up()
    assert rollup.token_days(people.owner.pk, token.pk) == {
        day: [3, 1, 1, 30, 12, 9, 1700, 1200],
        day - 3: [1, 0, 0, 10, 4, 3, 1000, 400],
    }


def test_a_wrong_sum_is_found_and_made_right(alone: None, people: People) -> None:
    record(1, people.owner)
    rollup.catch_up()
    call_command("rollup", "verify")
    UserDay.objects.update(charged=7)
    with pytest.raises(CommandError, match="differ"):
        call_command("rollup", "verify")
    call_command("rollup", "rebuild")
    assert report_total(ReportScope.days(1, user=people.owner.pk)).cost == 1000 and rollup.differences() == []


def test_months_end_where_the_calendar_says() -> None:
    assert rollup.month_of(date(2026, 12, 31).toordinal()) + 1 == rollup.month_of(date(2027, 1, 1).toordinal())
