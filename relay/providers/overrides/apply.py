"""Applies overrides to the body of a request. Pure; what was given is not changed.

Members that no rule is about are neither decoded nor written anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from portal.lib.json import NOTHING, Json, decode, encode
from relay.protocols.fields import Fields, folded
from relay.providers.overrides.checks import EACH
from relay.providers.overrides.rules import Rule

_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})
_EMPTY_TEXTS: Final = frozenset((b"null", b'""', b"", b"[]", b"{}"))
_ABSENT: Final = object()


def to_fields(rules: Sequence[Rule], fields: Fields) -> tuple[Fields, list[str]]:
    """The members to send, undecoded, and the names of those of the client's that were removed or replaced.

    The fields themselves where nothing changes, so that the client's bytes may go on as they are.
    """
    out: dict[str, object] = dict(fields)
    ignored: list[str] = []
    for rule in rules:
        _apply(rule, out, ignored, undecoded=True)
    if len(out) == len(fields) and all(out.get(name) is raw for name, raw in fields.items()):
        return fields, ignored
    return out, ignored  # type: ignore[return-value]  # `undecoded`: all values are


def to_body(rules: Sequence[Rule], body: Json) -> list[str]:
    """The same for a body that was decoded, in place. Returns the names."""
    ignored: list[str] = []
    for rule in rules:
        _apply(rule, body, ignored, undecoded=False)
    return ignored


def to_form(rules: Sequence[Rule], fields: Fields) -> tuple[Fields, list[str]]:
    """The same for the texts of a form, whose values are JSON strings here. Forms have no members in members."""
    flat = [rule for rule in rules if len(rule.path) == 1 and len(rule.target) <= 1]
    return to_fields([replace(rule, raw=msgspec.Raw(encode(_form_text(rule.value)))) for rule in flat], fields)


def to_items(rules: Sequence[Rule], name: str, items: list[Json]) -> tuple[list[Json], list[str]]:
    """The rules that reach into a list, for a list that stands in place of the client's own."""
    ignored: list[str] = []
    holder: dict[str, object] = {name: items}
    for rule in rules:
        if folded(rule.path[0]) == name and len(rule.path) > 1:
            _apply(rule, holder, ignored, undecoded=False)
    found = holder[name]
    return (found if isinstance(found, list) else items), ignored


def _form_text(value: object) -> str:
    return value if isinstance(value, str) else encode(value).decode()


def _apply(rule: Rule, members: dict[str, object], ignored: list[str], undecoded: bool) -> None:
    """Apply one rule in place. `undecoded`: the members are `msgspec.Raw`."""
    top = _spelled(members, rule.path[0])
    old = members.get(top, _ABSENT)
    if len(rule.path) == 1 and rule.action != "rename":
        _apply_at_top(rule, members, top, ignored, undecoded)
        return
    if rule.action == "remove":
        if old is _ABSENT or (undecoded and not _may_have(old, rule.path)):
            return
        value = _decoded(old, undecoded)
        sent = _without(value, rule.path[1:])
        if sent is not value:
            members[top] = _encoded(sent, undecoded)
            ignored.append(rule.name)
    elif rule.action == "rename":
        _rename(rule, members, ignored, undecoded)
    else:
        value = _decoded(old, undecoded)
        sent, replaced = _placed(value, rule.path[1:], rule.value, rule.action == "default")
        if sent is not value:
            members[top] = _encoded(sent, undecoded)
            if replaced:
                ignored.append(rule.name)


def _apply_at_top(rule: Rule, members: dict[str, object], top: str, ignored: list[str], undecoded: bool) -> None:
    old = members.get(top, _ABSENT)
    said = old is not _ABSENT and not _is_empty(old, undecoded)
    if rule.action == "remove":
        members.pop(top, None)
        if said:
            ignored.append(rule.name)
    elif rule.action == "set" or not said:
        if said and _decoded(old, undecoded) != (decode(rule.raw) if undecoded else rule.value):
            ignored.append(rule.name)
        elif said:
            return  # the client sent the same
        members[top] = rule.raw if undecoded else rule.value


def _rename(rule: Rule, members: dict[str, object], ignored: list[str], undecoded: bool) -> None:
    whole: dict[str, object] = {}
    for step in {rule.path[0], rule.target[0]}:
        name = _spelled(members, step)
        if name in members:
            alone = len(rule.path if step == rule.path[0] else rule.target) == 1
            whole[name] = members[name] if alone else _decoded(members[name], undecoded)
            if isinstance(raw := whole[name], msgspec.Raw) and bytes(raw).strip() == b"null":
                whole[name] = None
    value = _at(whole, rule.path)
    if value is _ABSENT:
        return
    inside = len(rule.path) > 1 or len(rule.target) > 1
    if inside and isinstance(value, msgspec.Raw):
        value = decode(value)
    sent = _without(whole, rule.path, nulls=True)
    if value is not None:
        there = sent
        sent, _ = _placed(sent, rule.target, value, only_missing=True)
        if sent is there and not _said(_at(there, rule.target), value):
            ignored.append(rule.name)  # the client has sent the other one, too, or there is no place for it
    assert isinstance(sent, dict)  # noqa: S101  # as `whole` is
    for name in whole:
        if name not in sent:
            members.pop(name, None)
    for name, one in sent.items():
        if whole.get(name, _ABSENT) is not one:
            members[name] = one if isinstance(one, msgspec.Raw) else _encoded(one, undecoded)


def _said(one: object, other: object) -> bool:
    """Whether two members, decoded or not, say the same."""
    plain = [decode(value) if isinstance(value, msgspec.Raw) else value for value in (one, other)]
    return _same(*plain)


def _at(value: object, path: Sequence[str]) -> object:
    for step in path:
        if not isinstance(value, dict):
            return _ABSENT
        value = value.get(_spelled(value, step), _ABSENT)
    return value


def _without(value: object, path: Sequence[str], nulls: bool = False) -> object:
    """A value without what a path leads to; itself where there is nothing. `nulls`: also where that is null."""
    step, *rest = path
    if step == EACH:
        if not isinstance(value, list):
            return value
        entries = [_without(entry, rest, nulls) for entry in value]
        return entries if any(entry is not old for entry, old in zip(entries, value, strict=True)) else value
    if not isinstance(value, dict):
        return value
    name = _spelled(value, step)
    if name not in value or (value[name] is None and not nulls):
        return value
    if not rest:
        return {member: one for member, one in value.items() if member != name}
    inner = _without(value[name], rest, nulls)
    return value if inner is value[name] else {**value, name: inner}


def _placed(value: object, path: Sequence[str], new: object, only_missing: bool) -> tuple[object, bool]:
    """A value with `new` at a path, and whether something else was there; itself where that cannot be.

    Objects on the way are made where they are missing.
    """
    if value is _ABSENT or value is None:
        value = {}
    if not isinstance(value, dict):
        return value, False
    step, *rest = path
    name = _spelled(value, step)
    old = value.get(name)
    if rest:
        inner, replaced = _placed(old, rest, new, only_missing)
        return (value, False) if inner is old else ({**value, name: inner}, replaced)
    if (only_missing and old is not None) or (name in value and _same(old, new)):
        return value, False
    return {**value, name: new}, old not in _EMPTY


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _spelled(members: Mapping[str, object], step: str) -> str:
    """A member as it is called there: Google reads `generation_config` and `generationConfig` alike."""
    if step in members:
        return step
    plain = step.replace("_", "").lower()
    if plain == step:  # a single word in lower case
        return step
    return next((name for name in members if _camel(name) == _camel(step)), step)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _may_have(raw: object, path: Sequence[str]) -> bool:
    """Whether the text of a member may have what a path leads to. A search costs 0.5 ms for 1 MB."""
    last = path[-1]
    if "_" in last or not last.islower() or not isinstance(raw, msgspec.Raw):
        return True
    return b'"%s"' % last.encode() in bytes(raw)


def _is_empty(value: object, undecoded: bool) -> bool:
    return bytes(value).strip() in _EMPTY_TEXTS if undecoded and isinstance(value, msgspec.Raw) else value in _EMPTY


def _decoded(value: object, undecoded: bool) -> object:
    if not undecoded or not isinstance(value, msgspec.Raw):
        return value
    found = decode(value)
    return None if found is NOTHING else found


def _encoded(value: object, undecoded: bool) -> object:
    return msgspec.Raw(encode(value)) if undecoded else value
