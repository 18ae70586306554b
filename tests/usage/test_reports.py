"""Reports over the daily sums."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.lib import clock
from relay.models import MonthSum
from relay.tokens.lifecycle import create_token
from relay.usage import rollup
from relay.usage.durations.classes import class_of, percentile
from relay.usage.reports import ReportScope, report_lines, today_ordinal, top_spenders
from tests.support.portal import People
from tests.usage.records import record

pytestmark = pytest.mark.shared


def test_reports_by_everything(alone: None, people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    record(1, people.owner, token=token, model="a", cost=5)
    record(2, people.owner, token=token, model="b", cost=7, started_at=clock.now() - timedelta(days=2))
    record(3, people.other, model="b", cost=11)
    rollup.catch_up()
    assert [(line.label, line.sums.cost) for line in report_lines(ReportScope.days(7), "model")] == [
        ("b", 18),
        ("a", 5),
    ]
    assert [(line.label, line.sums.cost) for line in report_lines(ReportScope.days(1), "model")] == [
        ("b", 11),
        ("a", 5),
    ]
    assert [line.sums.requests for line in report_lines(ReportScope.days(7, user=people.owner.pk), "day")] == [1, 1]
    assert [
        (line.label, line.sums.cost) for line in report_lines(ReportScope.days(7, user=people.owner.pk), "token")
    ] == [("laptop (alice)", 12)]
    assert [line.label for line in report_lines(ReportScope.days(7, user=people.owner.pk), "channel")] == ["no channel"]
    month = rollup.month_of(today_ordinal())
    assert {line.label: line.sums.cost for line in top_spenders("user", month)}["bob"] == 11
    assert MonthSum.objects.filter(kind="token", subject=token.pk).exists()


@given(st.lists(st.integers(1, 600_000), min_size=1, max_size=200), st.sampled_from((0.5, 0.95)))
def test_percentiles_are_near_the_truth(times: list[int], share: float) -> None:
    tally: dict[int, int] = {}
    for milliseconds in times:
        tally[class_of(milliseconds)] = tally.get(class_of(milliseconds), 0) + 1
    truth = sorted(times)[max(0, -(-len(times) * round(share * 100) // 100) - 1)]
    found = percentile(tally, share)
    assert found is not None and (abs(found - truth) <= 1.5 or 0.8 <= found / truth <= 1.25)
