"""Old usage records are deleted by setting; sums, the ledger and its proofs stay."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.lib import clock
from relay.billing.ledger.verify import verify
from relay.models import RemovedUsage, RollupMark, SessionSum, UsageRecord, UserDay
from relay.usage import rollup
from relay.usage.demo_data import SeedPlan, seed
from relay.usage.reports import ReportScope, report_total, today_ordinal
from relay.usage.retention import records
from tests.support.portal import People
from tests.support.sessions import with_config
from tests.usage.records import record

pytestmark = pytest.mark.shared


def test_sums_and_proofs_outlive_the_records(alone: None, settings: Any) -> None:
    seed(SeedPlan(users=6, tokens=12, requests=900, days=60))
    assert rollup.catch_up() == 0
    before, days = report_total(ReportScope.days(90)), UserDay.objects.count()
    with_config(settings, usage_keep_days=20)
    first = clock.now() - timedelta(days=21)
    old = UsageRecord.objects.filter(started_at__lt=first).count()
    deleted = records.delete_expired()
    assert deleted >= old > 100 and not UsageRecord.objects.filter(started_at__lt=first).exists()
    assert UsageRecord.objects.filter(started_at__gte=first + timedelta(days=1)).exists()

    found = verify()
    assert found.clean, found.differences
    assert found.removed == deleted and found.records == 900 - deleted
    assert report_total(ReportScope.days(90)) == before and rollup.differences() == []
    assert records.delete_expired() == 0

    assert rollup.rebuild() == 900 - deleted
    assert report_total(ReportScope.days(90)) == before and UserDay.objects.count() == days
    assert rollup.differences() == [] and verify().clean
    with_config(settings, usage_keep_days=10)
    assert records.delete_expired() > 0 and verify().clean and rollup.differences() == []


def test_nothing_is_deleted_without_a_setting_or_before_it_is_added_up(
    alone: None, people: People, settings: Any
) -> None:
    old = clock.now() - timedelta(days=40)
    record(1, people.owner, cost=0, started_at=old)
    assert records.delete_expired() == 0
    with_config(settings, usage_keep_days=30)
    assert records.delete_expired() == 0 and UsageRecord.objects.count() == 1
    rollup.catch_up()
    record(2, people.owner, cost=0, started_at=old)
    assert records.delete_expired() == 0 and UsageRecord.objects.count() == 2
    rollup.catch_up()
    assert records.delete_expired() == 2
    assert RemovedUsage.objects.get(user_id=people.owner.pk).records == 2
    assert RollupMark.objects.get().kept_from > 0 and rollup.differences() == []


def test_a_session_across_the_limit_keeps_its_sums_until_they_are_made_again(
    alone: None, people: People, settings: Any
) -> None:
    for number, days in enumerate((40, 31, 1)):
        record(number + 1, people.owner, cost=0, session=7, started_at=clock.now() - timedelta(days=days))
    rollup.catch_up()
    with_config(settings, usage_keep_days=30)
    assert records.delete_expired() == 2
    assert SessionSum.objects.get().requests == 3 and rollup.differences() == []
    rollup.rebuild()
    assert SessionSum.objects.get().requests == 1 and rollup.differences() == []


def test_a_wrong_sum_of_a_day_that_is_kept_is_still_found(alone: None, people: People, settings: Any) -> None:
    record(1, people.owner, cost=0, started_at=clock.now() - timedelta(days=40))
    record(2, people.owner, cost=0)
    rollup.catch_up()
    with_config(settings, usage_keep_days=30)
    assert records.delete_expired() == 1
    UserDay.objects.filter(day=today_ordinal()).update(requests=5)
    assert [words.split()[0] for words in rollup.differences()] == ["UserDay"]


def test_no_transaction_reads_all_that_is_to_be_deleted(alone: None, people: People, settings: Any) -> None:
    """Each would hold the sums, and on SQLite all writers, for as long as it takes to read ten million rows."""
    old = clock.now() - timedelta(days=40)
    ids = [record(number, people.owner, cost=0, started_at=old).pk for number in range(1, 8)]
    rollup.catch_up()
    RollupMark.objects.update(gaps=[[ids[0], ids[2], clock.now().timestamp()]])
    with_config(settings, usage_keep_days=30)
    assert records.delete_expired() == 0, "some may not have been added up"
    RollupMark.objects.update(gaps=[])
    with CaptureQueriesContext(connection) as queries:
        assert records.delete_expired() == 7
    of_ids_and_times = [one["sql"] for one in queries if "started_at" in one["sql"].partition("WHERE")[2]]
    assert of_ids_and_times and not any("id" in re.split(r"\W", sql.partition("WHERE")[2]) for sql in of_ids_and_times)


def test_records_that_come_late_are_added_up_before_they_are_deleted(
    alone: None, people: People, settings: Any
) -> None:
    old = clock.now() - timedelta(days=40)
    record(1, people.owner, cost=0, started_at=old)
    rollup.catch_up()
    with_config(settings, usage_keep_days=30)
    assert records.delete_expired() == 1
    late = [record(number, people.owner, cost=0, started_at=old) for number in (2, 3)]
    assert records.delete_expired() == 0 and UsageRecord.objects.count() == len(late)
    rollup.catch_up()
    record(4, people.owner, cost=0, started_at=old)
    assert records.delete_expired() == 2 and UsageRecord.objects.count() == 1
