"""What a page or an export of usage shows: a period and filters, read from a query string.

Every link between such pages is written by `UsageQuery.link`, so that none loses the period or a filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from django.db.models import Q, QuerySet
from django.utils import formats
from django.utils.translation import gettext as _

from accounts.models import User
from portal.lib.days import parse_day
from portal.lib.texts import whole_number
from relay.models import Channel, RefusedRequest, SessionSum, Token, UsageRecord
from relay.models.session import session_of_code
from relay.models.usage import EndReason
from relay.usage import rollup
from relay.usage.reports import ReportScope, beginning_of, today_ordinal

# Filters that an index or a daily sum answers, and those that are looked for in the records.
IDS: Final = ("user", "token", "channel")
REPORT_FILTERS: Final = (*IDS, "model")
STAFF_FILTERS: Final = (*REPORT_FILTERS, "session", "outcome", "code")
OWN_FILTERS: Final = ("token", "model", "session", "outcome")
REFUSED: Final = "refused"  # the outcome of requests without a usage record
_PERIOD: Final = ("days", "month", "since", "until")  # the parameters of a period
_EARLIEST: Final = date(2000, 1, 1).toordinal()  # no record is older
_MOST_DAYS: Final = 3660
MONTHS: Final = 12  # that can be chosen


@dataclass(frozen=True, slots=True)
class Period:
    """Days in the portal's time zone, as ordinals, both included."""

    first: int
    last: int
    parameters: tuple[tuple[str, str], ...]  # of the query string that it was read from

    @property
    def month(self) -> int | None:
        """The month that it is, numbered as by `rollup.month_of`; None for other periods."""
        return rollup.month_of(self.first) if self.parameters and self.parameters[0][0] == "month" else None

    @property
    def days(self) -> int | None:
        """How many days up to today, None for other periods."""
        return self.last - self.first + 1 if self.parameters and self.parameters[0][0] == "days" else None

    @property
    def label(self) -> str:
        """Its dates, in the reader's language."""
        first, last = (formats.date_format(date.fromordinal(day), "DATE_FORMAT") for day in (self.first, self.last))
        return first if first == last else _("%(first)s to %(last)s") % {"first": first, "last": last}

    @property
    def dates(self) -> dict[str, str]:
        """Its dates as parameters, for pages that have fields for them."""
        return {"since": date.fromordinal(self.first).isoformat(), "until": date.fromordinal(self.last).isoformat()}


def last_days(count: int) -> Period:
    """Return the period of the last `count` days, today included."""
    today = today_ordinal()
    return Period(today - count + 1, today, (("days", str(count)),))


def months() -> list[tuple[str, str]]:
    """Return the parameter and name of the last 12 months, the newest first."""
    latest = rollup.month_of(today_ordinal())
    return [
        (_month_text(month), formats.date_format(date(month // 12, month % 12 + 1, 1), "YEAR_MONTH_FORMAT"))
        for month in range(latest, latest - MONTHS, -1)
    ]


def read_period(parameters: Mapping[str, str]) -> Period | None:
    """Return the period of a query string, None when it names none. Dates go before a month, a month before days."""
    if "=" in parameters.get("period", ""):  # from a list to choose from: one of the others, as a whole
        parameters = dict(parse_qsl(parameters["period"]))
    dates = {side: parse_day(parameters.get(side, "")) for side in ("since", "until")}
    if any(dates.values()):
        today = today_ordinal()
        since, until = dates["since"], dates["until"]
        if since and until and since > until:  # typed the wrong way round: the days between them are meant
            since, until = until, since
        first = since.toordinal() if since else _EARLIEST
        last = min(until.toordinal() if until else today, today)
        return Period(
            max(first, _EARLIEST),
            max(last, first, _EARLIEST),  # one that begins in the future is its first day
            tuple((side, day.isoformat()) for side, day in (("since", since), ("until", until)) if day),
        )
    if (month := _month(parameters.get("month", ""))) is not None:
        first_day = date(month // 12, month % 12 + 1, 1).toordinal()
        after = date((month + 1) // 12, (month + 1) % 12 + 1, 1).toordinal()
        return Period(first_day, after - 1, (("month", _month_text(month)),))
    if (days := whole_number(parameters.get("days", ""))) is not None:
        return last_days(min(max(days, 1), _MOST_DAYS))
    return None


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A period and filters."""

    period: Period | None  # None: all records
    filters: Mapping[str, Any]  # by name: ids, and texts
    extra: Mapping[str, str] = field(default_factory=dict)  # other parameters that links keep
    nobody: str = ""  # the name that was asked for, when no user has it

    @classmethod
    def read(
        cls,
        parameters: Mapping[str, str],
        known: Sequence[str],
        default: Period | None = None,
        *,
        by_address: bool = False,
        **extra: str,
    ) -> UsageQuery:
        """Read a query string. Filters that are not `known`, and values that make no sense, are left out.

        `by_address`: whether its reader may find users by their e-mail address.
        """
        found: dict[str, Any] = {}
        name, nobody = _text(parameters, "user_name", 254).strip(), ""
        if name and "user" in known:  # 0, which nobody has, for a name that nobody has
            user = User.objects.named(name, by_address)
            found["user"], nobody = (0, name) if user is None else (user.pk, "")
        for key in known:
            if key in IDS:
                if key not in found and (number := whole_number(parameters.get(key, ""))) is not None:
                    found[key] = number
            elif value := _text(parameters, key, 120):
                found[key] = value
        if found.get("outcome", "failed") not in {*EndReason.values, "failed", REFUSED}:
            del found["outcome"]
        if "session" in found:
            session = session_of_code(found["session"])
            if session is None:
                del found["session"]
            elif "user" in known and "user" not in found:  # its records are in an index of its user's
                found["user"] = SessionSum.objects.filter(session=session).values_list("user", flat=True).first() or 0
        return cls(read_period(parameters) or default, found, extra, nobody)

    def link(self, **changes: object) -> str:
        """Return the query string of a link with the period and all filters but for `changes`; None leaves one out.

        A change of the period replaces it.
        """
        found: dict[str, object] = {**self.extra}
        if self.period is not None and not changes.keys() & set(_PERIOD):
            found |= dict(self.period.parameters)
        found |= {**self.parameters(), **changes}
        if "user" in changes:
            found.pop("user_name", None)
        return f"?{urlencode({k: v for k, v in found.items() if v is not None}, safe='/', quote_via=quote)}"

    def parameters(self) -> dict[str, Any]:
        """Return the filters as parameters of a query string."""
        if not self.nobody:
            return dict(self.filters)
        return {"user_name": self.nobody, **{key: value for key, value in self.filters.items() if key != "user"}}

    def only(self, known: Sequence[str]) -> UsageQuery:
        """Return the same for a page that has fewer filters, and no other parameters."""
        filters = {key: value for key, value in self.filters.items() if key in known}
        return replace(self, filters=filters, extra={}, nobody=self.nobody if "user" in filters else "")

    def scope(self, **chosen: Any) -> ReportScope:
        """Return the scope of a report on it, which needs a period."""
        period = self.period or last_days(30)
        filters = {key: value for key, value in self.filters.items() if key in REPORT_FILTERS}
        return ReportScope(period.first, period.last, **{**filters, **chosen})

    def records(self, rows: QuerySet[UsageRecord]) -> tuple[QuerySet[UsageRecord], Q | None]:
        """Return the records that an index finds, and the condition for the filters that none answers."""
        if self.period is not None:
            rows = rows.filter(
                started_at__gte=_beginning(self.period.first), started_at__lt=_beginning(self.period.last + 1)
            )
        narrowed = Q()
        for key, value in self.filters.items():
            if key in IDS:
                rows = rows.filter(**{key: value})
            elif key == "session":
                rows = rows.filter(session=session_of_code(value))
            elif key == "model":
                narrowed &= Q(model=value)
            elif key == "code":
                narrowed &= Q(error_code=value)
            elif value == REFUSED:
                rows = rows.none()
            elif value == "failed":
                narrowed &= Q(status__gte=400) | Q(end_reason__in=rollup.FAULTS)
            else:
                narrowed &= Q(end_reason=value)
        return rows, narrowed or None

    def refusals(self, rows: QuerySet[RefusedRequest]) -> tuple[QuerySet[RefusedRequest], Q | None]:
        """Return refused requests, as `records` does."""
        if self.filters.keys() & {"channel", "session"} or self.filters.get("outcome", REFUSED) not in {
            "failed",
            REFUSED,
        }:
            return rows.none(), None
        if self.period is not None:
            rows = rows.filter(
                started_at__gte=_beginning(self.period.first), started_at__lt=_beginning(self.period.last + 1)
            )
        narrowed = Q()
        for key, value in self.filters.items():
            if key in IDS:
                rows = rows.filter(**{key: value})
            elif key in {"model", "code"}:
                narrowed &= Q(**{"model" if key == "model" else "error_code": value})
        return rows, narrowed or None

    def names(self) -> list[tuple[str, str, str]]:
        """Return the filters in the reader's words: what is filtered by, its value, and a link without it."""
        labels = {
            "user": _("User"), "token": _("Token"), "channel": _("Channel"), "model": _("Model"),
            "session": _("Session"), "outcome": _("Outcome"), "code": _("Error code"),
        }  # fmt: skip
        return [
            (labels[key], self._name(key, value), self.link(**{key: None}))
            for key, value in self.filters.items()
            if key != "user" or not self.nobody
        ]

    def user_name(self) -> str:
        """Return the name of the user that it is filtered by, empty without one."""
        return self._name("user", self.filters["user"]) if self.filters.get("user") else ""

    @staticmethod
    def _name(key: str, value: Any) -> str:
        if key in IDS:
            models: Mapping[str, Any] = {"user": User, "token": Token, "channel": Channel}
            row = models[key].objects.filter(pk=value).first()
            return str(row) if row is not None else f"#{value}"
        if key == "outcome":
            words = {**dict(EndReason.choices), "failed": _("every failure"), REFUSED: _("refused before routing")}
            return str(words.get(value, value))
        return str(value)


def filtered(rows: QuerySet[Any], narrowed: Q | None) -> QuerySet[Any]:
    """Return the rows with the condition applied, for exports, which read them all."""
    return rows.filter(narrowed) if narrowed is not None else rows


def _beginning(day: int) -> datetime:
    return beginning_of(min(day, date.max.toordinal() - 1))


def _text(parameters: Mapping[str, str], key: str, longest: int) -> str:
    return parameters.get(key, "").replace("\0", "")[:longest]


def _month(text: str) -> int | None:
    """The number of a month such as 2026-10, or a number as `rollup.month_of` makes it. None: it is none."""
    year, dash, month = text.partition("-")
    number = whole_number(year)
    if dash:
        of_year = whole_number(month, 1, 12)
        number = number * 12 + of_year - 1 if number is not None and of_year is not None else None
    return number if number is not None and 2000 * 12 <= number < 9999 * 12 else None


def _month_text(month: int) -> str:
    return f"{month // 12:04}-{month % 12 + 1:02}"
