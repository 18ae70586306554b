"""Balances before and after: what is gone between them beside what was recorded in the same time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from portal.lib import clock
from portal.lib.money import NANO
from relay.channels.bills import readings
from relay.channels.health_checks import refresh_balances
from relay.models import ApiKey, BalanceReading, Channel, UpstreamBill
from relay.providers.accounts.balances import Balance
from tests.support.money import record
from tests.support.portal import Portal
from tests.support.sessions import with_config
from tests.support.upstream import Call, Upstream

pytestmark = pytest.mark.shared
NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
DAY = date(2026, 11, 19)


@pytest.fixture
def here(db: None, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Portal:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    return Portal(upstream)


def at(day: int, hour: int) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def told(key: ApiKey, currency: str, *said: tuple[datetime, str]) -> None:
    for when, amount in said:
        readings.note(key, Balance(Decimal(amount), currency), when)


def used(here: Portal, channel: Channel, key: ApiKey, when: datetime, usd: str) -> None:
    record(here.user(), channel=channel, api_key=key, started_at=when, upstream_cost=int(Decimal(usd) * NANO))


def row_of(channel: Channel, day: date = DAY) -> UpstreamBill:
    readings.compare(channel)
    return UpstreamBill.objects.get(channel=channel, day=day)


def test_what_is_gone_is_compared_with_what_was_recorded_in_the_same_time(here: Portal) -> None:
    channel = here.channel()
    key = channel.keys.get()
    told(key, "USD", (at(18, 22), "50"), (at(19, 4), "48"), (at(19, 22), "45.5"), (at(20, 4), "44"))
    used(here, channel, key, at(18, 21), "9")  # before the first
    used(here, channel, key, at(18, 23), "2")
    used(here, channel, key, at(19, 12), "2.45")
    used(here, channel, key, at(19, 23), "1.5")  # of the next day's time
    row = row_of(channel)
    assert (row.begins_at, row.ends_at) == (at(18, 22), at(19, 22))
    assert (row.reported, row.recorded, row.requests) == (4_500_000_000, 4_450_000_000, 2)
    assert row.complete and not row.drifts
    today = UpstreamBill.objects.get(channel=channel, day=date(2026, 11, 20))
    assert (today.reported, today.recorded, today.complete) == (1_500_000_000, 1_500_000_000, False)


def test_money_that_was_added_leaves_its_time_out_on_both_sides(here: Portal) -> None:
    channel = here.channel()
    key = channel.keys.get()
    told(key, "USD", (at(19, 1), "10"), (at(19, 7), "8"), (at(19, 13), "107"), (at(19, 19), "100"))
    used(here, channel, key, at(19, 2), "2")
    used(here, channel, key, at(19, 8), "1")  # nobody knows what was billed then
    used(here, channel, key, at(19, 14), "7")
    row = row_of(channel)
    assert (row.reported, row.recorded, row.gaps, row.drifts) == (9 * NANO, 9 * NANO, 1, False)


def test_a_day_of_which_nothing_can_be_told(here: Portal) -> None:
    channel = here.channel()
    told(channel.keys.get(), "USD", (at(19, 1), "10"), (at(19, 7), "80"))
    row = row_of(channel)
    assert row.reported is None and row.difference is None and row.gaps == 1 and not row.drifts


def test_keys_of_one_account_count_once_and_of_several_each(here: Portal) -> None:
    shared = here.channel(keys=("sk-one-0123456789abc", "sk-two-0123456789abc"))
    one, two = shared.keys.all()
    told(one, "USD", (at(19, 1), "100"), (at(19, 20), "90"))
    told(two, "USD", (at(19, 1) + timedelta(seconds=2), "99.99"), (at(19, 20) + timedelta(seconds=2), "90"))
    used(here, shared, one, at(19, 5), "4")
    used(here, shared, two, at(19, 6), "6")
    row = row_of(shared)
    assert (row.reported, row.recorded, row.drifts) == (10 * NANO, 10 * NANO, False)
    apart = here.channel(keys=("sk-one-0123456789abc", "sk-two-0123456789abc"))
    one, two = apart.keys.all()
    told(one, "USD", (at(19, 1), "100"), (at(19, 20), "90"))
    told(two, "USD", (at(19, 1), "20"), (at(19, 20), "15"))
    used(here, apart, one, at(19, 5), "10")
    used(here, apart, two, at(19, 6), "1")
    row = row_of(apart)
    assert (row.reported, row.recorded, row.drifts) == (15 * NANO, 11 * NANO, True)


def test_accounts_in_another_currency_are_shown_and_not_compared(here: Portal) -> None:
    channel = here.channel()
    told(channel.keys.get(), "CNY", (at(19, 1), "100"), (at(19, 20), "93"))
    row = row_of(channel)
    assert (row.currency, row.reported, row.difference, row.drifts) == ("CNY", 7 * NANO, None, False)


@pytest.mark.parametrize("currency", ["%", "points", "", "12"])
def test_what_is_no_money_is_not_kept(here: Portal, currency: str) -> None:
    channel = here.channel()
    told(channel.keys.get(), currency, (at(19, 1), "100"), (at(19, 20), "93"))
    assert readings.compare(channel) == 0 and not BalanceReading.objects.exists()


def test_a_stale_reading_is_no_beginning(here: Portal) -> None:
    channel = here.channel()
    told(channel.keys.get(), "USD", (at(10, 1), "100"), (at(19, 20), "93"))
    assert readings.compare(channel) == 0


def test_comparing_twice_changes_nothing_and_old_rows_go(here: Portal) -> None:
    channel = here.channel()
    key = channel.keys.get()
    told(key, "USD", (NOW - timedelta(days=50), "200"), (at(19, 1), "100"), (at(19, 20), "93"))
    old = {"begins_at": NOW, "ends_at": NOW, "recorded": 0, "compared_at": NOW, "source": "balance"}
    UpstreamBill.objects.create(channel=channel, day=NOW.date() - timedelta(days=500), **old)
    first = row_of(channel)
    again = row_of(channel)
    assert first.pk == again.pk and UpstreamBill.objects.count() == 1 and BalanceReading.objects.count() == 2


def test_balances_that_the_jobs_fetch_are_kept(here: Portal) -> None:
    async def vendor(call: Call) -> None:
        answer: Any = {"balance_infos": [{"currency": "USD", "total_balance": "12.50"}]}
        await call.reply(200, answer)

    channel = here.channel(provider="deepseek")
    here.upstream.scripts[""] = vendor
    try:
        assert refresh_balances(channel) == 1
    finally:
        del here.upstream.scripts[""]
    (row,) = BalanceReading.objects.all()
    assert (row.api_key.channel_id, str(row.amount), row.currency, row.at) == (channel.pk, "12.500000", "USD", NOW)


def test_what_records_are_not_kept_of_is_not_compared(here: Portal, settings: Any) -> None:
    channel = here.channel()
    key = channel.keys.get()
    told(key, "USD", (at(17, 1), "100"), (at(19, 5), "60"), (at(19, 20), "59"))
    record(here.user(), channel=channel, api_key=key, started_at=at(19, 6), upstream_cost=NANO)
    with_config(settings, usage_keep_days=1)
    readings.compare(channel)
    row = UpstreamBill.objects.get(day=DAY)
    assert (row.reported, row.recorded, row.drifts) == (NANO, NANO, False)


def test_a_balance_that_nobody_has_is_no_reading(here: Portal) -> None:
    """A relay says a number for "no limit", then a real one: the difference fits no column and is no bill."""
    channel = here.channel()
    told(channel.keys.get(), "USD", (at(19, 1), "999999999999"), (at(19, 2), "12"))
    assert readings.compare(channel) == 0 and BalanceReading.objects.count() == 1
