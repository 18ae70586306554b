"""Puts what an upstream billed beside what was recorded here, a row per channel and day. Synchronous.

Days are those of UTC, as in the reports of vendors.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Count, Min, Sum
from django.utils.translation import gettext as _

from portal.lib import clock, money
from relay.channels.keys import notify_staff
from relay.models import BalanceReading, Channel, RollupMark, UpstreamBill, UsageRecord
from relay.models.notice import NoticeKind
from relay.models.usage import EARNINGS

_LEAST: Final = 10_000_000  # nano-USD that are no difference: roundings of bills
_LEAST_TOLD: Final = 1_000_000_000  # nano-USD that staff are told of
_READINGS: Final = timedelta(days=45)  # for which readings are kept
_BILLS: Final = timedelta(days=400)
_AT_ONCE: Final = 5000
_READERS: Final = (EARNINGS, "relay.view_upstreambill")  # what upstreams cost is told to nobody else


@dataclass(frozen=True, slots=True)
class Recorded:
    """What usage records say of some time."""

    cost: int = 0  # nano-USD
    requests: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(self.cost + other.cost, self.requests + other.requests)


def day_of(at: datetime) -> date:
    return at.astimezone(UTC).date()


def beginning_of(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def recorded_between(channels: Collection[int], begin: datetime, end: datetime, key: int | None = None) -> Recorded:
    """What requests that began in a time cost at their upstreams, of some channels or of one key of theirs."""
    rows = UsageRecord.objects.filter(channel__in=channels, started_at__gte=begin, started_at__lt=end)
    if key is not None:
        rows = rows.filter(api_key=key)
    found = rows.order_by().aggregate(cost=Sum("upstream_cost"), requests=Count("pk"))
    return Recorded(int(found["cost"] or 0), int(found["requests"]))


def kept_from() -> datetime | None:
    """Since when all usage records are kept. None: none has been deleted, and none will be."""
    zone = ZoneInfo(settings.TIME_ZONE)
    mark = RollupMark.objects.values_list("kept_from", flat=True).first()
    days = [date.fromordinal(mark)] if mark else []
    if keep := settings.CONFIG.usage_keep_days:
        days.append(clock.now().astimezone(zone).date() - timedelta(days=keep))
    return datetime.combine(max(days), time.min, zone) if days else None


def first_day_recorded(channels: Collection[int]) -> date:
    """The first whole day that can be compared: its records are kept, and one of the channels was there.

    What an account was billed before its channels were made was not asked by this portal.
    """
    made = Channel.objects.filter(pk__in=channels).aggregate(first=Min("created_at"))["first"] or clock.now()
    since = max(made, kept_from() or made)
    day = day_of(since)
    return day if beginning_of(day) >= since else day + timedelta(days=1)


def is_drift(reported: int, recorded: int) -> bool:
    """Whether two amounts in nano-USD differ by more than the share that is allowed."""
    allowed = max(reported, recorded, 0) * settings.CONFIG.bill_drift_percent / 100
    return abs(reported - recorded) > max(_LEAST, allowed)


def put(
    channel: Channel, source: str, day: date, span: tuple[datetime, datetime], recorded: Recorded, **said: Any
) -> UpstreamBill | None:
    """Store what is known of a day; what was known before is replaced. Staff are told of a day that differs, once.

    Nothing is done with a time of which records have been deleted: it would differ, whatever was billed.
    `said`: `reported` in billionths of its `currency`, or None, and `gaps`.
    """
    since = kept_from()
    if since is not None and span[0] < since:
        return None
    now = clock.now()
    complete = day < day_of(now)
    reported, currency = said["reported"], said["currency"]
    drifts = complete and reported is not None and currency == "USD" and is_drift(reported, recorded.cost)
    row, _made = UpstreamBill.objects.update_or_create(
        channel=channel,
        source=source,
        day=day,
        defaults={
            "begins_at": span[0],
            "ends_at": span[1],
            "recorded": recorded.cost,
            "requests": recorded.requests,
            "complete": complete,
            "drifts": drifts,
            "compared_at": now,
            **said,
        },
    )
    if drifts and abs(reported - recorded.cost) >= _LEAST_TOLD:
        notify_staff(NoticeKind.BILL, f"bill:{row.pk}", partial(_text, row), _data(row), _READERS)
    return row


def _text(row: UpstreamBill) -> tuple[str, str]:
    """What staff are told, in the active language."""
    values = {
        "channel": row.channel.name,
        "day": row.day.isoformat(),
        "reported": money.show(row.reported or 0),
        "recorded": money.show(row.recorded),
        "source": str(row.get_source_display()),
    }
    subject = _("The bill of “%(channel)s” differs from the records") % values
    text = _(
        "The upstream of the channel “%(channel)s” billed %(reported)s on %(day)s (UTC), as %(source)s says, and "
        "%(recorded)s was recorded here. Look under “Upstream bills” whether its prices have changed, whether somebody "
        "else uses the account, or whether requests failed that it charged for."
    )
    return subject, text % values


def _data(row: UpstreamBill) -> dict[str, Any]:
    return {
        "channel": row.channel.name,
        "day": row.day.isoformat(),
        "source": row.source,
        "billed_usd": money.plain(row.reported or 0),
        "recorded_usd": money.plain(row.recorded),
    }


def delete_old(channel: Channel) -> None:
    """Delete readings and bills of a channel that nobody compares any more; of many readings some at a time."""
    before = clock.now() - _READINGS
    old = BalanceReading.objects.filter(api_key__channel=channel, at__lt=before)
    BalanceReading.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:_AT_ONCE])).delete()
    UpstreamBill.objects.filter(channel=channel, day__lt=day_of(clock.now()) - _BILLS).delete()
