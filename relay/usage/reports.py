"""Reports of usage and money by day, model, token, channel or user, from the daily sums."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime
from datetime import time as midnight
from typing import Any, Final

from django.db.models import QuerySet, Sum
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from relay.models import Channel, ChannelDay, MonthSum, TallyDay, Token, UsageRecord, UserDay
from relay.usage import rollup

# What a report can be grouped by, and its label.
GROUPINGS: Final[dict[str, Any]] = {
    "day": _("Day"),
    "model": _("Model"),
    "token": _("Token"),
    "channel": _("Channel"),
    "user": _("User"),
}
_CHUNK: Final = 1000  # keys of one query
MOST_LINES: Final = 200  # of a report on a page


@dataclass(frozen=True, slots=True)
class ReportSums:
    """Sums over a number of requests."""

    requests: int = 0
    failed: int = 0  # all that did not complete
    faults: int = 0  # of those, the ones that were not the client's fault
    input: int = 0  # tokens
    cached: int = 0  # tokens of the input
    output: int = 0  # tokens
    cost: int = 0  # nano-USD charged to users
    upstream_cost: int = 0  # nano-USD charged by upstreams

    @property
    def tokens(self) -> int:
        return self.input + self.output

    @property
    def margin(self) -> int:
        """Nano-USD that the portal earned."""
        return self.cost - self.upstream_cost

    @property
    def cached_percent(self) -> int | None:
        """The share of the input that came from caches, in percent; None: there was no input."""
        return round(100 * self.cached / self.input) if self.input else None

    def __add__(self, other: ReportSums) -> ReportSums:
        return ReportSums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One line of a report."""

    key: Any  # a date, the name of a model, or the id of a token, channel or user
    label: str
    sums: ReportSums


@dataclass(frozen=True, slots=True)
class ReportScope:
    """Which records a report covers."""

    # Days in the portal's time zone, as ordinals, both included.
    first: int
    last: int
    # Filters, None: all.
    user: int | None = None
    token: int | None = None
    channel: int | None = None
    model: str | None = None

    @classmethod
    def days(cls, count: int, **chosen: Any) -> ReportScope:
        """Return the scope of the last `count` days, today included."""
        today = today_ordinal()
        return cls(today - count + 1, today, **chosen)

    def rows(self, by: str = "") -> tuple[QuerySet[Any], bool]:
        """Return the rows to sum up for a report grouped `by`, and whether they are daily sums.

        No daily sums have both user and channel, so those reports are summed up from the usage records.
        """
        chosen = {
            name: value for name in ("user", "token", "channel", "model") if (value := getattr(self, name)) is not None
        }
        of_user = bool({"user", "token"} & {*chosen, by})
        of_channel = "channel" in {*chosen, by}
        if of_user and of_channel:
            beginning, end = beginning_of(self.first), beginning_of(self.last + 1)
            return UsageRecord.objects.filter(started_at__gte=beginning, started_at__lt=end, **chosen), False
        if "token" in chosen and "user" not in chosen:  # the index begins with the user
            chosen["user"] = Token.objects.filter(pk=chosen["token"]).values_list("user", flat=True).first() or 0
        table: Any = UserDay if of_user else ChannelDay
        return table.objects.filter(day__gte=self.first, day__lte=self.last, **chosen), True


def today_ordinal() -> int:
    """Return the ordinal of the current day in the portal's time zone."""
    return timezone.now().astimezone(timezone.get_default_timezone()).date().toordinal()


def beginning_of(day: int) -> datetime:
    """Return the beginning of a day (an ordinal) in the portal's time zone."""
    return timezone.make_aware(datetime.combine(date.fromordinal(day), midnight()), timezone.get_default_timezone())


def since(days: int) -> tuple[date, datetime]:
    """Return the first of the last `days` days, and its beginning, in the portal's time zone."""
    first = today_ordinal() - days + 1
    return date.fromordinal(first), beginning_of(first)


def report_total(scope: ReportScope) -> ReportSums:
    """Return the sums over all records of a scope."""
    rows, daily = scope.rows()
    return _sums(rows.aggregate(**_SUM_ANNOTATIONS)) if daily else _sum_records(rows, "")[0].sums


def report_lines(scope: ReportScope, by: str, most: int = MOST_LINES) -> list[ReportLine]:
    """Return the sums of each day, oldest first, or of each model, token, channel or user, the most expensive first.

    At most `most` lines, but for days.
    """
    rows, daily = scope.rows(by)
    if not daily:
        return _sum_records(rows, by, most)
    if by == "day":
        found = rows.values("day").annotate(**_SUM_ANNOTATIONS).order_by("day")
        return [ReportLine(date.fromordinal(row["day"]), day_label(row["day"]), _sums(dict(row))) for row in found]
    column = by if by == "model" else f"{by}_id"
    grouped = [
        dict(row)
        for row in rows.values(column).annotate(**_SUM_ANNOTATIONS).order_by("-sum_charged", "-sum_requests")[:most]
    ]
    names = _labels(by, [row[column] for row in grouped])
    return [ReportLine(row[column], names[row[column]], _sums(row)) for row in grouped]


def top_spenders(by: str, month: int, most: int = MOST_LINES) -> list[ReportLine]:
    """Return the users or tokens that were charged most in a month (see `rollup.month_of`), from an index."""
    rows = list(MonthSum.objects.filter(kind=by, month=month).order_by("-charged")[:most])
    names = _labels(by, [row.subject for row in rows])
    found = [
        ReportLine(row.subject, names[row.subject], ReportSums(*(getattr(row, name) for name in _SUM_COLUMNS)))
        for row in rows
    ]
    return sorted(found, key=lambda line: (-line.sums.cost, -line.sums.requests))


def daily_sums_by(scope: ReportScope, by: str, most: int) -> list[tuple[ReportLine, list[ReportSums]]]:
    """Return the `most` most expensive models or tokens, each with its sums of every day of the scope.

    Takes 2 queries.
    """
    found = report_lines(scope, by)[:most]
    rows, _daily = scope.rows(by)
    column = by if by == "model" else f"{by}_id"
    table: dict[Any, dict[int, ReportSums]] = {line.key: {} for line in found}
    for row in rows.filter(**{f"{column}__in": list(table)}).values(column, "day").annotate(**_SUM_ANNOTATIONS):
        table[row[column]][row["day"]] = _sums(dict(row))
    nothing = ReportSums()
    return [(line, [table[line.key].get(day, nothing) for day in range(scope.first, scope.last + 1)]) for line in found]


def error_counts(scope: ReportScope) -> list[tuple[str, str, int]]:
    """Return (end reason, error code, number of requests) for the 20 most frequent failures."""
    rows = (
        TallyDay.objects.filter(kind="error", day__gte=scope.first, day__lte=scope.last)
        .values("value")
        .annotate(n=Sum("count"))
        .order_by("-n")[:20]
    )
    return [(row["value"].partition(":")[0], row["value"].partition(":")[2], row["n"]) for row in rows]


def first_token_times(scope: ReportScope) -> dict[int, int]:
    """Return the number of requests by class of first-token time, as `percentile` takes it."""
    rows = TallyDay.objects.filter(kind="first", day__gte=scope.first, day__lte=scope.last)
    if scope.model is not None:
        rows = rows.filter(model=scope.model)
    return {int(row["value"]): row["n"] for row in rows.values("value").annotate(n=Sum("count"))}


def day_label(day: int) -> str:
    """Format a day (an ordinal) in the reader's language."""
    return formats.date_format(date.fromordinal(day), "DATE_FORMAT")


def _labels(by: str, keys: list[Any]) -> dict[Any, str]:
    """Return labels by key. What has been deleted is named by its id."""
    if by == "model":
        return {key: str(key) for key in keys}
    found: dict[Any, str] = {0: gettext("no channel")} if by == "channel" else {}
    for start in range(0, len(keys), _CHUNK):  # no database takes any number of values
        part = keys[start : start + _CHUNK]
        if by == "token":
            tokens = Token.objects.filter(pk__in=part).select_related("user")
            found |= {row.pk: f"{row.name} ({row.user})" for row in tokens}
        elif by == "channel":
            found |= {row.pk: row.name for row in Channel.objects.filter(pk__in=part)}
        else:
            found |= {row.pk: row.get_username() for row in User.objects.filter(pk__in=part)}
    return {key: found.get(key) or f"#{key}" for key in keys}


# Columns of daily sums, in the order of the fields of ReportSums.
_SUM_COLUMNS: Final = ("requests", "failed", "faults", "input", "cached", "output", "charged", "upstream_cost")
_SUM_ANNOTATIONS: Final[dict[str, Any]] = {f"sum_{name}": Sum(name) for name in _SUM_COLUMNS}


def _sums(row: dict[str, Any]) -> ReportSums:
    return ReportSums(*(int(row[f"sum_{name}"] or 0) for name in _SUM_COLUMNS))


def _sum_records(rows: QuerySet[UsageRecord], by: str, most: int = MOST_LINES) -> list[ReportLine]:
    """Return the lines of a report summed up from usage records; a single one when `by` is empty."""
    zone = timezone.get_default_timezone()
    table: dict[Any, list[int]] = {}
    column = {"": "pk", "day": "started_at", "model": "model"}.get(by, f"{by}_id")
    names = (
        column,
        "status",
        "end_reason",
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "cost",
        "shortfall",
        "upstream_cost",
    )
    for key, status, reason, into, cached, out, cost, shortfall, upstream in rows.values_list(*names).iterator(5000):
        of = "" if not by else key.astimezone(zone).date() if by == "day" else key if by == "model" else key or 0
        fault = reason in rollup.FAULTS
        values = (1, int(fault or status >= 400), int(fault), into, cached, out, cost - shortfall, upstream)
        sums = table.setdefault(of, [0] * len(values))
        for index, value in enumerate(values):
            sums[index] += value
    if not by:
        return [ReportLine("", "", ReportSums(*table.get("", ())))]
    if by == "day":
        return [ReportLine(key, day_label(key.toordinal()), ReportSums(*table[key])) for key in sorted(table)]
    order = sorted(table, key=lambda key: (-table[key][6], -table[key][0]))[:most]
    labels = _labels(by, order)
    return [ReportLine(key, labels[key], ReportSums(*table[key])) for key in order]
