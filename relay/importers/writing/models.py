"""Public model names, and who may use them. Models that are here already are used as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accounts.models import Change
from accounts.models.change import announce
from relay.channels.models import aliased
from relay.importers.description import Level, SourceModel
from relay.importers.mapping import Known, NewRow
from relay.importers.run import Run, batched
from relay.importers.writing.naming import numbered, rates
from relay.models import Model, ModelAlias, ModelPermission
from relay.models.model_names import LONGEST


def carry(run: Run) -> None:
    for batch in batched(run.source.models()):
        new: list[SourceModel] = []
        known: list[tuple[SourceModel, Known]] = []
        taken = aliased([model.name for model in batch])
        for model in batch:
            run.report.remarks("model", model, model.remarks)
            before = run.rows.find("model", model.id)
            if why := model.left_out or _unusable(model.name, taken):
                run.report.leave_out("model", model, why)
            elif before is None:
                new.append(model)
            else:
                known.append((model, before))
        _create(run, new)
        _follow(run, known)


def _unusable(name: str, taken: dict[str, str]) -> str:
    if not name or len(name) > LONGEST or any(character.isspace() for character in name) or not name.isprintable():
        return f"A model name has 1 to {LONGEST} characters and no spaces."
    return f"It is a further name of the model “{taken[name]}” here: remove it there first." if name in taken else ""


def _create(run: Run, models: Sequence[SourceModel]) -> None:
    if not models:
        return
    here = {row.name: row for row in Model.objects.filter(name__in=[model.name for model in models])}
    made: list[tuple[SourceModel, Model]] = []
    same: list[tuple[SourceModel, Model]] = []
    for model in models:
        row = here.get(model.name)  # letter cases tell names apart, as in requests
        if row is not None:
            text = "The model is here already and stays as it is: its price, its limits, who may use it."
            run.report.tell("model", model, text, Level.NOTE)
            same.append((model, row))
            run.report.counts["model"].unchanged += 1
        else:
            run.report.counts["model"].new += 1
            row = Model(
                name=model.name, is_open=model.is_open, description=model.description[:300], **rates(model.rates)
            )
            here[model.name] = row
            made.append((model, row))
    aliases = _free_aliases(run, [model for model, _row in made])
    if not run.applies:
        for model, row in [*made, *same]:
            run.rows.plan("model", model.id, row.pk or 0)
        return
    with run.batch():
        rows = [row for _model, row in made]
        Model.objects.bulk_create(rows)
        numbered(rows, "name")
        ModelAlias.objects.bulk_create(
            [ModelAlias(model=row, name=name) for model, row in made for name in aliases[model.id]]
        )
        _permit(run, [*made, *same])
        run.rows.add("model", [NewRow(model.id, row.pk, seen=_seen(model)) for model, row in made])
        run.rows.add("model", [NewRow(model.id, row.pk, made=False, seen=_seen(model)) for model, row in same])
        run.audit("import.create", [(row, model.id) for model, row in made])


def _free_aliases(run: Run, models: Sequence[SourceModel]) -> dict[str, list[str]]:
    """The further names that new models can have, by their ids in the source. A name stands for one model alone."""
    wanted = [name for model in models for name in model.aliases]
    taken = {name.casefold() for name in aliased(wanted)}
    taken |= {name.casefold() for name in Model.objects.filter(name__in=wanted).values_list("name", flat=True)}
    found: dict[str, list[str]] = {}
    for model in models:
        found[model.id] = []
        for name in model.aliases:
            if name.casefold() in taken or _unusable(name, {}):
                text = (
                    f"Its further name “{name[:LONGEST]}” is left out: another model has it here, or it cannot be one."
                )
                run.report.tell("model", model, text, Level.LEFT_OUT)
            else:
                taken.add(name.casefold())
                found[model.id].append(name)
    return found


def _seen(model: SourceModel) -> dict[str, Any]:
    return {"name": model.name, "groups": sorted(model.groups), "users": sorted(model.users)}


def _permit(run: Run, pairs: Sequence[tuple[SourceModel, Model]]) -> int:
    """Permit models to groups and users that were carried over. Returns how many permissions are new."""
    wanted = [
        (row.pk, kind, here)
        for model, row in pairs
        for kind, ids in (("group", model.groups), ("user", model.users))
        for one in ids
        if (here := run.rows.here(kind, one))
    ]
    have = set()
    for model_id, user, group in ModelPermission.objects.filter(
        model__in=[row.pk for _model, row in pairs]
    ).values_list("model_id", "user_id", "group_id"):
        have.add((model_id, "user", user) if user is not None else (model_id, "group", group))
    new = [entry for entry in dict.fromkeys(wanted) if entry not in have]
    ModelPermission.objects.bulk_create(
        [ModelPermission(model_id=model, **{f"{kind}_id": here}) for model, kind, here in new], batch_size=500
    )
    if new:
        announce(Change.CATALOG)
    return len(new)


def _follow(run: Run, pairs: Sequence[tuple[SourceModel, Known]]) -> None:
    """Permit what was permitted there since; a permission that was taken back here is not given again."""
    rows = {row.pk: row for row in Model.objects.filter(pk__in=[known.object_id for _model, known in pairs])}
    changed = []
    for model, known in pairs:
        row = rows.get(known.object_id)
        if row is None:
            run.report.leave_out("model", model, "It was carried over before and was deleted here.")
        elif _added(model, known):
            changed.append((model, known, row))
            run.report.counts["model"].changed += 1
        else:
            run.report.counts["model"].unchanged += 1
    if not run.applies or not changed:
        return
    with run.batch():
        for model, known, row in changed:
            groups, users = _added(model, known) or ((), ())
            fresh = SourceModel(id=model.id, name=model.name, groups=groups, users=users)
            _permit(run, [(fresh, row)])
            run.rows.update(known, _seen(model))
        run.audit("import.change", [(row, model.id) for model, _known, row in changed])


def _added(model: SourceModel, known: Known) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The groups and users that may use it since the last import; None: no others."""
    groups = tuple(sorted(set(model.groups) - set(known.seen.get("groups", ()))))
    users = tuple(sorted(set(model.users) - set(known.seen.get("users", ()))))
    return (groups, users) if groups or users else None
