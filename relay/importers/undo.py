"""Takes back what an import brought, as far as it was not used since. What is left says why.

The books never lose anybody: users and tokens that were made stay as disabled rows, with an opposite entry for what is
left of the balance. The next import brings them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.db.models import Model as Row
from django.db.models import ProtectedError, Sum

from accounts.models import AuditEvent, User
from portal.lib import clock, money
from relay.billing.ledger import movements
from relay.importers.description import Item, Level
from relay.importers.mapping import ImportRefused, Known, Rows
from relay.importers.report import Report
from relay.importers.run import Options, Run, batched
from relay.importers.writing.channels import note_of
from relay.models import (
    AllowedUpstream,
    Channel,
    ChannelDay,
    ChannelModel,
    ImportedDay,
    ImportedRow,
    Installation,
    Lease,
    LedgerAccount,
    LedgerEntry,
    Model,
    ModelPrice,
    RedemptionCode,
    RemovedUsage,
    RollupMark,
    Token,
    UsageRecord,
    UserDay,
)
from relay.usage.rollup import forget_imported

_USED: Final = "It was used since, and stays."


def take_back(name: str, *, apply: bool) -> Report:
    """Undo the import of an installation, or report what would be undone. Raises ImportRefused."""
    installation = Installation.objects.filter(name=name).first()
    if installation is None:
        known = ", ".join(Installation.objects.values_list("name", flat=True)) or "nothing"
        raise ImportRefused(f"Nothing was imported as “{name}”. Imported so far: {known}.")
    report = Report(installation.program, "", name, apply)
    run = Run(_NoSource(), Options(apply=apply), report, Rows(installation))  # type: ignore[arg-type]  # reads nothing
    try:
        if apply:
            run.hold()
        for kind, undo in _PARTS:
            for some in batched(list(run.rows.of(kind).items())):
                if apply:
                    with run.batch():
                        undo(run, some)
                else:
                    undo(run, some)
        _usage(run)
        if AllowedUpstream.objects.filter(note=note_of(name)).exists():
            text = "Addresses that it has allowed for channels stay allowed: see “Allowed upstream addresses”."
            report.tell("source", None, text, Level.NOTE)
        if apply:
            with run.batch():
                AuditEvent.write("import.undo", None, installation, removed=report.changes)
                if not ImportedRow.objects.filter(installation=installation).exists():
                    installation.delete()
    finally:
        Lease.release("import")
    return report


class _NoSource:
    """Nothing is read to undo an import."""


_Some = Iterable[tuple[str, Known]]


def _usage(run: Run) -> None:
    installation = run.installation
    if not installation.usage_mark:
        return
    planned = ImportedDay.objects.filter(installation=installation).aggregate(requests=Sum("requests"))["requests"]
    run.report.counts["usage"].removed = int(planned or 0)
    if run.applies:
        with run.batch():
            run.report.counts["usage"].removed = forget_imported(installation)
            installation.usage_mark = 0
            installation.save(update_fields=["usage_mark"])


def _item(source_id: str, known: Known, row: Row | None = None) -> Item:
    return Item(id=source_id, name=str(known.seen.get("name") or getattr(row, "name", "")))


def _left(run: Run, kind: str, item: Item, why: str = _USED) -> None:
    run.report.counts[kind].left_out += 1
    run.report.tell(kind, item, why, Level.LEFT_OUT)


@dataclass(frozen=True, slots=True)
class _Removed:
    """What was used in days whose records have been deleted, which are all that retention leaves of it."""

    tokens: frozenset[Any] = frozenset()
    channels: frozenset[Any] = frozenset()
    models: frozenset[Any] = frozenset()  # names


def _removed(run: Run) -> _Removed:
    """Read once. Sums of what was imported are no use of it."""
    found: _Removed | None = run.memory.get("removed")
    if found is None:
        before = RollupMark.objects.values_list("kept_from", flat=True).first() or 0
        used = _Removed()
        if before:
            used = _Removed(
                _used_before(before, UserDay, "token_id", "token"),
                _used_before(before, ChannelDay, "channel_id", "channel"),
                _used_before(before, UserDay, "model", "model"),
            )
        found = run.memory["removed"] = used
    return found


def _used_before(day: int, table: Any, column: str, imported: str) -> frozenset[Any]:
    """The values of a column with more requests before a day than were imported."""
    there = dict(ImportedDay.objects.filter(day__lt=day).values_list(imported).annotate(Sum("requests")).order_by())
    sums = table.objects.filter(day__lt=day).values_list(column).annotate(Sum("requests")).order_by()
    return frozenset(value for value, requests in sums.iterator() if requests > there.get(value, 0))


def _gone(run: Run, kind: str, known: Known, row: Row | None) -> None:
    """Note that a row was taken away, or never was this import's."""
    run.report.counts[kind].removed += 1
    if run.applies:
        ImportedRow.objects.filter(pk=known.pk).delete()
        if row is not None:
            AuditEvent.write("import.undo", None, row, source=run.installation.name)


def _codes(run: Run, some: _Some) -> None:
    query = RedemptionCode.objects.select_related("batch")
    if run.applies:
        query = query.select_for_update()  # one that is redeemed now is not taken for one that can be brought again
    rows = query.in_bulk([known.object_id for _id, known in some])
    for source_id, known in some:
        row = rows.get(known.object_id)
        if row is not None and row.redeemed_at and known.seen.get("state") != "redeemed":
            _left(run, "code", _item(source_id, known))
            continue
        _gone(run, "code", known, None)
        if run.applies and row is not None:
            batch = row.batch
            row.delete()
            if not batch.codes.exists():
                batch.delete()


def _tokens(run: Run, some: _Some) -> None:
    rows = Token.objects.in_bulk([known.object_id for _id, known in some])
    used = set(
        LedgerAccount.objects.filter(token__in=rows, kind="quota")
        .exclude(used=0, reserved=0)
        .values_list("token_id", flat=True)
    )
    for source_id, known in some:
        row = rows.get(known.object_id)
        if known.undone or row is None:
            continue
        was_used = row.pk in used or row.pk in _removed(run).tokens
        if was_used or UsageRecord.objects.filter(token=row.pk).exists():
            _left(run, "token", _item(source_id, known, row))
            continue
        run.report.counts["token"].removed += 1
        run.report.quotas -= known.amount
        if run.applies:
            row.revoked_at, row.enabled, row.sealed = clock.now(), False, ""
            row.save()
            _put_away(run, known, row)


def _users(run: Run, some: _Some) -> None:
    rows = User.objects.in_bulk([known.object_id for _id, known in some])
    for source_id, known in some:
        row = rows.get(known.object_id)
        if known.undone or row is None:
            continue
        if not known.made:
            _merged(run, source_id, known, row)
        elif row.last_login is not None or _was_used(row, run.installation.name):
            _left(run, "user", _item(source_id, known, row))
        else:
            run.report.counts["user"].removed += 1
            run.report.balances -= known.amount
            run.memory.setdefault("users", set()).add(row.pk)
            if run.applies:
                reason = f"Import of {run.installation.name} undone"
                taken = movements.deduct_up_to(row, known.amount, actor=None, reason=reason) if known.amount else 0
                row.is_active, row.is_staff, row.is_superuser = False, False, False
                row.password = make_password(None)
                row.save()
                row.groups.clear()
                _put_away(run, known, row, known.amount - taken)


def _merged(run: Run, source_id: str, known: Known, row: User) -> None:
    """What was added to somebody who was here before is taken as far as it is left, and they leave its groups.

    What is spent stays noted, so that another import does not bring it a second time.
    """
    taken = known.amount
    if run.applies and known.amount:
        reason = f"Import of {run.installation.name} undone"
        taken = movements.deduct_up_to(row, known.amount, actor=None, reason=reason)
    if run.applies:
        row.groups.remove(*Group.objects.filter(pk__in=_ids(run, "group")))
    run.report.balances -= taken
    if not (spent := known.amount - taken):
        _gone(run, "user", known, row)
        return
    text = f"Of the {money.exact(known.amount)} that it brought, {money.exact(spent)} are spent."
    run.report.tell("user", _item(source_id, known), text)
    run.report.counts["user"].removed += 1
    _put_away(run, known, row, spent)


def _was_used(row: User, name: str) -> bool:
    """Whether somebody has signed in, asked a model, or got or spent money other than by the import."""
    for table in (UsageRecord, RemovedUsage):
        if table.objects.filter(user=row.pk).exists():
            return True
    entries = LedgerEntry.objects.filter(user=row.pk).exclude(reason=f"Balance from {name}")
    return entries.exclude(reason=f"Import of {name} undone").exists()


def _put_away(run: Run, known: Known, row: Row, amount: int = 0) -> None:
    known.undone, known.amount = True, amount
    ImportedRow.objects.filter(pk=known.pk).update(undone=True, amount=amount)
    AuditEvent.write("import.undo", None, row, source=run.installation.name)


def _prices(run: Run, some: _Some) -> None:
    for source_id, known in some:
        rows = ModelPrice.objects.select_related("model").filter(pk=known.object_id).first()
        same = rows and ModelPrice.objects.filter(
            model=rows.model_id, channel=rows.channel_id, purpose=rows.purpose, source=run.installation.name
        )
        was_used = rows and rows.model.name in _removed(run).models
        if same and (was_used or _recorded(run, "price_id") & set(same.values_list("pk", flat=True))):
            _left(run, "price", _item(source_id, known))
            continue
        _gone(run, "price", known, None)
        if run.applies and same:
            same.delete()


def _recorded(run: Run, column: str) -> set[Any]:
    """The values of a column of all usage records, read once."""
    found: set[Any] = run.memory.get(column) or set()
    if column not in run.memory:
        found = run.memory[column] = set(UsageRecord.objects.order_by().values_list(column, flat=True).distinct())
    return found


def _channels(run: Run, some: _Some) -> None:
    rows = Channel.objects.in_bulk([known.object_id for _id, known in some])
    for source_id, known in some:
        row = rows.get(known.object_id)
        if known.undone:
            continue
        was_used = row is not None and row.pk in _removed(run).channels
        if row is not None and (was_used or UsageRecord.objects.filter(channel=row.pk).exists()):
            _left(run, "channel", _item(source_id, known, row), "It was used since: it stays, disabled.")
            if run.applies:
                row.enabled = False
                row.save()
                _put_away(run, known, row)
            continue
        _gone(run, "channel", known, row)
        if run.applies and row is not None:
            row.delete()


def _ids(run: Run, kind: str) -> Any:
    """A query for the rows here that this import made, or that belong to it."""
    return ImportedRow.objects.filter(installation=run.installation, kind=kind).values("object_id")


def _models(run: Run, some: _Some) -> None:
    rows = Model.objects.in_bulk([known.object_id for _id, known in some])
    for source_id, known in some:
        row = rows.get(known.object_id)
        if row is None or not known.made:
            _gone(run, "model", known, None)
            continue
        elsewhere = ChannelModel.objects.filter(model=row).exclude(channel__in=_ids(run, "channel")).exists()
        kept = row.tokens.exclude(pk__in=_ids(run, "token")).exists() or row.name in _recorded(run, "model")
        if elsewhere or kept or row.name in _removed(run).models:
            _left(run, "model", _item(source_id, known, row))
            continue
        _gone(run, "model", known, row)
        if run.applies:
            row.prices.all().delete()
            row.delete()


def _groups(run: Run, some: _Some) -> None:
    taken_back = run.memory.get("users", set())
    for source_id, known in some:
        row = Group.objects.filter(pk=known.object_id).first()
        if row is not None and row.user_set.exclude(pk__in=taken_back).exists():
            _left(run, "group", _item(source_id, known, row), "It has members, and stays.")
            continue
        _gone(run, "group", known, row)
        if run.applies and row is not None:
            try:
                row.delete()
            except ProtectedError:
                _left(run, "group", _item(source_id, known, row))


_PARTS: Final[tuple[tuple[str, Callable[[Run, _Some], None]], ...]] = (
    ("code", _codes),
    ("token", _tokens),
    ("price", _prices),
    ("channel", _channels),
    ("model", _models),
    ("user", _users),
    ("group", _groups),
)
