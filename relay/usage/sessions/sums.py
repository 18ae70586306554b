"""Adds usage records to the sums of their sessions, and deletes those whose records are gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from relay.models import SessionPart, SessionSum, UsageRecord
from relay.usage.sessions.sum_table import SumTable

# Columns of usage records that only sums of sessions need; they end the rows of `relay.usage.rollup`.
FIELDS: Final = ("session", "agent", "parent_agent", "app", "latency_ms", "endpoint")
_COUNTS: Final = ".count_tokens"  # the end of endpoints that ask no model
SUMS: Final = (
    "requests", "failed", "faults", "input", "cached", "output", "charged", "upstream_cost", "turns", "busy_ms",
)  # fmt: skip
_WHOLE: Final = SumTable(SessionSum, ("session", "user_id"), SUMS, ("first_at",), ("last_at",), ("app",), ("token_id",))
_PARTS: Final = SumTable(
    SessionPart,
    ("user_id", "session", "agent", "parent_agent", "model", "channel_id"),
    SUMS,
    ("first_at",),
    ("last_at",),
)
_AT_ONCE: Final = 500  # sessions that are deleted in one transaction


class _Sum:
    """Numbers in the order of `SUMS`, and between which times."""

    __slots__ = ("app", "first", "last", "numbers", "token")

    def __init__(self, first: datetime) -> None:
        self.numbers, self.first, self.last, self.app, self.token = [0] * len(SUMS), first, first, "", 0

    def add(self, values: Sequence[int], first: datetime, last: datetime) -> None:
        for index, value in enumerate(values):
            self.numbers[index] += value
        self.first, self.last = min(self.first, first), max(self.last, last)


class SessionTotals:
    """Sums of the sessions of some records."""

    def __init__(self) -> None:
        self._whole: dict[tuple[int, int], _Sum] = {}
        self._parts: dict[tuple[Any, ...], _Sum] = {}

    def add(self, row: Sequence[Any], values: Sequence[int]) -> None:
        """Add a record: its columns as `relay.usage.rollup` reads them, and what they add to sums."""
        session, agent, parent, app, latency, endpoint = row[-len(FIELDS) :]
        _, at, user, token, channel, model = row[:6]
        if session is None or user is None:
            return
        turn = not values[1] and not endpoint.endswith(_COUNTS)
        numbers, end = (*values, int(turn), latency), at + timedelta(milliseconds=latency)
        whole = self._whole.setdefault((session, user), _Sum(at))
        whole.add(numbers, at, end)
        whole.app, whole.token = whole.app or app or "", token or 0
        key = (user, session, agent or 0, parent or 0, model, channel or 0)
        self._parts.setdefault(key, _Sum(at)).add(numbers, at, end)

    def write(self) -> None:
        """Write what was added, inside the caller's transaction."""
        moment: Any = connection.ops.adapt_datetimefield_value
        _WHOLE.upsert(
            (*key, *one.numbers, moment(one.first), moment(one.last), one.app, one.token)
            for key, one in sorted(self._whole.items())
        )
        _PARTS.upsert(
            (*key, *one.numbers, moment(one.first), moment(one.last)) for key, one in sorted(self._parts.items())
        )

    def differences(self, kept_from: datetime | None) -> list[str]:
        """Compare what was added with what is stored. Returns the differences in words.

        `kept_from`: records that began before have been deleted, and with them parts of sessions. None: no record has.
        """
        whole = SessionSum.objects.all()
        parts = SessionPart.objects.all()
        cut: set[tuple[int, int | None]] = set()
        if kept_from is not None:
            cut = set(whole.filter(first_at__lt=kept_from).values_list("session", "user_id"))
        return [
            *_differences(whole, _WHOLE.key, {key: one for key, one in self._whole.items() if key not in cut}, cut),
            *_differences(
                parts, _PARTS.key, {key: one for key, one in self._parts.items() if (key[1], key[0]) not in cut}, cut
            ),
        ]


def _differences(
    rows: QuerySet[Any], key: tuple[str, ...], expected: dict[Any, _Sum], cut: set[tuple[int, int | None]]
) -> Iterator[str]:
    """Differences between rows and what is expected, by their keys, without the sessions (and users) of `cut`."""
    session, user = key.index("session"), key.index("user_id")
    stored = {
        tuple(row[: len(key)]): row[len(key) :]
        for row in rows.values_list(*key, *SUMS).iterator(5000)
        if (row[session], row[user]) not in cut
    }
    nothing = (0,) * len(SUMS)
    for which in sorted(stored.keys() | expected.keys(), key=str):
        wanted = tuple(expected[which].numbers) if which in expected else nothing
        found = tuple(stored.get(which, nothing))
        if found != wanted:
            yield f"{rows.model.__name__} {dict(zip(key, which, strict=True))}: {found} instead of {wanted}"


def delete_without_records() -> None:
    """Delete sums of sessions that ended before the oldest usage record began: their own have been deleted."""
    oldest = UsageRecord.objects.order_by("started_at").values_list("started_at", flat=True).first()
    gone = SessionSum.objects.filter(last_at__lt=oldest) if oldest is not None else SessionSum.objects.all()
    while found := list(gone.order_by("last_at").values_list("pk", "user_id", "session")[:_AT_ONCE]):
        with transaction.atomic():
            for start in range(0, len(found), 50):
                which = Q()
                for _pk, user, session in found[start : start + 50]:
                    which |= Q(user=user, session=session)
                SessionPart.objects.filter(which).delete()
            SessionSum.objects.filter(pk__in=[pk for pk, *_ in found]).delete()
