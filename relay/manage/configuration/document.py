"""Configurations in text: reading a file of TOML, checking its form, and writing one."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import tomlkit
from django.utils.translation import gettext as _

from relay.manage.configuration.kinds import BY_SECTION, KEY_MEMBERS, KINDS, Entry, Kind
from relay.manage.configuration.values import KEY, exact, is_one, wrong_value
from relay.manage.requests.problems import Problem

Document = dict[str, list[Entry]]  # entries by section
_MOST_BYTES: Final = 16 << 20
_MOST_SECRET: Final = 20_000
_HEAD: Final = (
    "Configuration of AIRelays Portal. `airelays config plan FILE` shows what it would change, `airelays config apply",
    "FILE` changes it. What is not named here stays as it is. Secrets are references: env:NAME or file:PATH.",
)


class BadDocument(Problem):
    """A file is none, or says something that cannot be. The message names the place."""

    code = "bad_document"


class NoSecret(BadDocument):
    """A reference names nothing here."""


def read(text: str) -> Document:
    """Raises BadDocument."""
    if len(text) > _MOST_BYTES:
        raise BadDocument(_("The file is too large."))
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadDocument(_("The file is not TOML: %(why)s.") % {"why": error}) from None
    document: Document = {}
    for section, entries in found.items():
        kind = BY_SECTION.get(section)
        if kind is None:
            raise BadDocument(
                _("There is no section “%(name)s”; there are %(known)s.")
                % {"name": section, "known": ", ".join(BY_SECTION)}
            )
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadDocument(_("Write the entries of %(section)s as [[%(section)s]].") % {"section": section})
        document[section] = [_checked(kind, entry) for entry in entries]
        _check_once(kind, document[section])
    return document


def _checked(kind: Kind, entry: Entry) -> Entry:
    name = kind.identity[0]
    if not isinstance(entry.get(name), str) or not entry[name].strip():
        raise BadDocument(_("An entry of %(section)s has no %(name)s.") % {"section": kind.section, "name": name})
    if unknown := sorted(set(entry) - kind.members):
        near = difflib.get_close_matches(unknown[0], kind.members, 1)
        meant = _(" Did you mean “%(name)s”?") % {"name": near[0]} if near else ""
        said = _("%(what)s: there is no member “%(name)s”.") % {"what": kind.title(entry), "name": unknown[0]}
        raise BadDocument(said + meant)
    if wrong := wrong_value(kind, entry):
        said = _("%(what)s: “%(name)s” must be %(kind)s.")
        raise BadDocument(said % {"what": _title(kind, entry), "name": wrong[0], "kind": wrong[1]})
    keys = entry.get("keys", [])
    if not isinstance(keys, list):
        raise BadDocument(_("Write the entries of %(section)s as [[%(section)s]].") % {"section": "channels.keys"})
    named = set()
    for key in keys:
        _check_key(kind, entry, key)
        name = key.get("label") or key["hint"]
        if name in named:
            raise BadDocument(
                _("%(what)s: the key “%(key)s” is there twice.") % {"what": _title(kind, entry), "key": name}
            )
        named.add(name)
    found = exact(kind, entry)
    return {"purpose": "sale", **found} if kind.section == "prices" else found


def _title(kind: Kind, entry: Entry) -> str:
    """How errors call an entry whose other names may be anything."""
    return kind.title({kind.identity[0]: entry[kind.identity[0]]})


def _check_key(kind: Kind, entry: Entry, key: Any) -> None:
    what = {"what": kind.title(entry)}
    if not isinstance(key, dict) or set(key) - KEY_MEMBERS:
        raise BadDocument(
            _("%(what)s: a key has the members %(known)s.") % {**what, "known": ", ".join(sorted(KEY_MEMBERS))}
        )
    for name, value in key.items():
        if not is_one(value, KEY[name]):
            said = _("%(what)s: “%(name)s” of a key must be %(kind)s.")
            raise BadDocument(said % {**what, "name": name, "kind": KEY[name]})
    if not (key.get("label") or key.get("hint")):
        raise BadDocument(_("%(what)s: name each key by its label.") % what)
    secret = key.get("secret")
    if secret is not None and not secret.startswith(("env:", "file:")):
        raise BadDocument(
            _("%(what)s: a secret does not stand in the file. Write env:NAME, or file:PATH of a file that has it.")
            % what
        )


def _check_once(kind: Kind, entries: list[Entry]) -> None:
    seen: set[tuple[Any, ...]] = set()
    for entry in entries:
        if (key := kind.key_of(entry)) in seen:
            raise BadDocument(_("%(what)s is there twice.") % {"what": kind.title(entry)})
        seen.add(key)


def secret_of(reference: str, environment: Mapping[str, str] | None = None) -> str:
    """The secret that a reference names. Raises NoSecret; its message has no part of the secret."""
    where, _colon, name = reference.partition(":")
    found = ""
    if where == "env":
        found = (os.environ if environment is None else environment).get(name, "")
    else:
        try:
            with Path(name).expanduser().open(encoding="utf-8") as file:
                found = file.read(_MOST_SECRET + 1)
        except (OSError, ValueError):
            found = ""
    found = found.strip()
    if not found or len(found) > _MOST_SECRET:
        raise NoSecret(_("“%(name)s” names no secret here.") % {"name": reference})
    return found


def write(document: Document) -> str:
    """As TOML, in the order of sections."""
    out = tomlkit.document()
    for line in _HEAD:
        out.add(tomlkit.comment(line))
    for kind in KINDS:
        entries = document.get(kind.section)
        if not entries:
            continue
        tables = tomlkit.aot()
        for entry in entries:
            tables.append(_table(entry))
        out.add(tomlkit.nl())
        out.add(kind.section, tables)
    return tomlkit.dumps(out).rstrip("\n") + "\n"


def _table(entry: Entry) -> Any:
    table = tomlkit.table()
    for name, value in entry.items():
        if name == "keys":
            keys = tomlkit.aot()
            for key in value:
                keys.append(_table(key))
            table.add("keys", keys)
        elif isinstance(value, list):
            array = tomlkit.array()
            array.extend(value)
            array.multiline(len(value) > 3)
            table.add(name, array)
        elif value is not None:
            table.add(name, value if isinstance(value, (str, int, float, bool, dict, date)) else str(value))
    return table
