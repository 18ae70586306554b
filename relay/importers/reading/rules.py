"""What another program changes in requests, as rules of a channel here. Rules that are not possible here are told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from relay.importers.description import Level, Remark
from relay.providers.overrides.rules import BadOverrides, read_overrides
from relay.providers.vendors import VENDORS

Rule = Mapping[str, Any]


def parameters(values: Mapping[str, Any]) -> Iterator[Rule]:
    """Members of a request's body that are set, whatever the client sent."""
    for name, value in values.items():
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        yield {"do": "set", "path": pointer if "." in name or "/" in name else name, "value": value}


def set_headers(values: Iterable[tuple[str, str]]) -> Iterator[Rule]:
    for name, value in values:
        yield {"do": "set_header", "header": name, "value": value}


def removed_headers(names: Iterable[str]) -> Iterator[Rule]:
    for name in names:
        yield {"do": "remove_header", "header": name}


def usable(rules: Iterable[Rule], provider: str) -> tuple[tuple[Rule, ...], list[Remark]]:
    """The rules that a channel of a vendor can have, and a remark for each of the others. Values are not repeated:
    they may be secrets.
    """
    kept: list[Rule] = []
    remarks = []
    header = VENDORS[provider].credentials.header
    for rule in rules:
        try:
            read_overrides([*kept, rule], header)
        except BadOverrides:
            name = str(rule.get("path") or rule.get("header"))[:60]
            remarks.append(Remark(f"It changes “{name}” in requests, which is not possible here.", Level.LEFT_OUT))
        else:
            kept.append(rule)
    return tuple(kept), remarks
