"""One import: reads a source and carries it over part by part, or only reports what would become of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from accounts.models import AuditEvent
from portal.lib import clock
from relay.importers.description import Source
from relay.importers.mapping import ImportRefused, Rows
from relay.importers.report import Report
from relay.importers.run import LEASE, Options, Run
from relay.importers.writing import channels, codes, groups, models, prices, tokens, usage, users
from relay.models import Installation, Lease

# Each needs the ones before it.
_PARTS: Final[tuple[tuple[str, Callable[[Run], None]], ...]] = (
    ("groups", groups.carry),
    ("users", users.carry),
    ("models", models.carry),
    ("channels", channels.carry),
    ("prices", prices.carry),
    ("tokens", tokens.carry),
    ("redemption codes", codes.carry),
    ("usage", usage.carry),
)


def carry_over(source: Source, options: Options, shown: str) -> Report:
    """Import a source, or plan it. `shown`: its address without a password. Raises ImportRefused, SourceUnreadable."""
    name = options.name or source.program
    installation = Installation.objects.filter(name=name).first()
    if installation is not None and installation.program != source.program:
        raise ImportRefused(f"“{name}” was imported from {installation.program}. Give this one another name.")
    if options.apply and installation is None:
        installation = Installation.objects.create(name=name, program=source.program)
    report = Report(source.program, shown, name, options.apply)
    run = Run(source, options, report, Rows(installation))
    report.remarks("source", None, source.about())
    try:
        if options.apply:
            run.hold()  # before it is read what was carried over
        _check_same(run)
        for title, carry in _PARTS:
            options.progress(title)
            carry(run)
    finally:
        Lease.release(LEASE)
    if options.apply:
        Installation.objects.filter(pk=run.installation.pk).update(imported_at=clock.now())
        AuditEvent.write("import.apply", None, run.installation, changes=report.changes)
    return report


def _check_same(run: Run) -> None:
    """Refuse another installation of the same program under a name that is taken: its ids mean others."""
    known = run.rows.of("user")
    same = different = 0
    for user in islice(run.source.users(), 2000) if known else ():
        before = known.get(user.id)
        if before is not None and not user.left_out:
            same, different = (same + 1, different) if before.seen.get("name") == user.name else (same, different + 1)
    if different > same:
        raise ImportRefused(
            f"This is another installation than the one that was imported as “{run.report.installation}”: its users "
            "have other names. Import it under a name of its own with --name."
        )
