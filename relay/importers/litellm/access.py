"""Which models a key, a user or a team of LiteLLM may use. Pure.

An empty list there means every model. Entries are names of models, of access groups, patterns with a star, or words
such as `all-team-models`.

Source: LiteLLM 1.108's auth_checks and model_checks, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay.importers.reading.row import json_of, text_of

ALL_MODELS: Final = frozenset(("*", "all-proxy-models"))
TEAM: Final = "all-team-models"
NONE: Final = "no-default-models"
# Models that may be used; None: every one.
Allowed = frozenset[str] | None


def texts(value: object) -> list[str]:
    """The texts of a column of several: a list, JSON, or PostgreSQL's own form."""
    text = value if isinstance(value, str) else ""
    if text.startswith("{") and text.endswith("}"):
        value = [part.strip().strip('"') for part in text[1:-1].split(",")]
    elif text:
        value = json_of(text)
    return [text_of(one) for one in value if text_of(one)] if isinstance(value, (list, tuple)) else []


@dataclass(frozen=True, slots=True)
class Names:
    """The public names of models, and what else lists may name."""

    models: Mapping[str, str]  # the provider of each
    groups: Mapping[str, frozenset[str]]  # access groups by name: the models of each
    group_ids: Mapping[str, frozenset[str]]  # the same by id

    def allowed(self, entries: Sequence[str], group_ids: Iterable[str] = ()) -> Allowed:
        """What a list allows. Without entries everything; with those that mean nothing here, nothing."""
        if not entries or ALL_MODELS & set(entries):
            return None
        found: set[str] = set()
        for entry in entries:
            found |= self._meant(entry)
        for group in group_ids:
            found |= self.group_ids.get(group, frozenset())
        return frozenset(found)

    def unknown(self, entries: Sequence[str]) -> list[str]:
        """Entries that mean no model that is there."""
        words = ALL_MODELS | {TEAM, NONE}
        return [entry for entry in entries if entry not in words and not self._meant(entry)]

    def _meant(self, entry: str) -> set[str]:
        if entry in (TEAM, NONE):
            return set()
        found = {entry} if entry in self.models else set()
        found |= self.groups.get(entry, frozenset())
        if "*" in entry:
            pattern = re.compile(".*".join(map(re.escape, entry.split("*"))))
            found |= {
                name
                for name, provider in self.models.items()
                if pattern.fullmatch(name) or pattern.fullmatch(f"{provider}/{name}")
            }
        return found


def both(one: Allowed, other: Allowed) -> Allowed:
    if one is None or other is None:
        return one if other is None else other
    return one & other


def either(one: Allowed, other: Allowed) -> Allowed:
    return None if one is None or other is None else one | other


def access_groups(infos: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, frozenset[str]]:
    """The access groups that models name in their own `model_info`: `(public name, model_info)` of each."""
    found: dict[str, set[str]] = {}
    for name, info in infos:
        for group in texts(info.get("access_groups")):
            found.setdefault(group, set()).add(name)
    return {group: frozenset(names) for group, names in found.items()}


def listed(allowed: Allowed, models: Collection[str]) -> list[str]:
    """The names of what is allowed, sorted."""
    return sorted(models if allowed is None else allowed & set(models))
