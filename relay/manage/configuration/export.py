"""Writes what is configured as a document, without secrets and without what is as it is by default."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from django.http import HttpRequest

from accounts.models import GroupSettings
from relay.manage.configuration.document import Document
from relay.manage.configuration.kinds import KINDS, Entry, Kind, same, written
from relay.manage.resources.groups import SETTINGS
from relay.manage.resources.pages import Page

_USUAL: Final = (("above_tokens", 0), ("purpose", "sale"))  # of what names a row


def rows_of(request: HttpRequest, kind: Kind) -> dict[tuple[Any, ...], Any]:
    """The rows of a kind that somebody may see, by what names them. Raises Forbidden."""
    rows = kind.narrow(Page(request, kind.model).rows())
    if not rows.query.order_by and not kind.fresh:
        rows = rows.order_by("pk")
    return {kind.key_of(written(kind, row)): row for row in rows}


def export(request: HttpRequest) -> Document:
    """Everything that somebody may see. Raises Forbidden."""
    found: Document = {}
    for kind in KINDS:
        entries = [_entry(kind, row) for row in rows_of(request, kind).values()]
        if entries:
            found[kind.section] = sorted(
                entries, key=lambda entry: [str(entry.get(name, "")) for name in kind.identity]
            )
    return found


def _entry(kind: Kind, row: Any) -> Entry:
    usual = _defaults(kind)
    whole = written(kind, row)
    needed = {*kind.identity, "provider", "input", "output"}
    found = {name: value for name, value in whole.items() if name in needed or not same(value, usual.get(name))}
    found = {
        name: value for name, value in found.items() if value not in (None, "", []) and (name, value) not in _USUAL
    }
    labels = Counter(key.label for key in row.keys.all()) if kind.section == "channels" else Counter()
    if kind.section == "channels" and (keys := [_key(key, labels[key.label] == 1) for key in row.keys.all()]):
        found["keys"] = keys
    return found


def _defaults(kind: Kind) -> Entry:
    """What a new row has."""
    found: Entry = {"further_names": [], "models": []}
    for name in kind.fields:
        field: Any = kind.model._meta.get_field(name)
        found[name] = [] if field.many_to_many else field.get_default() if field.has_default() else None
    if kind.section == "groups":
        found |= {name: getattr(GroupSettings(), name) for name in SETTINGS}
    return found


def _key(key: Any, alone: bool) -> Entry:
    """A key by its label, or its hint where it has none or is not `alone` with it: never a secret."""
    found: Entry = {"label": key.label} if key.label and alone else {"hint": key.hint}
    if not key.enabled:
        found["enabled"] = False
    if key.weight != 1:
        found["weight"] = key.weight
    return found
