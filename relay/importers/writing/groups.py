"""Groups of users, with the multiple of the prices that they pay.

A group of the same name that is here already is never joined: it may have rights, other members and another multiple.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from django.contrib.auth.models import Group

from accounts.models import GroupSettings
from relay.importers.description import Level, SourceGroup
from relay.importers.mapping import Known, NewRow, changed
from relay.importers.run import Run
from relay.importers.writing.naming import Names, rates

_LONGEST: Final = 150
_MOST: Final = Decimal(100)
_STEP: Final = Decimal("0.000001")


def carry(run: Run) -> None:
    names = Names(Group.objects.values_list("name", flat=True), _LONGEST)
    for group in run.source.groups():
        run.report.remarks("group", group, group.remarks)
        if group.left_out or not group.name.strip() or len(group.id) > _LONGEST:
            why = group.left_out or f"A group has a name of 1 to {_LONGEST} characters."
            run.report.leave_out("group", group, why)
            continue
        known = run.rows.find("group", group.id)
        if known is None:
            _create(run, group, names)
        else:
            _follow(run, group, known)


def _create(run: Run, group: SourceGroup, names: Names) -> None:
    run.report.counts["group"].new += 1
    name = names.take(group.name, run.report.installation)
    if name != group.name:
        text = f"It is called “{name}” here: there is a group of its name already, which may mean something else."
        run.report.tell("group", group, text)
    multiplier = _multiplier(run, group)
    if not run.applies:
        run.rows.plan("group", group.id)
        return
    with run.batch():
        row = Group.objects.create(name=name)
        GroupSettings.objects.create(
            group=row, description=group.description[:200], price_multiplier=multiplier, **rates(group.rates)
        )
        run.rows.add("group", [NewRow(group.id, row.pk, seen=_seen(group, multiplier))])
        run.audit("import.create", [(row, group.id)])


def _follow(run: Run, group: SourceGroup, known: Known) -> None:
    multiplier = _multiplier(run, group)
    now = _seen(group, multiplier)
    settings = GroupSettings.objects.filter(group=known.object_id).first()
    if "multiplier" not in changed(known, now) or settings is None:
        run.report.counts["group"].unchanged += 1
        return
    if str(settings.price_multiplier.normalize()) != str(Decimal(known.seen["multiplier"]).normalize()):
        run.report.counts["group"].unchanged += 1
        text = f"Its multiplier is {multiplier.normalize():f} there now; it was changed here, too, and stays."
        run.report.tell("group", group, text)
        return
    run.report.counts["group"].changed += 1
    if run.applies:
        with run.batch():
            settings.price_multiplier = multiplier
            settings.save()
            run.rows.update(known, now)
            run.audit("import.change", [(settings.group, group.id)])


def _seen(group: SourceGroup, multiplier: Decimal) -> dict[str, Any]:
    return {"name": group.name, "multiplier": str(multiplier.normalize())}


def _multiplier(run: Run, group: SourceGroup) -> Decimal:
    """Rounded up to what the column holds: a millionth."""
    found = min(max(group.multiplier, Decimal(0)), _MOST)
    rounded = found.quantize(_STEP, "ROUND_CEILING")
    if rounded != group.multiplier:
        text = f"Its multiplier {group.multiplier} becomes {rounded.normalize():f}, the nearest that there is here."
        run.report.tell("group", group, text, Level.CHANGED)
    return rounded
