"""Channels and models of which less comes from prompt caches today than in their own week. Synchronous."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.db.models import Q, Sum

from portal.lib import clock
from relay.models import Channel, ChannelDay, Lease
from relay.usage import rollup
from relay.usage.caches.shares import CacheShare
from relay.usage.reports import today_ordinal

_CHECK_SECONDS: Final = 600.0  # between two looks, of whatever process
_WEEK: Final = 7  # days before today
_LEAST: Final = 5.0  # percent of the week, below which there is nothing to lose
_LEASE: Final = "cache hit shares"  # held from one look until the next one is due


@dataclass(frozen=True, slots=True)
class Drop:
    """A channel or model whose share has fallen."""

    kind: str  # channel or model
    key: Any  # the id of the channel, or the name of the model
    name: str
    today: CacheShare
    week: CacheShare
    day: int  # ordinal of today


def fallen(today: CacheShare, week: CacheShare, part: float, tokens: int) -> bool:
    """Whether today's share is below this part of the week's, both of at least so many tokens.

    `part` 0: never. A week of which nearly nothing came from caches cannot fall.
    """
    now, before = today.percent, week.percent
    if not part or now is None or before is None or min(today.input, week.input) < max(1, tokens) or before < _LEAST:
        return False
    return now < part * before


def is_due() -> bool:
    """Whether it is time to look again: notices are wanted, and ten minutes have passed."""
    if not settings.CONFIG.cache_drop:
        return False
    return not Lease.objects.filter(name=_LEASE, until__gt=clock.now()).exists()


def drops() -> list[Drop]:
    """Return all drops of today, channels first, each once."""
    Lease.hold(_LEASE, _CHECK_SECONDS)
    rollup.catch_up()
    part, tokens, today = settings.CONFIG.cache_drop, settings.CONFIG.cache_drop_tokens, today_ordinal()
    found = [
        Drop(kind, key, str(key), now, week, today)
        for kind, column in (("channel", "channel_id"), ("model", "model"))
        for key, now, week in _shares(column, today)
        if key and fallen(now, week, part, tokens)
    ]
    ids = [one.key for one in found if one.kind == "channel"]
    names = dict(Channel.objects.filter(pk__in=ids).values_list("pk", "name"))
    return [
        one if one.kind == "model" else Drop(one.kind, one.key, names[one.key], one.today, one.week, one.day)
        for one in found
        if one.kind == "model" or one.key in names
    ]


def _shares(column: str, today: int) -> Iterable[tuple[Any, CacheShare, CacheShare]]:
    now, before = Q(day=today), Q(day__lt=today)
    rows = ChannelDay.objects.filter(day__gte=today - _WEEK, day__lte=today).order_by().values(column)
    for row in rows.annotate(
        input_now=Sum("input", filter=now),
        cached_now=Sum("cached", filter=now),
        input_before=Sum("input", filter=before),
        cached_before=Sum("cached", filter=before),
    ):
        yield (
            row[column],
            CacheShare(int(row["input_now"] or 0), int(row["cached_now"] or 0)),
            CacheShare(int(row["input_before"] or 0), int(row["cached_before"] or 0)),
        )
