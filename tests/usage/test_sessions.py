"""Sums of sessions: equal to their records, told apart by user, and read by keyset however many there are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext

from portal.lib import clock
from relay.models import SessionPart, SessionSum, UsageRecord
from relay.usage import rollup
from relay.usage.query import OWN_FILTERS, STAFF_FILTERS, UsageQuery
from relay.usage.sessions.lists import (
    by_agent,
    by_channel,
    by_model,
    cache_share,
    find_session,
    session_page,
)
from relay.usage.sessions.sums import delete_without_records
from tests.support.portal import People
from tests.usage.records import record

pytestmark = pytest.mark.shared
S, OTHER = -77, 2**63 - 1


def test_sums_are_those_of_the_records(alone: None, people: People) -> None:
    at = clock.now()
    for number in range(6):
        record(number, people.owner, session=S, app="codex", started_at=at + timedelta(seconds=number), latency_ms=2000)
    record(7, people.owner, session=S, status=502, end_reason="upstream_error", cost=0, input_tokens=0, model="n")
    record(8, people.owner, session=S, endpoint="messages.count_tokens", cost=0, model="n")
    record(9, people.owner, session=OTHER, shortfall=300)
    record(10, people.other, session=S)
    record(11, people.owner)
    assert rollup.catch_up() == 0 and rollup.differences() == []
    whole = SessionSum.objects.get(user=people.owner, session=S)
    assert (whole.requests, whole.failed, whole.turns, whole.charged, whole.app) == (8, 1, 6, 6000, "codex")
    assert whole.busy_ms == 6 * 2000 + 2 * 5 and whole.first_at == at
    assert whole.last_at == at + timedelta(seconds=7)
    for row in SessionSum.objects.all():
        rows = UsageRecord.objects.filter(user=row.user_id, session=row.session)
        sums = rows.aggregate(cost=Sum("cost"), missing=Sum("shortfall"), into=Sum("input_tokens"))
        assert (row.charged, row.input) == (sums["cost"] - sums["missing"], sums["into"])
        parts = SessionPart.objects.filter(user=row.user_id, session=row.session)
        assert parts.aggregate(Sum("charged"))["charged__sum"] == row.charged
    assert SessionSum.objects.get(user=people.other, session=S).requests == 1


def test_later_records_are_added_to_a_session(alone: None, people: People) -> None:
    at = clock.now()
    record(1, people.owner, session=S, started_at=at, app="")
    rollup.catch_up()
    record(2, people.owner, session=S, started_at=at - timedelta(hours=2), app="opencode")
    rollup.catch_up()
    record(3, people.owner, session=S, started_at=at + timedelta(hours=1), app="codex")
    rollup.catch_up()
    whole = SessionSum.objects.get()
    assert (whole.requests, whole.app) == (3, "opencode")
    assert whole.first_at == at - timedelta(hours=2) and whole.last_at == at + timedelta(hours=1, milliseconds=5)
    before = SessionSum.objects.values("user", "session", "requests", "charged", "first_at", "last_at").get()
    assert rollup.rebuild() == 3 and rollup.differences() == []
    assert SessionSum.objects.values("user", "session", "requests", "charged", "first_at", "last_at").get() == before


def test_what_does_not_agree_is_found(alone: None, people: People) -> None:
    record(1, people.owner, session=S)
    rollup.catch_up()
    SessionSum.objects.update(charged=1)
    SessionPart.objects.update(input=1)
    assert [word.split()[0] for word in rollup.differences()] == ["SessionSum", "SessionPart"]


def test_models_channels_and_agents_of_a_session(alone: None, people: People) -> None:
    at = clock.now()
    for number, (agent, parent, model) in enumerate(
        [(None, None, "big"), (5, None, "small"), (6, 5, "small"), (7, None, "big"), (5, None, "big"), (8, 99, "big")]
    ):
        record(number, people.owner, session=S, agent=agent, parent_agent=parent, model=model, channel_id=3,
               started_at=at + timedelta(seconds=number), cost=1000 * (number + 1))  # fmt: skip
    record(7, people.owner, session=OTHER, agent=5)
    rollup.catch_up()
    whole = find_session(people.owner.pk, S)
    assert whole is not None and cache_share(whole) == 40
    assert [(line.key, line.charged) for line in by_model(whole)] == [("big", 16_000), ("small", 5_000)]
    assert [(line.key, line.label, line.charged) for line in by_channel(whole)] == [(3, "#3", 21_000)]
    agents = [(line.key, line.label, line.depth, line.charged) for line in by_agent(whole)]
    assert agents == [(0, "", 0, 1000), (5, "1", 1, 7000), (6, "2", 2, 3000), (7, "3", 1, 4000), (8, "4", 1, 6000)]
    assert sum(line.charged for line in by_agent(whole)) == whole.charged


def test_agents_that_began_each_other_are_listed_once(alone: None, people: People) -> None:
    for number, (agent, parent) in enumerate([(5, 6), (6, 5), (7, 7), (8, 5)]):
        record(number, people.owner, session=S, agent=agent, parent_agent=parent)
    rollup.catch_up()
    whole = find_session(people.owner.pk, S)
    assert whole is not None and sorted(line.key for line in by_agent(whole)) == [5, 6, 7, 8]


def test_a_session_is_found_by_its_user_alone(alone: None, people: People) -> None:
    record(1, people.owner, session=S)
    rollup.catch_up()
    assert find_session(people.owner.pk, S) is not None
    assert find_session(people.other.pk, S) is None and find_session(people.owner.pk, None) is None


def _many(user: Any, count: int) -> None:
    at = clock.now()
    SessionSum.objects.bulk_create(
        SessionSum(user=user, session=number, first_at=at, last_at=at + timedelta(seconds=number // 3), requests=1)
        for number in range(count)
    )
    SessionPart.objects.bulk_create(
        SessionPart(
            user=user, session=number, model=f"m{number % 7}", channel_id=1, first_at=at, last_at=at, requests=1
        )
        for number in range(count)
    )


def test_ten_thousand_sessions_are_read_a_page_at_a_time(alone: None, people: People) -> None:
    _many(people.owner, 10_000)
    _many(people.other, 100)
    mine, seen, before = SessionSum.objects.filter(user=people.owner), [], ""
    for _ in range(4):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page = session_page(mine, before, 30)
        assert len(queries) == 2 and len(page.rows) == 30 and page.before
        assert all("LIMIT 31" in query["sql"] or "GROUP BY" in query["sql"] for query in queries)
        seen += [row.whole.session for row in page.rows]
        assert [row.models for row in page.rows] == [[f"m{row.whole.session % 7}"] for row in page.rows]
        before = page.before
    assert seen == list(range(9_999, 9_879, -1)), "those of one moment as well, each once"
    assert session_page(mine, "0-1", 30).rows == [] and len(session_page(mine, "nonsense", 30).rows) == 30


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the words of SQLite's planner")
def test_pages_of_sessions_scan_no_table(alone: None, people: People) -> None:
    query = UsageQuery.read({"session": "0000000000000001"}, OWN_FILTERS)
    rows, narrowed = query.records(UsageRecord.objects.filter(user=people.owner))
    assert narrowed is None
    for asked, index in (
        (rows.order_by("-started_at", "-pk")[:50], "usage_session_time"),
        (SessionSum.objects.filter(user=people.owner).order_by("-last_at", "-pk")[:50], "session_user_time"),
        (SessionSum.objects.order_by("-last_at", "-pk")[:50], "session_time"),
        (SessionSum.objects.filter(user=people.owner, session=S), "SEARCH relay_sessionsum"),
        (SessionSum.objects.filter(session=S), "SEARCH relay_sessionsum"),
        (SessionPart.objects.filter(user=people.owner, session=S), "SEARCH relay_sessionpart"),
    ):
        plan = asked.explain()
        assert index in plan and "SCAN" not in plan.replace(f"SCAN relay_sessionsum USING INDEX {index}", ""), plan


def test_the_filter_of_a_session_leads_to_its_records_alone(alone: None, people: People) -> None:
    for number, (user, session) in enumerate([(people.owner, S), (people.owner, OTHER), (people.other, S)]):
        record(number, user, session=session)
    rollup.catch_up()
    code = SessionSum.objects.get(user=people.owner, session=S).code
    own = UsageQuery.read({"session": code}, OWN_FILTERS)
    assert [row.user_id for row in own.records(UsageRecord.objects.filter(user=people.owner))[0]] == [people.owner.pk]
    assert own.link() == f"?session={code}" and own.names()[0][:2] == ("Session", code)
    staff = UsageQuery.read({"session": code, "user": str(people.other.pk)}, STAFF_FILTERS)
    assert [row.user_id for row in staff.records(UsageRecord.objects.all())[0]] == [people.other.pk]
    alone_ = UsageQuery.read({"session": code}, STAFF_FILTERS)
    assert alone_.filters["user"] in {people.owner.pk, people.other.pk}
    unknown = UsageQuery.read({"session": "0" * 16}, STAFF_FILTERS)
    assert not unknown.records(UsageRecord.objects.all())[0].exists()
    for wrong in ("x", "S" * 16, "0" * 17, ""):
        assert "session" not in UsageQuery.read({"session": wrong}, STAFF_FILTERS).filters


def test_sessions_go_when_their_records_are_deleted(alone: None, people: People) -> None:
    now = clock.now()
    record(1, people.owner, session=S, started_at=now - timedelta(days=9))
    record(2, people.owner, session=OTHER, started_at=now - timedelta(days=9))
    record(3, people.owner, session=OTHER, started_at=now)
    rollup.catch_up()
    delete_without_records()
    assert SessionSum.objects.count() == 2
    UsageRecord.objects.filter(started_at__lt=now).delete()
    delete_without_records()
    assert [row.session for row in SessionSum.objects.all()] == [OTHER]
    assert {row.session for row in SessionPart.objects.all()} == {OTHER}
    UsageRecord.objects.all().delete()
    delete_without_records()
    assert not SessionSum.objects.exists() and not SessionPart.objects.exists()


def test_sessions_of_a_deleted_user_are_still_read(alone: None, people: People) -> None:
    gone = 999_999
    record(1, session=S)
    UsageRecord.objects.update(user=gone, token=gone, channel=gone)
    rollup.catch_up()
    whole = find_session(gone, S)
    assert whole is not None and (whole.user, whole.token, whole.user_id) == (None, None, gone)
    assert [row.whole.pk for row in session_page(SessionSum.objects.all(), "", 5).rows] == [whole.pk]
    assert rollup.differences() == []
