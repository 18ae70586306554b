"""What the ledger's page and its export show: entries of a period, filtered and searched, and their sums by kind.

Movements by people and entries of one user are found in indexes. The lines of everybody's requests are in none: they
are searched a bounded number at a time, and never summed up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from channels.db import database_sync_to_async
from django.db.models import BigIntegerField, Count, F, Q, QuerySet, Sum
from django.utils.translation import gettext

from accounts.models import User
from portal.lib import money
from portal.lib.texts import whole_number
from relay.billing.ledger.movements import BY_PEOPLE
from relay.models import LedgerEntry, RefusedRequest, Token, UsageRecord
from relay.models.ledger import EntryKind
from relay.usage.csv_files import table_csv
from relay.usage.paging import MAX_SCANS, SCAN_SIZE
from relay.usage.query import Period, UsageQuery
from relay.usage.receipts import ledger_entries_of, movements_naming
from relay.usage.search import find_request

PEOPLE: Final = "people"  # the default: movements by people, without the lines of requests
REQUESTS: Final = "requests"
ALL: Final = "all"
OF_REQUESTS: Final = tuple(kind for kind in EntryKind if kind not in BY_PEOPLE)
KINDS: Final = (PEOPLE, REQUESTS, ALL, *EntryKind.values)
MOST_SUMMED: Final = 200_000  # entries of one sum
_FILTERS: Final = ("user", "token")
_MOST_NAMED: Final = 100  # users or tokens whose names are like a search
_MOST_FOUND: Final = 500  # entries of a search for one request
_CHUNK: Final = 1000  # rows of one query of an export
_COLUMNS: Final = (
    "id", "at", "day", "kind", "user", "token", "amount_usd", "from", "to", "actor", "reason", "request_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KindSum:
    """What all entries of a kind among those that are shown amount to."""

    label: str
    entries: int
    amount: int  # nano-USD


@dataclass(frozen=True, slots=True)
class EntryPage:
    """One page of entries, the newest first."""

    rows: list[LedgerEntry]
    before: str  # cursor of the next page, empty when there is none
    until: datetime | None = None  # the search stopped at this time, None: everything was searched


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """A period, filters and a search, read from a query string. Its links are those of `usage`."""

    usage: UsageQuery
    kind: str  # one of KINDS, empty: none was chosen
    text: str
    rows: QuerySet[LedgerEntry]  # what an index finds, or everything
    narrowed: Q | None  # the condition for what no index answers
    indexed: bool  # whether `rows` are found in an index by day

    @classmethod
    def read(cls, parameters: Mapping[str, str], by_address: bool = False) -> EntryQuery:
        """Read a query string; values that make no sense are left out.

        `by_address`: whether its reader may find users by their e-mail address.
        """
        kind, text = parameters.get("kind", ""), parameters.get("q", "").replace("\0", "").strip()[:200]
        kind = kind if kind in KINDS else ""
        extra = {name: value for name, value in (("kind", kind), ("q", text)) if value}
        usage = UsageQuery.read(parameters, _FILTERS, None, by_address=by_address, **extra)
        return cls(usage, kind, text, *_entries(usage, kind, text))

    @property
    def period(self) -> Period | None:
        return self.usage.period

    def page(self, before: str, size: int) -> EntryPage:
        """Return at most `size` entries after those of the page with this cursor, empty for the first."""
        ordered = self._after(before)
        if self.narrowed is None:
            found = list(_with_names(ordered)[: size + 1])
            return EntryPage(found[:size], _cursor(found[size - 1]) if len(found) > size else "")
        found = []
        for _ in range(MAX_SCANS):
            edge = next(iter(ordered.only("day", "at")[SCAN_SIZE - 1 : SCAN_SIZE]), None)
            part = ordered.filter(self.narrowed)
            if edge is not None:
                part = part.filter(self._up_to(edge.day, edge.pk))
            found += _with_names(part)[: size + 1 - len(found)]
            if len(found) > size:
                return EntryPage(found[:size], _cursor(found[size - 1]))
            if edge is None:
                return EntryPage(found, "")
            ordered, last = ordered.filter(self._beyond(edge.day, edge.pk)), edge
        return EntryPage(found, _cursor(last), last.at)

    def chunks(self) -> Iterator[list[LedgerEntry]]:
        """Yield all entries, a thousand at a time: neither memory nor a transaction grows with their number."""
        rows = self.rows if self.narrowed is None else self.rows.filter(self.narrowed)
        before = ""
        while page := list(_with_names(self._after(before, rows))[:_CHUNK]):
            before = _cursor(page[-1])
            yield page

    def sums(self) -> list[KindSum] | None:
        """Return the sums by kind, in one query; None when they are of too many entries, or in no index."""
        if not self.indexed:
            return None
        low = F("amount") % money.NANO
        # Apart, since a sum of many large amounts is beyond 64 bits. Kinds are few: they are columns, not groups.
        parts = {"high": (F("amount") - low) / money.NANO, "low": low}
        columns: dict[str, Any] = {"seen": Count("pk")}
        for kind in EntryKind.values:
            wanted = Q(kind=kind) if self.narrowed is None else self.narrowed & Q(kind=kind)
            columns[f"{kind}_entries"] = Count("pk", filter=wanted)
            for name, part in parts.items():
                columns[f"{kind}_{name}"] = Sum(part, filter=wanted, output_field=BigIntegerField())
        found = self.rows.order_by()[: MOST_SUMMED + 1].aggregate(**columns)
        if found["seen"] > MOST_SUMMED:
            return None
        return [
            KindSum(
                gettext(kind.label),
                found[f"{kind}_entries"],
                int(found[f"{kind}_high"] or 0) * money.NANO + int(found[f"{kind}_low"] or 0),
            )
            for kind in EntryKind
            if found[f"{kind}_entries"]
        ]

    def _after(self, cursor: str, rows: QuerySet[LedgerEntry] | None = None) -> QuerySet[LedgerEntry]:
        rows = self.rows if rows is None else rows
        day, _dash, pk = cursor.partition("-")
        last = whole_number(day), whole_number(pk)
        if last[0] is not None and last[1] is not None:
            rows = rows.filter(self._beyond(last[0], last[1]))
        return rows.order_by("-day", "-pk") if self.indexed else rows.order_by("-pk")

    def _beyond(self, day: int, pk: int) -> Q:
        """The condition for rows that come after one in the order of the page."""
        return Q(day__lte=day) & (Q(day__lt=day) | Q(pk__lt=pk)) if self.indexed else Q(pk__lt=pk)

    def _up_to(self, day: int, pk: int) -> Q:
        """The opposite of `_beyond`, in a form for which PostgreSQL uses an index."""
        return Q(day__gte=day) & (Q(day__gt=day) | Q(pk__gte=pk)) if self.indexed else Q(pk__gte=pk)


async def entry_csv(query: EntryQuery) -> AsyncIterator[bytes]:
    """Yield all entries of a query as CSV, money in USD."""
    yield table_csv([[*_COLUMNS]])
    chunks = query.chunks()
    while page := await database_sync_to_async(next)(chunks, None):
        yield table_csv([_values(row) for row in page])


def _values(row: LedgerEntry) -> list[Any]:
    names = ["" if one is None else str(one) for one in (row.user, row.token, row.actor)]
    return [
        row.pk,
        row.at.isoformat(),
        datetime.fromordinal(row.day).date().isoformat() if row.day > 0 else "",
        row.kind,
        names[0],
        names[1],
        money.plain(row.amount),
        row.debit,
        row.credit,
        names[2],
        row.reason,
        row.request_id,
    ]


def _entries(usage: UsageQuery, kind: str, text: str) -> tuple[QuerySet[LedgerEntry], Q | None, bool]:
    """Return the entries that an index finds, the condition for the rest, and whether there was an index."""
    rows, narrowed, indexed = LedgerEntry.objects.all(), Q(), True
    record = find_request(text, UsageRecord.objects.all(), RefusedRequest.objects.none()) if text else None
    tokens = _tokens_named(text) if text and record is None else {}
    people = LedgerEntry.objects.filter(token=None, kind__in=BY_PEOPLE)
    user, token = usage.filters.get("user"), usage.filters.get("token")
    if token is not None:
        owner = Token.objects.filter(pk=token).values_list("user", flat=True).first() or 0
        rows = rows.filter(user=owner, token=token)
    if user is not None:
        rows, people = rows.filter(user=user), people.filter(user=user)
    if isinstance(record, UsageRecord):
        ids = [entry.pk for entry in (*ledger_entries_of(record), *movements_naming(record))]
        ids += people.filter(_like(text)).order_by("-pk").values_list("pk", flat=True)[:_MOST_FOUND]
        rows = rows.filter(pk__in=ids)
    elif text and not kind and token is None and tokens and not people.filter(_like(text)).exists():
        rows = rows.filter(user__in=set(tokens.values()), token__in=tokens)  # its movements are the lines of requests
    else:
        if text:
            narrowed &= _like(text, tokens)
        if token is None and (kind in {"", PEOPLE} or kind in BY_PEOPLE):
            rows = rows.filter(token=None, kind__in=BY_PEOPLE)
        else:
            indexed = token is not None or user is not None
    if kind == REQUESTS:
        narrowed &= Q(kind__in=OF_REQUESTS)
    elif kind == PEOPLE:
        narrowed &= Q(kind__in=BY_PEOPLE)
    elif kind and kind != ALL:
        narrowed &= Q(kind=kind)
    if (period := usage.period) is not None:
        days = Q(day__gte=period.first, day__lte=period.last)
        rows, narrowed = (rows.filter(days), narrowed) if indexed else (rows, narrowed & days)
    return rows, narrowed or None, indexed


def _like(text: str, tokens: Mapping[int, int] | None = None) -> Q:
    """The condition for entries whose reason is like a text, or the name of whose user, actor or token is."""
    users = list(User.objects.filter(username__icontains=text).values_list("pk", flat=True)[:_MOST_NAMED])
    return Q(reason__icontains=text) | Q(user__in=users) | Q(actor__in=users) | Q(token__in=list(tokens or {}))


def _tokens_named(text: str) -> dict[int, int]:
    """Return the users of the tokens whose names are like a text, by the token's id."""
    return dict(Token.objects.filter(name__icontains=text).values_list("pk", "user")[:_MOST_NAMED])


def _with_names(rows: QuerySet[LedgerEntry]) -> QuerySet[LedgerEntry]:
    return rows.select_related("user", "token", "actor")


def _cursor(row: LedgerEntry) -> str:
    return f"{row.day}-{row.pk}"
