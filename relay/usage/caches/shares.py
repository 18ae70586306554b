"""How much of the prompts came from caches: by channel, key and model, from the daily sums. Synchronous."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext as _

from relay.models import ApiKey, Channel, ChannelDay, KeyDay, UsageRecord
from relay.usage.reports import today_ordinal

DAYS: Final = (1, 7, 30)  # the periods of the pages, today included
_MOST: Final = 50  # lines of a table


@dataclass(frozen=True, slots=True)
class CacheShare:
    """Tokens of prompts, and those of them that were read from caches."""

    input: int = 0
    cached: int = 0

    @property
    def percent(self) -> float | None:
        """The cache hit share; None: nothing was read."""
        return 100 * self.cached / self.input if self.input else None

    @property
    def text(self) -> str:
        """The cache hit share for people."""
        percent = self.percent
        return "—" if percent is None else f"{percent:.0f} %" if percent >= 10 or not percent else f"{percent:.1f} %"

    @property
    def size(self) -> str:
        """The tokens of the prompts, in few characters: 834, 1.23 K, 45.6 M."""
        for unit, name in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "K")):
            if self.input >= 0.9995 * unit:  # which three digits round to it
                return f"{self.input / unit:.3g} {name}"
        return str(self.input)


@dataclass(frozen=True, slots=True)
class ShareLine:
    """A channel, key or model with its shares in the periods of `DAYS`."""

    key: Any  # an id, or the name of a model
    label: str
    under: str  # a second line, such as the channel of a key
    shares: tuple[CacheShare, ...]
    channel: int = 0  # the id of the channel that it is about, 0: none


def share_of(records: QuerySet[UsageRecord]) -> CacheShare:
    """Return the share over some usage records, such as those of a session or a conversation. One query."""
    found = records.order_by().aggregate(input=Sum("input_tokens"), cached=Sum("cached_input_tokens"))
    return CacheShare(int(found["input"] or 0), int(found["cached"] or 0))


def shares_by(by: str, channel: int | None = None) -> list[ShareLine]:
    """Return the lines of every channel, key or model (`by`), or of those of one channel, the most tokens first.

    At most 50. Takes 2 queries, however many requests there were.
    """
    table: Any = KeyDay if by == "key" else ChannelDay
    column = {"channel": "channel_id", "key": "api_key_id", "model": "model"}[by]
    today = today_ordinal()
    rows = table.objects.filter(day__gt=today - max(DAYS))
    if channel is not None and by == "key":
        rows = rows.filter(api_key__in=ApiKey.objects.filter(channel=channel).values("pk"))
    elif channel is not None:
        rows = rows.filter(channel=channel)
    sums = {
        f"{name}_{days}": Sum(name, filter=Q(day__gt=today - days)) for days in DAYS for name in ("input", "cached")
    }
    grouped = rows.order_by().values(column).annotate(**sums).filter(**{f"input_{max(DAYS)}__gt": 0})
    found = list(grouped.order_by(f"-input_{max(DAYS)}")[:_MOST])
    names = _names(by, [row[column] for row in found])
    return [
        ShareLine(
            row[column],
            *names.get(row[column], (f"#{row[column]}", "", 0))[:2],
            tuple(CacheShare(int(row[f"input_{days}"] or 0), int(row[f"cached_{days}"] or 0)) for days in DAYS),
            names.get(row[column], ("", "", 0))[2],
        )
        for row in found
    ]


def _names(by: str, keys: list[Any]) -> dict[Any, tuple[str, str, int]]:
    """The label, second line and channel of each key. Keys of upstreams are named without a part of their secret."""
    if by == "model":
        return {key: (str(key), "", 0) for key in keys}
    if by == "channel":
        found = {row.pk: (row.name, "", row.pk) for row in Channel.objects.filter(pk__in=keys).only("pk", "name")}
        return {0: (_("no channel"), "", 0), **found}
    rows = ApiKey.objects.filter(pk__in=keys).select_related("channel")
    return {row.pk: (row.public_name, row.channel.name, row.channel_id) for row in rows}
