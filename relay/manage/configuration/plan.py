"""What a document would change: each row that it would make, change or delete, and its members, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.models import User
from portal.lib.crypto import Undecryptable
from portal.lib.json import encode
from relay.admin.pasted import parse_served
from relay.manage.configuration.document import BadDocument, Document, NoSecret, secret_of
from relay.manage.configuration.export import rows_of
from relay.manage.configuration.kinds import KINDS, Entry, Kind, line_of, same, written

Action = Literal["add", "change", "delete"]
_SIGNS: Final = {"add": "+", "change": "~", "delete": "-"}
_LONGEST: Final = 80  # characters of a value in a plan


@dataclass
class Change:
    """One row. `members`: what it has and will have, by name; of a secret only that it changes."""

    kind: Kind
    action: Action
    title: str
    entry: Entry
    row: Any = None
    members: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"{_SIGNS[self.action]} {self.title}"
        if self.action != "delete":
            for name, (before, after) in self.members.items():
                yield (
                    f"    {name}: {_shown(after)}"
                    if self.row is None
                    else f"    {name}: {_shown(before)} → {_shown(after)}"
                )
        for part in self.parts:
            yield f"    {_SIGNS[part.action]} {part.title}"

    def as_json(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "kind": self.kind.one,
            "name": self.title,
            "members": {name: {"before": str(one), "after": str(two)} for name, (one, two) in self.members.items()},
            "parts": [{"action": part.action, "what": part.title} for part in self.parts],
        }


@dataclass
class Part:
    """A key or a model of a channel."""

    action: Action
    what: Literal["key", "model"]
    title: str
    row: Any = None
    values: Entry = field(default_factory=dict)


@dataclass
class Plan:
    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # rows that the document does not name, and that stay
    notes: list[str] = field(default_factory=list)  # what could not be compared

    def lines(self) -> list[str]:
        """What it would change, for people."""
        return [line for change in self.changes for line in change.lines()]


def make_plan(request: HttpRequest, document: Document, *, prune: bool = False, with_secrets: bool = False) -> Plan:
    """Compare a document with what is configured. Raises BadDocument, Forbidden.

    `prune`: rows of a section of the document that it does not name are deleted. `with_secrets`: every reference must
    name a secret here; otherwise a key whose secret is not known here is compared without it.
    """
    plan = Plan()
    names = {kind.section: _names(request, kind, document) for kind in KINDS}
    gone: list[Change] = []
    for kind in KINDS:
        if kind.section not in document:
            continue
        rows = rows_of(request, kind)
        for entry in document[kind.section]:
            _check_references(kind, entry, names)
            row = rows.pop(kind.key_of(entry), None)
            change = _compared(kind, entry, row, plan, prune, with_secrets)
            if kind.section == "channels":
                for name in _served(kind, entry):
                    if name not in names["models"]:
                        raise _unknown(kind, entry, "models", name)
            if change is not None:
                plan.changes.append(change)
        for row in rows.values():
            title = kind.title(written(kind, row))
            if prune and not kind.fresh:
                gone.append(Change(kind, "delete", title, {}, row))
            else:
                plan.left.append(title)
    plan.changes += reversed(gone)  # what refers to others goes first
    return plan


def _names(request: HttpRequest, kind: Kind, document: Document) -> set[str]:
    """The rows that entries may refer to: those that are there, and those that the document makes."""
    if kind.identity != ("name",):
        return set()
    here = {key[0] for key in rows_of(request, kind)}
    return here | {entry["name"] for entry in document.get(kind.section, ())}


def _check_references(kind: Kind, entry: Entry, names: dict[str, set[str]]) -> None:
    for name, section in kind.references.items():
        value = entry.get(name)
        for one in value if isinstance(value, list) else [value] if value else []:
            known = User.objects.filter(username=one).exists() if section == "users" else one in names[section]
            if not known:
                raise _unknown(kind, entry, section, one)


def _unknown(kind: Kind, entry: Entry, section: str, name: Any) -> BadDocument:
    return BadDocument(
        _("%(what)s: there is no entry “%(name)s” of %(section)s, neither here nor in the file.")
        % {"what": kind.title(entry), "name": name, "section": section}
    )


def _compared(kind: Kind, entry: Entry, row: Any, plan: Plan, prune: bool, with_secrets: bool) -> Change | None:
    before = written(kind, row) if row is not None else {}
    plain = {name: value for name, value in entry.items() if name not in ("keys", "models")}
    members = {
        name: (before.get(name), value)
        for name, value in plain.items()
        if name not in kind.identity and (row is None or not same(before.get(name), value))
    }
    parts = list(_parts(kind, entry, row, plan, prune, with_secrets)) if kind.section == "channels" else []
    if row is not None and not members and not parts:
        return None
    return Change(kind, "add" if row is None else "change", kind.title(entry), entry, row, members, parts)


def _served(kind: Kind, entry: Entry) -> dict[str, str]:
    """The models of a channel's entry, with their names upstream. Raises BadDocument."""
    lines = entry.get("models")
    if lines is None:
        return {}
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise BadDocument(_("%(what)s: write models as a list of texts.") % {"what": kind.title(entry)})
    try:
        return {public: upstream for public, upstream in parse_served("\n".join(lines))}
    except ValidationError as error:
        raise BadDocument(f"{kind.title(entry)}: {' '.join(error.messages)}") from None


def _parts(kind: Kind, entry: Entry, row: Any, plan: Plan, prune: bool, with_secrets: bool) -> Iterator[Part]:
    """What changes of a channel's models and keys."""
    if "models" in entry:
        wanted = _served(kind, entry)
        there = {one.model.name: one for one in row.served.all()} if row is not None else {}
        for name, upstream in wanted.items():
            now = there.get(name)
            if now is None:
                yield Part(
                    "add", "model", f"model {line_of(name, upstream)}", None, {"model": name, "upstream_name": upstream}
                )
            elif (now.upstream_name or name) != (upstream or name):
                yield Part("change", "model", f"model {line_of(name, upstream)}", now, {"upstream_name": upstream})
        for name, now in there.items():
            if name not in wanted:
                yield Part("delete", "model", f"model {name}", now)
    yield from _key_parts(entry, row, plan, prune, with_secrets)


def _key_parts(entry: Entry, row: Any, plan: Plan, prune: bool, with_secrets: bool) -> Iterator[Part]:
    there = {key.pk: key for key in row.keys.all()} if row is not None else {}
    for said in entry.get("keys", ()):
        name = said.get("label") or said["hint"]
        title = f"key “{name}”"
        key = _named(said, list(there.values()), entry["name"], title)
        there.pop(key.pk if key is not None else 0, None)
        values = {one: said[one] for one in ("enabled", "weight") if one in said}
        try:
            secret = secret_of(said["secret"]) if "secret" in said else ""
        except NoSecret:
            if with_secrets:
                raise
            secret = ""
            plan.notes.append(
                _("%(channel)s, %(key)s: %(name)s names no secret here, so it is not compared.")
                % {"channel": entry["name"], "key": title, "name": said["secret"]}
            )
        if key is None:
            if "secret" not in said:
                raise BadDocument(
                    _("%(channel)s: there is no %(key)s here. Give it a secret: env:NAME or file:PATH.")
                    % {"channel": entry["name"], "key": title}
                )
            yield Part("add", "key", title, None, {"label": said.get("label", ""), "secret": secret, **values})
            continue
        changed = {one: value for one, value in values.items() if getattr(key, one) != value}
        if secret and not _is(key, secret, row):
            changed["secret"] = secret
        if changed:
            words = [one if one == "secret" else f"{one}: {_shown(value)}" for one, value in changed.items()]
            yield Part("change", "key", f"{title} ({', '.join(words)})", key, changed)
    for key in there.values():
        name = key.label or key.hint
        if prune and "keys" in entry:
            yield Part("delete", "key", f"key “{name}”", key)
        else:
            plan.left.append(_("key “%(name)s” of channel “%(channel)s”") % {"name": name, "channel": entry["name"]})


def _named(said: Entry, keys: list[Any], channel: str, title: str) -> Any:
    """The key that an entry names by its label, or by its ends whatever its label is; None: there is none yet."""
    label = said.get("label")
    found = [key for key in keys if (key.label == label if label else key.hint == said["hint"])]
    if label and said.get("hint"):
        found = [key for key in found if key.hint == said["hint"]] or found
    if len(found) > 1:
        raise BadDocument(
            _("%(channel)s: there are several keys that are called %(key)s. Give them different labels first.")
            % {"channel": channel, "key": title}
        )
    return found[0] if found else None


def _is(key: Any, secret: str, channel: Any) -> bool:
    """Whether a key has this secret, for the address that its channel has."""
    try:
        return bool(key.secret_to_compare() == secret) and key.is_for(channel)
    except Undecryptable:
        return False


def _shown(value: Any) -> str:
    said = encode(value).decode() if isinstance(value, bool | list | dict) else str(value)  # as a file has it
    text = "nothing" if value in (None, "", []) else said
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
