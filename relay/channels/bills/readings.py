"""What the balances of keys say that was billed: what is gone between one reading and the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

from portal.lib import clock
from relay.channels.bills.compare import Recorded, beginning_of, day_of, delete_old, kept_from, put, recorded_between
from relay.models import ApiKey, BalanceReading, Channel
from relay.models.bill import BillSourceKind
from relay.providers.accounts.balances import Balance
from relay.providers.accounts.bills import MOST_BILLED

_NANO: Final = Decimal(10) ** 9
_STALE: Final = timedelta(days=3)  # a reading from before counts for nothing
_LIKE: Final = Decimal("0.002")  # share by which balances of one account differ that are read one after the other
_MONEY: Final = 3  # letters of a currency; others are percent or points


@dataclass(frozen=True, slots=True)
class Span:
    """A time between two readings of a key, and what went in it."""

    key: int
    begin: datetime
    end: datetime
    before: Decimal
    after: Decimal

    @property
    def gone(self) -> Decimal:
        return self.before - self.after


def note(key: ApiKey, balance: Balance, at: datetime) -> None:
    """Store a balance, where it is an amount of money that somebody may have."""
    if len(balance.currency) == _MONEY and balance.currency.isalpha() and abs(balance.amount) <= MOST_BILLED:
        BalanceReading.objects.create(api_key=key, at=at, amount=balance.amount, currency=balance.currency.upper())


def compare(channel: Channel) -> int:
    """Compare what balances say of yesterday and today with what was recorded. Returns how many days were stored."""
    delete_old(channel)
    today = day_of(clock.now())
    return sum(_compare_day(channel, day) for day in (today - timedelta(days=1), today))


def _compare_day(channel: Channel, day: date) -> bool:
    begin, end = beginning_of(day), beginning_of(day) + timedelta(days=1)
    since = max(begin - _STALE, kept_from() or begin - _STALE)
    rows = BalanceReading.objects.filter(api_key__channel=channel, at__gte=since, at__lt=end)
    by_key: dict[int, list[BalanceReading]] = {}
    for row in rows.order_by("api_key_id", "at"):
        by_key.setdefault(row.api_key_id, []).append(row)
    newest = [readings[-1].currency for readings in by_key.values()]
    if not newest:
        return False
    currency = max(set(newest), key=newest.count)
    spans: list[list[Span]] = []
    gaps = 0
    for key, readings in by_key.items():
        last_before = [row for row in readings if row.at < begin][-1:]
        whole, without = _spans(key, [*last_before, *(row for row in readings if row.at >= begin)], currency)
        gaps += without
        if whole:
            spans.append(whole)
    if not spans and not gaps:
        return False
    reported, recorded = _sums(channel, spans)
    if reported > MOST_BILLED:
        return False
    every = [span for whole in spans for span in whole]
    put(
        channel,
        BillSourceKind.BALANCE,
        day,
        (min((span.begin for span in every), default=begin), max((span.end for span in every), default=end)),
        recorded,
        reported=int(reported * _NANO) if every else None,
        currency=currency,
        gaps=gaps,
    )
    return True


def _spans(key: int, readings: Sequence[BalanceReading], currency: str) -> tuple[list[Span], int]:
    """Times in which money only went, joined where they touch, and how many are left out: money came, or another
    currency.
    """
    found: list[Span] = []
    gaps = 0
    for one, two in pairwise(readings):
        if one.currency != currency or two.currency != currency or two.amount > one.amount:
            gaps += 1
        elif found and found[-1].end == one.at:
            found[-1] = Span(key, found[-1].begin, two.at, found[-1].before, two.amount)
        else:
            found.append(Span(key, one.at, two.at, one.amount, two.amount))
    return found, gaps


def _sums(channel: Channel, spans: Sequence[Sequence[Span]]) -> tuple[Decimal, Recorded]:
    """What went, and what was recorded in the same times. Keys of one account count once."""
    if _one_account(spans):
        longest = max((whole[0] for whole in spans), key=lambda span: span.end - span.begin)
        return longest.gone, recorded_between((channel.pk,), longest.begin, longest.end)
    gone, recorded = Decimal(0), Recorded()
    for whole in spans:
        for span in whole:
            gone += span.gone
            recorded += recorded_between((channel.pk,), span.begin, span.end, span.key)
    return gone, recorded


def _one_account(spans: Sequence[Sequence[Span]]) -> bool:
    """Whether all keys say the same balances, before and after, so that they are of one account.

    Of several accounts none of which was used the same may be said: then nothing went, however it is added up.
    """
    if len(spans) < 2 or any(len(whole) != 1 for whole in spans):
        return False
    first = spans[0][0]
    return all(
        abs(span.before - first.before) <= _LIKE * abs(first.before)
        and abs(span.after - first.after) <= _LIKE * abs(first.after)
        for (span,) in spans
    )
