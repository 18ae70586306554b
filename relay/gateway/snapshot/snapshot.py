"""The configuration at one moment, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from portal.lib.net import Allowance
from relay.billing.prices import ONE
from relay.gateway.limits.windows import Limits, Subject, checks
from relay.gateway.snapshot.callers import Caller, Terms
from relay.gateway.snapshot.views import GroupView, ModelView
from relay.providers.failures import Rule

_MOST_TERMS: Final = 50_000
_MOST_MEMBERS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    models: Mapping[str, ModelView]
    allowed: tuple[Allowance, ...]
    groups: Mapping[int, GroupView] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    remedies: Mapping[str, str] = field(default_factory=dict)  # the administrator's words about error codes
    _terms: dict[str, Terms] = field(default_factory=dict)
    _members: dict[str, ModelView | None] = field(default_factory=dict)

    def member(self, name: str) -> ModelView | None:
        """One of a family of models, which is written with a star at the end: `gpt-4-gizmo-*`. The longest that fits; its star is carried upstream."""
        if name not in self._members:
            if len(self._members) > _MOST_MEMBERS:
                self._members.clear()
            families = [model for model in self.models.values() if model.name.endswith("*") and name.startswith(model.name[:-1]) and len(name) >= len(model.name)]
            family = max(families, key=lambda model: len(model.name), default=None)
            if family is None:
                return None  # names that clients make up are not remembered
            rest = name[len(family.name) - 1 :]
            self._members[name] = replace(family, name=name, routes=tuple(replace(route, upstream_name=route.upstream_name.replace("*", rest)) for route in family.routes))
        return self._members[name]

    def terms(self, caller: Caller) -> Terms:
        """Worked out once for each caller and snapshot."""
        found = self._terms.get(caller.digest)
        if found is None or found.caller is not caller:
            if len(self._terms) > _MOST_TERMS:
                self._terms.clear()
            found = self._terms[caller.digest] = self._work_out(caller)
        return found

    def _work_out(self, caller: Caller) -> Terms:
        groups = [self.groups[group] for group in sorted(caller.groups) if group in self.groups]
        subjects = [Subject(f"token:{caller.token_id}", "this token", caller.limits)] if caller.limits else []
        member = _most_generous([group.member for group in groups])
        own = caller.user_limits
        user = Limits(*(mine if mine is not None else theirs for mine, theirs in zip(_fields(own), _fields(member), strict=True)))
        if user:
            subjects.append(Subject(f"user:{caller.user_id}", "your account", user))
        subjects += [Subject(f"group:{group.id}", "your group", group.limits) for group in groups if group.limits]
        return Terms(caller, min((group.multiplier for group in groups), default=ONE), checks(subjects))


def _fields(limits: Limits) -> tuple[int | None, ...]:
    return (limits.rpm, limits.tpm, limits.rpd, limits.concurrency)


def _most_generous(all_limits: list[Limits]) -> Limits:
    """Of each kind the largest; a group that leaves a kind open limits nobody by it."""
    if not all_limits:
        return Limits()
    columns = zip(*(_fields(limits) for limits in all_limits), strict=True)
    return Limits(*(None if None in column else max(value for value in column if value is not None) for column in columns))
