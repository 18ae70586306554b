"""Makes what a plan says, through the pages of the administration: their checks, their rights, their audit log."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import Group
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.models import User
from portal.lib import clock
from relay.manage.configuration.document import Document
from relay.manage.configuration.kinds import Kind
from relay.manage.configuration.plan import Change, Part, Plan, make_plan
from relay.manage.requests.problems import Problem
from relay.manage.resources.groups import SETTINGS
from relay.manage.resources.pages import Page
from relay.manage.resources.resources import BY_PATH
from relay.models import ApiKey, Channel, ChannelModel, Model, Pool

_TABLES: Final = {"pools": Pool, "groups": Group, "models": Model, "channels": Channel}
_SOURCE: Final = "configuration file"


class NotApplied(Problem):
    """A change was refused; nothing was changed. The message names it."""

    code = "not_applied"


def apply(request: HttpRequest, document: Document, *, prune: bool = False, agreed: Plan | None = None) -> Plan:
    """Compare, and make all changes in one transaction. Raises BadDocument, Forbidden, NotApplied.

    `agreed`: what somebody has agreed to; where it would be something else by now, nothing is changed.
    """
    with transaction.atomic():
        plan = make_plan(request, document, prune=prune, with_secrets=True)
        if agreed is not None and plan.lines() != agreed.lines():
            raise NotApplied(_("Something was changed meanwhile: this is not what the plan showed. Look at it again."))
        for change in plan.changes:
            try:
                notes = _make(request, change)
            except NotApplied:
                raise
            except Problem as error:
                raise NotApplied(f"{change.title}: {error.message}", error.fields) from None
            if not (change.kind.section == "models" and "prices" in document):  # which may follow
                plan.notes += [f"{change.title}: {text}" for text in notes]
    return plan


def _make(request: HttpRequest, change: Change) -> list[str]:
    """Make a change. Returns what the page would tell its reader."""
    resource = BY_PATH.get(change.kind.section)
    prepare = resource.prepare if resource is not None else None
    page = Page(request, change.kind.model, _prepare_channel if change.kind.section == "channels" else prepare)
    if change.action == "delete":
        page.delete(page.find(change.row.pk, lock=True))
        return page.notes.texts()
    row = change.row
    if row is None or change.members:
        row = _save(page, change)
    for part in change.parts:
        try:
            _make_part(request, row, part)
        except Problem as error:
            raise NotApplied(f"{change.title}, {part.title}: {error.message}", error.fields) from None
    return page.notes.texts()


def _prepare_channel(form: Any, values: Any) -> None:
    """A file allows no addresses: it says which entry is missing."""
    form.offer = staticmethod(_offer)


def _offer(reason: str, entry: str) -> str:
    return _("%(reason)s The entry that is missing there: “%(address)s”.") % {"reason": reason, "address": entry}


def _save(page: Page, change: Change) -> Any:
    kind, new = change.kind, change.row is None or change.kind.fresh
    said = {name: after for name, (_was, after) in change.members.items()}
    if new:
        said = {**{name: change.entry[name] for name in kind.identity if name in change.entry}, **said}
    if kind.fresh:  # the last one's amounts count where the document says nothing
        said = {**_amounts(change), **said, "valid_from": clock.now(), "source": change.entry.get("source", _SOURCE)}
    values = {name: _value(kind, name, value) for name, value in said.items()}
    formsets = None
    resource = BY_PATH.get(kind.section)
    if kind.section == "groups" and resource is not None and resource.formsets is not None:
        settings = {name: values.pop(name) for name in SETTINGS if name in values}
        formsets = resource.formsets(settings)
    elif resource is not None:
        values = resource.values(values, new)
    if new:
        return page.add(values, formsets)
    return page.change(page.find(change.row.pk, lock=True), values, formsets)


def _amounts(change: Change) -> dict[str, Any]:
    if change.row is None:
        return {}
    return {name: getattr(change.row, name) for name in change.kind.fields if name != "source"}


def _value(kind: Kind, name: str, value: Any) -> Any:
    """A member as the page's form takes it: names of rows become their numbers."""
    section = kind.references.get(name)
    if section is None or value in (None, ""):
        return value
    if section == "users":
        return User.objects.get(username=value).pk
    table: Any = _TABLES[section]
    if isinstance(value, list):
        return [table.objects.get(name=one).pk for one in value]
    return table.objects.get(name=value).pk


def _make_part(request: HttpRequest, channel: Any, part: Part) -> None:
    table = ApiKey if part.what == "key" else ChannelModel
    page = Page(request, table)
    if part.action == "delete":
        page.delete(page.find(part.row.pk, lock=True))
        return
    values = dict(part.values)
    if part.action == "change":
        page.change(page.find(part.row.pk, lock=True), values)
        return
    if part.what == "model":
        values["model"] = Model.objects.get(name=values["model"]).pk
    page.add({"channel": channel.pk, **values})
