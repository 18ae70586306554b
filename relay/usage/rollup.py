"""Rolls usage records up into sums by day and month.

Each record is counted once: the sums and the mark of how far they reach are written in one transaction.

Servers run it every half minute, and a page that shows sums rolls up the rest before it reads them. Records may become
visible out of the order of their ids (two hosts on PostgreSQL), so missing ids are remembered for a day and looked for
again.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as midnight
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Max, Q, Sum

from accounts.transactions import consistent_read
from portal.lib.days import Days
from relay.models import (
    ChannelDay,
    ImportedDay,
    Installation,
    KeyDay,
    Lease,
    MonthSum,
    RollupMark,
    SessionPart,
    SessionSum,
    TallyDay,
    UsageRecord,
    UserDay,
)
from relay.usage.conversations.switches import write_switches
from relay.usage.durations.classes import class_of
from relay.usage.imported.sums import ImportedSum, add_imported, by_table, imported_sums
from relay.usage.sessions import sums as sessions
from relay.usage.sessions.sum_table import SumTable

logger: Final = logging.getLogger(__name__)
_CHUNK: Final = 2000  # records of one transaction
_LEASE: Final = "usage sums"
_LEASE_SECONDS: Final = 90.0
_MAX_FOR_PAGE: Final = 4000  # records that a page adds up before it is shown
_GAP_SECONDS: Final = 86_400.0  # how long missing ids are looked for
_MAX_GAPS: Final = 500

# End reasons that are not the client's fault.
FAULTS: Final = frozenset(("no_channel", "upstream_error", "timeout", "truncated", "internal_error", "shutdown"))
_FIELDS: Final = (
    "pk", "started_at", "user_id", "token_id", "channel_id", "model", "status", "end_reason", "error_code",
    "input_tokens", "cached_input_tokens", "output_tokens", "cost", "shortfall", "upstream_cost", "first_token_ms",
    "api_key_id", "conversation", *sessions.FIELDS,
)  # fmt: skip
_OWN: Final = len(_FIELDS) - len(sessions.FIELDS) - 2
_KEY_ID, _CONVERSATION = _FIELDS.index("api_key_id"), _FIELDS.index("conversation")
# Columns of sums, and the keys of the five tables.
SUMS: Final = ("requests", "failed", "faults", "input", "cached", "output", "charged", "upstream_cost")
_NOTHING: Final = (0,) * len(SUMS)
_USER: Final = ("user_id", "day", "token_id", "model")
_CHANNEL: Final = ("day", "channel_id", "model")
_KEY: Final = ("day", "api_key_id")
_MONTH: Final = ("kind", "month", "subject")
_TALLY: Final = ("kind", "day", "channel_id", "model", "value")


def _sums() -> dict[Any, list[int]]:
    return defaultdict(lambda: list(_NOTHING))


@dataclass(slots=True)
class _Added:
    """Sums over some records, by the keys of their tables."""

    users: dict[Any, list[int]] = field(default_factory=_sums)
    channels: dict[Any, list[int]] = field(default_factory=_sums)
    keys: dict[Any, list[int]] = field(default_factory=_sums)
    tally: dict[Any, int] = field(default_factory=lambda: defaultdict(int))


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """Roll up the pending records, unless another worker is doing so. Ends early when the portal is stopping.

    A few that were written meanwhile are left for the next time: under load there always are some.
    """
    try:
        while not stopping() and pending_records() and Lease.hold(_LEASE, _LEASE_SECONDS):
            if _roll_up_chunk() < _CHUNK:
                break
            time.sleep(0.02)  # lets workers write their records first
        sessions.delete_without_records()
    finally:
        connection.close()


def catch_up() -> int:
    """Roll up the pending records before a page reads the sums.

    Returns how many are left: 0 unless very many were pending.
    """
    try:
        done = 0
        while done < _MAX_FOR_PAGE and (found := _roll_up_chunk()):
            done += found
        if done < _MAX_FOR_PAGE:
            return 0
    except DatabaseError:  # locked or not writable: the sums are shown as they are
        logger.warning("usage could not be added up for a page", exc_info=True)
    return pending_records()


def rebuild(progress: Callable[[int], None] = lambda _: None) -> int:
    """Delete all sums and roll up all records again. Returns their number.

    Sums of days whose records have been deleted stay; sessions keep what is left of their records. `progress` is
    called with the number so far.
    """
    with transaction.atomic():
        mark = RollupMark.objects.select_for_update().first() or RollupMark.objects.create(pk=1)
        for table in (UserDay, ChannelDay, KeyDay, TallyDay):
            table.objects.filter(day__gte=mark.kept_from)._raw_delete(using=connection.alias)
        MonthSum.objects.filter(month__gte=_month_kept_from(mark))._raw_delete(using=connection.alias)
        SumTable(MonthSum, _MONTH, SUMS).upsert((*of, *sums) for of, sums in sorted(_months_before(mark).items()))
        for of_sessions in (SessionSum, SessionPart):
            of_sessions.objects.all()._raw_delete(using=connection.alias)
        mark.last_id, mark.gaps = 0, []
        mark.save()
        _write_sums(*by_table(imported_sums(since=mark.kept_from)))  # older sums stay, with what was imported
    done = 0
    while found := _roll_up_chunk(again=True):
        done += found
        progress(done)
        time.sleep(0.02)
    return done


def differences() -> list[str]:
    """Compare all sums with the records. Returns the differences in words. Reads every record.

    Sums of days whose records have been deleted cannot be compared, nor sessions that began then.
    """
    catch_up()
    mark = RollupMark.objects.first() or RollupMark()
    sums, of_sessions = _Added(), sessions.SessionTotals()
    for row in UsageRecord.objects.filter(pk__lte=mark.last_id).values_list(*_FIELDS).iterator(5000):
        _add_record(sums, row, mark.kept_from)
        of_sessions.add(row, _values(row))
    oldest = KeyDay.objects.order_by("day").values_list("day", flat=True).first()  # sums of keys are younger than most
    for into, imported in zip((sums.users, sums.channels), by_table(imported_sums(since=mark.kept_from)), strict=True):
        for key, values in imported.items():
            into[key] = [one + other for one, other in zip(into[key], values, strict=True)]
    sums.keys = {key: value for key, value in sums.keys.items() if oldest is not None and key[0] >= oldest}
    found = of_sessions.differences(_begin_of(mark.kept_from) if mark.kept_from else None)
    months = _months(sums.users)
    for key, before in _months_before(mark).items():
        months[key] = [one + other for one, other in zip(months[key], before, strict=True)]
    kept: Any = {"day__gte": mark.kept_from}
    for table, names, expected, which in (
        (UserDay, _USER, sums.users, kept),
        (ChannelDay, _CHANNEL, sums.channels, kept),
        (KeyDay, _KEY, sums.keys, kept),
        (MonthSum, _MONTH, months, {"month__gte": _month_kept_from(mark)}),
    ):
        rows = table.objects.filter(**which).values_list(*names, *SUMS)
        stored = {row[: len(names)]: row[len(names) :] for row in rows.iterator(5000)}
        for key in sorted(stored.keys() | expected.keys(), key=str):
            if tuple(stored.get(key, _NOTHING)) != tuple(expected.get(key, _NOTHING)):
                found.append(
                    f"{table.__name__} {dict(zip(names, key, strict=True))}: {tuple(stored.get(key, _NOTHING))} "
                    f"instead of {tuple(expected.get(key, _NOTHING))}"
                )
    return found


def _month_kept_from(mark: RollupMark) -> int:
    """The first month whose sums can be made again, with what `_months_before` gives."""
    return month_of(mark.kept_from) if mark.kept_from else 0


def _months_before(mark: RollupMark) -> dict[Any, list[int]]:
    """Sums by month of the days of a month whose records have been deleted, while other days of it have theirs."""
    if not mark.kept_from:
        return {}
    begin = date.fromordinal(mark.kept_from).replace(day=1).toordinal()
    rows = UserDay.objects.filter(day__gte=begin, day__lt=mark.kept_from).values_list(*_USER, *SUMS)
    return _months({row[: len(_USER)]: list(row[len(_USER) :]) for row in rows.iterator(5000)})


def _begin_of(day: int) -> datetime:
    return datetime.combine(date.fromordinal(day), midnight(), ZoneInfo(settings.TIME_ZONE))


_zone: dict[str, Days] = {}


def _days() -> Days:
    return _zone.setdefault(settings.TIME_ZONE, Days(settings.TIME_ZONE))


def lock_mark() -> RollupMark | None:
    """Lock and return the mark. None when another worker has locked it; on SQLite it waits instead."""
    skip = connection.features.has_select_for_update_skip_locked
    found = RollupMark.objects.select_for_update(skip_locked=skip).first()
    if found is None and not RollupMark.objects.exists():
        RollupMark.objects.get_or_create(pk=1)
        found = RollupMark.objects.select_for_update(skip_locked=skip).first()
    return found


def _roll_up_chunk(again: bool = False) -> int:
    """Roll up some records in one transaction. `again`: they had been rolled up before.

    Returns how many: 0 when none is pending or another worker is doing so.
    """
    mark = RollupMark.objects.first()
    last, gaps = (mark.last_id, mark.gaps) if mark is not None else (0, [])
    rows, left = _read_pending(last, gaps)
    if not rows and left == gaps:
        return 0
    added, of_sessions = _Added(), sessions.SessionTotals()
    for row in rows:
        _add_record(added, row, mark.kept_from if mark is not None else 0)
        of_sessions.add(row, _values(row))
    with transaction.atomic():
        current = lock_mark()
        if current is None or (current.last_id, current.gaps) != (last, gaps):
            return 0  # another worker has rolled these up meanwhile
        _write_sums(added.users, added.channels)
        SumTable(KeyDay, _KEY, SUMS).upsert(((*of, *values) for of, values in sorted(added.keys.items())))
        counts = ((*of, count) for of, count in sorted(added.tally.items()))
        SumTable(TallyDay, _TALLY, ("count",)).upsert(counts)
        of_sessions.write()
        if not again and (talked := [row[0] for row in rows if row[_CONVERSATION] is not None]):
            write_switches(talked)
        current.last_id, current.gaps = max(last, max((row[0] for row in rows), default=0)), left
        current.save()
    return len(rows)


def _write_sums(users: dict[Any, list[int]], channels: dict[Any, list[int]]) -> None:
    """Add to the sums by user and by channel, and by month. Inside the caller's transaction."""
    for table, key, sums in (
        (UserDay, _USER, users),
        (ChannelDay, _CHANNEL, channels),
        (MonthSum, _MONTH, _months(users)),
    ):
        SumTable(table, key, SUMS).upsert(((*of, *values) for of, values in sorted(sums.items())))


def import_sums(installation: Installation, sums: Mapping[ImportedSum, list[int]]) -> None:
    """Add usage of the time before an import, which has no records. Inside the caller's transaction."""
    add_imported(installation, sums)
    _write_sums(*by_table(sums.items()))


def forget_imported(installation: Installation) -> int:
    """Take what was imported from an installation out of the sums. Returns the number of requests.

    Inside the caller's transaction.
    """
    found = {key: [-value for value in values] for key, values in imported_sums(installation)}
    _write_sums(*by_table(found.items()))
    for table in (UserDay, ChannelDay, MonthSum):
        table.objects.filter(requests=0).delete()
    ImportedDay.objects.filter(installation=installation).delete()
    return -sum(values[0] for values in found.values())


def token_days(user_id: int, token_id: int) -> dict[int, list[int]]:
    """Return what a token used by day, as `token_sums` does."""
    return token_sums(user_id, token_id, None)[0]


def token_sums(user_id: int, token_id: int, since: int | None) -> tuple[dict[int, list[int]], dict[str, list[int]]]:
    """Return what a token used by day (an ordinal), and since a day by model, as lists in the order of `SUMS`.

    `since` None: nothing by model. Pending records are added from the records themselves. Writes nothing.
    """
    found: dict[int, list[int]] = defaultdict(lambda: list(_NOTHING))
    models: dict[str, list[int]] = defaultdict(lambda: list(_NOTHING))
    with consistent_read():
        mark = RollupMark.objects.first() or RollupMark()
        rows = UserDay.objects.filter(user_id=user_id, token_id=token_id)
        sums_of = [Sum(name) for name in SUMS]
        for day, *sums in rows.values_list("day").annotate(*sums_of).order_by():
            found[day] = [int(value) for value in sums]
        if since is not None:
            for model, *sums in rows.filter(day__gte=since).values_list("model").annotate(*sums_of).order_by():
                models[model] = [int(value) for value in sums]
        waiting = Q(pk__gt=mark.last_id)
        for first, end, _seen in mark.gaps:
            waiting |= Q(pk__gte=first, pk__lte=end)
        late = _Added()
        for row in UsageRecord.objects.filter(waiting, token=token_id).values_list(*_FIELDS):
            _add_record(late, row, mark.kept_from)
    for (_user, day, _token, model), more in late.users.items():
        found[day] = [one + other for one, other in zip(found[day], more, strict=True)]
        if since is not None and day >= since:
            models[model] = [one + other for one, other in zip(models[model], more, strict=True)]
    return dict(found), dict(models)


def month_of(day: int) -> int:
    """Return the number of the month of a day (an ordinal): `year * 12 + month - 1`."""
    at = date.fromordinal(day)
    return at.year * 12 + at.month - 1


def _months(users: dict[Any, list[int]]) -> dict[Any, list[int]]:
    """Turn sums by user, day, token and model into sums by month, for users and for tokens."""
    found: dict[Any, list[int]] = defaultdict(lambda: list(_NOTHING))
    for (user, day, token, _model), sums in users.items():
        for key in (("user", month_of(day), user), ("token", month_of(day), token)):
            whole = found[key]
            for index, value in enumerate(sums):
                whole[index] += value
    return found


def _read_pending(last: int, gaps: Sequence[Sequence[float]]) -> tuple[list[Any], list[Any]]:
    """Return pending records and the gaps that are left when they are rolled up.

    A gap is [first id, last id, seconds since 1970 when it was found].
    """
    now = time.time()
    left: list[Any] = []
    rows: list[Any] = []
    for first, end, seen in gaps:
        late = (
            list(UsageRecord.objects.filter(pk__gte=first, pk__lte=end).order_by("pk").values_list(*_FIELDS))
            if now - seen < _GAP_SECONDS
            else []
        )
        rows += late
        if now - seen < _GAP_SECONDS:
            left += _missing([row[0] for row in late], int(first) - 1, int(end) + 1, seen)
    fresh = list(UsageRecord.objects.filter(pk__gt=last).order_by("pk").values_list(*_FIELDS)[:_CHUNK])
    if fresh and not (last == 0 and not gaps):  # ids before the very first record are no gap
        left += _missing([row[0] for row in fresh], last, fresh[-1][0], now)
    elif fresh:
        left += _missing([row[0] for row in fresh], fresh[0][0], fresh[-1][0], now)
    return rows + fresh, left[-_MAX_GAPS:]


def _missing(ids: Iterable[int], before: int, after: int, seen: float) -> list[list[float]]:
    """Return the gaps between `before` and `after` that `ids`, in order, leave."""
    found: list[list[float]] = []
    for pk in [*ids, after]:
        if pk > before + 1:
            found.append([before + 1, pk - 1, seen])
        before = max(before, pk)
    return found


def _add_record(to: _Added, row: Any, kept_from: int) -> None:
    """Add one record to the sums by user, channel and key, and to the counts of errors and first-token times.

    `kept_from`: the first day whose sums may change; a record of one before is in them, and about to be deleted.
    """
    _, at, user, token, channel, model, _status, reason, code, *_, first = row[:_OWN]
    day, key = _days().of(at.timestamp()), row[_KEY_ID]
    if day < kept_from:
        return
    values = _values(row)
    tables = [(to.users, (user or 0, day, token or 0, model)), (to.channels, (day, channel or 0, model))]
    if key is not None:
        tables.append((to.keys, (day, key)))
    for table, of in tables:
        sums = table[of]
        for index, value in enumerate(values):
            sums[index] += value
    if values[1]:
        to.tally["error", day, channel or 0, model, f"{reason}:{code}"[:90]] += 1
    elif first is not None:
        to.tally["first", day, channel or 0, model, str(class_of(first))] += 1


def _values(row: Any) -> tuple[int, ...]:
    """What a record adds to sums, in the order of `SUMS`."""
    status, reason, _code, into, cached, out, cost, shortfall, upstream = row[6:15]
    fault = reason in FAULTS
    return 1, int(fault or status >= 400), int(fault), into, cached, out, cost - shortfall, upstream


def pending_records() -> int:
    """Return how many records are not rolled up yet, about."""
    mark = RollupMark.objects.first()
    newest = UsageRecord.objects.aggregate(newest=Max("pk"))["newest"] or 0
    return int(max(0, newest - (mark.last_id if mark else 0)))
