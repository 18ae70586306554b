"""Reports of costs: asked for as the vendors' references say, compared by day, and never with another's key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Group

from portal.lib import clock
from portal.lib.money import NANO
from relay import jobs
from relay.channels.bills import reports
from relay.channels.bills.compare import Recorded, beginning_of, put
from relay.models import BillingKey, Channel, Notice, RollupMark, UpstreamBill, UsageRecord
from relay.providers.accounts.bills import BillSource, read_page
from relay.providers.vendors import VENDORS
from tests.support.money import record
from tests.support.portal import Portal
from tests.support.sessions import with_config
from tests.support.upstream import Call, Upstream

pytestmark = pytest.mark.shared
SECRET = "sk-admin-0123456789abcdefghij"
TODAY = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)


@pytest.fixture
def here(db: None, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Portal:
    monkeypatch.setattr(clock, "now", lambda: TODAY)
    return Portal(upstream)


def billing_key(here: Portal, provider: str = "openai", **values: Any) -> BillingKey:
    channel = here.channel(provider=provider)
    there_since(channel, TODAY - timedelta(days=300))
    key = BillingKey(channel=channel, **values)
    key.set_secret(SECRET, channel)
    key.save()
    return key


def there_since(channel: Channel, at: datetime) -> None:
    Channel.objects.filter(pk=channel.pk).update(created_at=at)


@contextmanager
def answering(here: Portal, answer: Callable[[dict[str, list[str]]], tuple[int, Any]]) -> Iterator[list[Call]]:
    """The vendor, and what it was asked."""
    asked: list[Call] = []

    async def vendor(call: Call) -> None:
        asked.append(call)
        await call.reply(*answer(parse_qs(urlsplit(call.path).query)))

    here.upstream.scripts[""] = vendor
    try:
        yield asked
    finally:
        del here.upstream.scripts[""]


def openai_bucket(day: date, *amounts: Any) -> dict[str, Any]:
    start = int(beginning_of(day).timestamp())
    results = [
        {
            "object": "organization.costs.result",
            "amount": {"value": amount, "currency": "usd"},
            "line_item": None,
            "project_id": None,
        }
        for amount in amounts
    ]
    return {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": results}


def test_openai_is_asked_page_by_page_and_each_day_compared(here: Portal) -> None:
    key = billing_key(here, scope="proj_1")
    other = here.channel()
    key.also.add(other)
    user = here.user()
    yesterday, before = date(2026, 11, 19), date(2026, 11, 18)
    for channel, at, cost in (
        (key.channel, beginning_of(yesterday), 2 * NANO),
        (other, beginning_of(yesterday) + timedelta(hours=23, minutes=59), 1 * NANO),
        (key.channel, beginning_of(before) + timedelta(hours=1), 5 * NANO),
        (here.channel(), beginning_of(yesterday), 100 * NANO),  # of another account
        (key.channel, beginning_of(date(2026, 11, 20)), 7 * NANO),  # today
    ):
        record(user, channel=channel, started_at=at, upstream_cost=cost)

    def answer(query: dict[str, list[str]]) -> tuple[int, Any]:
        if "page" not in query:
            return 200, {"object": "page", "data": [openai_bucket(before, 3.5)], "has_more": True, "next_page": "p2"}
        bucket = openai_bucket(yesterday, 1.25, "1.75")
        return 200, {"object": "page", "data": [bucket, openai_bucket(TODAY.date(), 9)], "has_more": False}

    with answering(here, answer) as asked:
        assert reports.compare(key) == "180 day(s) compared"
    first = parse_qs(urlsplit(asked[0].path).query)
    assert urlsplit(asked[0].path).path == "/v1/organization/costs"
    assert first["project_ids"] == ["proj_1"] and first["bucket_width"] == ["1d"]
    assert first["start_time"] == [str(int((datetime(2026, 11, 20, tzinfo=UTC) - timedelta(days=180)).timestamp()))]
    assert first["end_time"] == [str(int(datetime(2026, 11, 20, tzinfo=UTC).timestamp()))]
    assert [call.headers["authorization"] for call in asked] == [f"Bearer {SECRET}"] * 2
    rows = {row.day: row for row in UpstreamBill.objects.all()}
    assert set(rows) == {yesterday, before}
    agreed, drifted = rows[yesterday], rows[before]
    assert (agreed.reported, agreed.recorded, agreed.requests, agreed.drifts) == (3 * NANO, 3 * NANO, 2, False)
    assert (drifted.reported, drifted.recorded, drifted.drifts) == (3_500_000_000, 5 * NANO, True)
    assert drifted.difference == -1_500_000_000 and drifted.percent == -30.0
    key.refresh_from_db()
    assert key.fault == "" and key.asked_at == TODAY

    with answering(here, answer) as asked:
        assert reports.compare(key) == "3 day(s) compared", "what is over long since does not change any more"

    # Days of which records have been deleted since would differ, whatever was billed: what was known of them stays.
    RollupMark.objects.update_or_create(pk=1, defaults={"kept_from": yesterday.toordinal()})
    UsageRecord.objects.filter(started_at__lt=beginning_of(yesterday)).delete()
    Notice.objects.all().delete()
    with answering(here, answer):
        assert reports.compare(key) == "1 day(s) compared"
    drifted.refresh_from_db()
    assert (drifted.recorded, drifted.requests) == (5 * NANO, 1) and not Notice.objects.exists()
    assert UpstreamBill.objects.count() == 2


def test_anthropic_counts_in_cents_and_by_workspace(here: Portal) -> None:
    key = billing_key(here, "anthropic", scope="wrkspc_1")
    record(here.user(), channel=key.channel, started_at=beginning_of(date(2026, 11, 19)), upstream_cost=NANO)

    def answer(query: dict[str, list[str]]) -> tuple[int, Any]:
        results = [
            {"amount": "123.45", "currency": "USD", "workspace_id": "wrkspc_1", "cost_type": None},
            {"amount": "9999", "currency": "USD", "workspace_id": None, "cost_type": None},
        ]
        bucket = {
            "starting_at": "2026-11-19T00:00:00Z",
            "ending_at": "2026-11-20T00:00:00Z",
            "results": results,
        }
        return 200, {"data": [bucket], "has_more": False, "next_page": None}

    with answering(here, answer) as asked:
        reports.compare(key)
    query = parse_qs(urlsplit(asked[0].path).query)
    assert urlsplit(asked[0].path).path == "/v1/organizations/cost_report"
    assert query["group_by[]"] == ["workspace_id"] and query["ending_at"] == ["2026-11-20T00:00:00Z"]
    assert asked[0].headers["x-api-key"] == SECRET and asked[0].headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in asked[0].headers
    (row,) = UpstreamBill.objects.all()
    assert (row.reported, row.recorded, row.drifts) == (1_234_500_000, NANO, True)


def test_the_default_workspace_has_no_name_in_the_report() -> None:
    source = bill_of("anthropic")
    bucket = {
        "starting_at": "2026-11-19T00:00:00Z",
        "results": [{"amount": "5", "workspace_id": None}, {"amount": "7", "workspace_id": "wrkspc_1"}],
    }
    for scope, amounts in (("default", ["0.05"]), ("wrkspc_1", ["0.07"]), ("", ["0.05", "0.07"])):
        page = read_page(source, {"data": [bucket]}, scope)
        assert page is not None and [str(part.amount) for part in page.parts] == amounts


def test_openrouter_adds_what_own_keys_were_charged(here: Portal) -> None:
    key = billing_key(here, "openrouter", scope="a" * 64)
    rows = [
        {"date": "2026-11-19", "model": "a", "usage": 0.015, "byok_usage_inference": 0.012, "requests": 5},
        {"date": "2026-11-19 00:00:00", "model": "b", "usage": 1, "byok_usage_inference": 0, "requests": 1},
    ]
    with answering(here, lambda query: (200, {"data": rows})) as asked:
        reports.compare(key)
    assert asked[0].path == f"/v1/activity?api_key_hash={'a' * 64}"
    (row,) = UpstreamBill.objects.all()
    assert row.reported == 1_027_000_000 and row.recorded == 0 and row.drifts and row.percent is None


BUCKET = openai_bucket(date(2026, 11, 19))


@pytest.mark.parametrize(
    ("status", "answer", "fault"),
    [
        (401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}}, "sk-admin-…"),
        (403, {"error": {"message": "Missing scopes: api.usage.read"}}, "sk-admin-…"),
        (429, {"error": {"message": f"slow down, {SECRET}"}}, "with 429"),
        (200, {"data": "nonsense"}, "not its report"),
        (200, {"data": [openai_bucket(date(2026, 11, 19), float("1e300"))]}, "not its report"),
        (200, {"data": [openai_bucket(date(2026, 11, 19), True)]}, "not its report"),
        (200, {"data": [openai_bucket(date(2026, 11, 19), *[999_999_999] * 20)]}, "not its report"),
        (200, b"<html>", "not its report"),
        (200, {"data": [], "has_more": True}, "not its report"),
        (200, {"data": [], "has_more": True, "next_page": None}, "not its report"),
        (200, {"data": [{**BUCKET, "results": [{"amount": {"value": 1, "currency": "u\0d"}}]}]}, "not its report"),
        (
            200,
            {"data": [openai_bucket(date(2026, 11, 19), *[0] * 40_000)] * 3, "has_more": True, "next_page": "2"},
            "not its report",
        ),
        (
            200,
            {"data": [openai_bucket(date(2026, 11, 19), *[0] * 60_000)], "has_more": True, "next_page": "2"},
            "too many pages",
        ),
        (200, {"data": [], "has_more": True, "next_page": "again"}, "too many pages"),
    ],
)
def test_a_report_that_does_not_come_is_a_fault_of_the_key(here: Portal, status: int, answer: Any, fault: str) -> None:
    key = billing_key(here)
    record(here.user(), channel=key.channel, started_at=beginning_of(date(2026, 11, 19)), upstream_cost=NANO)
    with answering(here, lambda query: (status, answer)):
        reports.compare(key)
    key.refresh_from_db()
    assert fault in key.fault and SECRET not in key.fault and key.asked_at == TODAY
    assert not UpstreamBill.objects.exists(), "what is not known is no bill of nothing"


def test_the_key_goes_nowhere_but_where_it_was_given_for(here: Portal) -> None:
    key = billing_key(here)
    channel = key.channel
    channel.base_url = channel.base_url.replace("127.0.0.1", "localhost")
    channel.save()
    key = BillingKey.objects.get(pk=key.pk)
    with answering(here, lambda query: (200, {"data": []})) as asked:
        reports.compare(key)
    key.refresh_from_db()
    assert asked == [] and "enter it again" in key.fault


def test_a_day_that_was_billed_nothing_says_so_only_where_requests_were_made(here: Portal) -> None:
    key = billing_key(here)
    record(here.user(), channel=key.channel, started_at=beginning_of(date(2026, 11, 18)), upstream_cost=2 * NANO)
    with answering(here, lambda query: (200, {"data": [], "has_more": False})):
        reports.compare(key)
    (row,) = UpstreamBill.objects.all()
    assert row.day == date(2026, 11, 18) and row.reported == 0 and row.drifts and row.difference == -2 * NANO


def test_staff_are_told_once_of_a_day_that_differs_by_a_dollar(here: Portal) -> None:
    boss = here.user(is_staff=True, is_superuser=True)
    accountant, operator = here.user(is_staff=True), here.user(is_staff=True)
    accountant.groups.set(Group.objects.filter(name="Accountant"))
    operator.groups.set(Group.objects.filter(name="Operator"))
    key = billing_key(here)
    user = here.user()
    record(user, channel=key.channel, started_at=beginning_of(date(2026, 11, 19)), upstream_cost=10 * NANO)
    record(user, channel=key.channel, started_at=beginning_of(date(2026, 11, 18)), upstream_cost=NANO // 10)
    buckets = [openai_bucket(date(2026, 11, 18), 0.5), openai_bucket(date(2026, 11, 19), 12)]
    for _time in range(2):
        with answering(here, lambda query: (200, {"data": buckets, "has_more": False})):
            reports.compare(key)
    (notice,) = Notice.objects.filter(user=boss)
    assert Notice.objects.filter(user=accountant).count() == 1, "who sees the page is told"
    assert not Notice.objects.filter(user=operator).exists(), "operators do not see what upstreams cost"
    assert notice.kind == "bill" and "$12.00" in notice.text and "$10.00" in notice.text
    assert notice.data["billed_usd"] == "12" and UpstreamBill.objects.filter(drifts=True).count() == 2


def a_dollar_a_day(here: Portal, key: BillingKey) -> set[date]:
    """Compare with an upstream that billed a dollar on each of thirty days. Returns the days that were compared."""
    buckets = [openai_bucket(TODAY.date() - timedelta(days=days), 1) for days in range(1, 31)]
    with answering(here, lambda query: (200, {"data": buckets, "has_more": False})):
        reports.compare(BillingKey.objects.get(pk=key.pk))
    return set(UpstreamBill.objects.values_list("day", flat=True))


def test_days_that_nobody_asked_for_long_are_compared_later(here: Portal) -> None:
    """The upstream did not answer for ten days: what it billed meanwhile is not lost."""
    key = billing_key(here)
    day = date(2026, 11, 10)
    span = (beginning_of(day), beginning_of(day) + timedelta(days=1))
    put(key.channel, "report", day, span, Recorded(), reported=0, currency="USD", gaps=0)
    assert a_dollar_a_day(here, key) == {date(2026, 11, number) for number in range(8, 20)}
    assert set(UpstreamBill.objects.values_list("reported", flat=True)) == {NANO}


def test_a_channel_that_two_keys_name_counts_once(here: Portal) -> None:
    """Such as one that was given a key of its own while a form was open."""
    first, second, third = (billing_key(here) for _ in range(3))
    shared = here.channel()
    for key in (first, second):
        key.also.add(shared, key.channel)
    second.also.add(third.channel)
    assert reports._channels(first) == ([first.channel_id, shared.pk], "")
    channels, doubt = reports._channels(second)
    assert channels == [second.channel_id] and shared.name in doubt and third.channel.name in doubt
    assert reports._channels(third) == ([third.channel_id], "")
    a_dollar_a_day(here, second)
    second.refresh_from_db()
    assert second.fault == doubt


def test_days_before_the_channel_was_there_are_not_compared(here: Portal) -> None:
    """A year of somebody's bills is no year of differences, and no notice for each day."""
    boss, key = here.user(is_staff=True, is_superuser=True), billing_key(here)
    there_since(key.channel, datetime(2026, 11, 17, 9, tzinfo=UTC))
    assert a_dollar_a_day(here, key) == {date(2026, 11, 18), date(2026, 11, 19)}
    assert Notice.objects.filter(user=boss).count() == 2
    UpstreamBill.objects.all().delete()
    there_since(key.channel, TODAY)
    assert a_dollar_a_day(here, key) == set()
    key.refresh_from_db()
    assert (key.fault, key.asked_at) == ("", TODAY)


def test_days_without_their_records_are_not_compared(here: Portal, settings: Any) -> None:
    """Records are deleted by setting: their absence is no difference."""
    key = billing_key(here)
    RollupMark.objects.update_or_create(pk=1, defaults={"kept_from": date(2026, 11, 14).toordinal()})
    assert a_dollar_a_day(here, key) == {date(2026, 11, number) for number in range(14, 20)}
    UpstreamBill.objects.all().delete()
    with_config(settings, usage_keep_days=3)  # nothing was deleted yet
    assert a_dollar_a_day(here, key) == {date(2026, 11, number) for number in range(17, 20)}


def test_a_part_of_the_key_in_an_answer_is_shown_nowhere(here: Portal) -> None:
    key = billing_key(here)
    other = "tp-0123456789"
    key.set_secret(other, key.channel)
    key.save()
    padding = "x" * 191
    for text in (f"{padding} {SECRET}", f"wrong key {other}"):
        said = text.encode()
        with answering(here, lambda query: (400, said)):  # noqa: B023  # asked within
            reports.compare(BillingKey.objects.get(pk=key.pk))
        key.refresh_from_db()
        assert "with 400" in key.fault and "sk-admin" not in key.fault and "tp-0" not in key.fault


@pytest.mark.parametrize(
    ("reported", "recorded", "percent", "drifts"),
    [
        ("10.40", 10, 5, False),
        ("10.60", 10, 5, True),
        ("9.40", 10, 5, True),
        ("10.01", 10, 0, False),  # a cent is rounding
        ("10.02", 10, 0, True),
        ("0", 0, 0, False),
        ("100", 1, 100, False),
    ],
)
def test_how_much_is_a_difference(
    here: Portal, settings: Any, reported: str, recorded: int, percent: float, drifts: bool
) -> None:
    with_config(settings, bill_drift_percent=percent)
    key = billing_key(here)
    record(here.user(), channel=key.channel, started_at=beginning_of(date(2026, 11, 19)), upstream_cost=recorded * NANO)
    bucket = openai_bucket(date(2026, 11, 19), reported)
    with answering(here, lambda query: (200, {"data": [bucket], "has_more": False})):
        reports.compare(key)
    assert UpstreamBill.objects.get().drifts is drifts


def test_another_currency_is_shown_and_not_compared(here: Portal) -> None:
    key = billing_key(here)
    bucket = openai_bucket(date(2026, 11, 19), 5)
    bucket["results"][0]["amount"]["currency"] = "eur"
    with answering(here, lambda query: (200, {"data": [bucket], "has_more": False})):
        reports.compare(key)
    row = UpstreamBill.objects.get()
    assert (row.currency, row.reported, row.difference, row.drifts) == ("EUR", 5 * NANO, None, False)


def test_the_jobs_ask_from_time_to_time(here: Portal) -> None:
    key = billing_key(here)
    due = [job for job in jobs.due_jobs() if job.name == "bills of an upstream"]
    assert [job.subject for job in due] == [str(key.channel)]
    BillingKey.objects.update(asked_at=TODAY - timedelta(hours=1))
    assert not [job for job in jobs.due_jobs() if job.name == "bills of an upstream"]


def bill_of(provider: str) -> BillSource:
    source = VENDORS[provider].bill
    assert source is not None
    return source
