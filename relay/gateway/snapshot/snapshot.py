"""A snapshot of the configuration, and lookups in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from portal.lib.net import Allowance
from relay.billing.prices import ONE
from relay.gateway.limits.windows import Limits, Subject, checks
from relay.gateway.snapshot.callers import Caller, Terms
from relay.gateway.snapshot.routes import Routes
from relay.gateway.snapshot.views import GroupView, ModelView, PlanView, Route
from relay.models.model_names import is_in_family
from relay.providers.failures import Rule

_MAX_TERMS: Final = 50_000
_MAX_MEMBERS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The configuration at one moment."""

    models: Mapping[str, ModelView]  # by name
    # The names of models by their further names, of which none is also a model's own.
    aliases: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    allowed: tuple[Allowance, ...]  # addresses that upstreams may have beyond public ones
    groups: Mapping[int, GroupView] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()  # the administrator's failure rules
    remedies: Mapping[str, str] = field(default_factory=dict)  # the administrator's texts by error code
    channels: frozenset[int] = field(default=frozenset(), kw_only=True)  # the ids of those that are enabled
    disabled: frozenset[str] = frozenset()  # names of disabled models, with their further ones
    plans: Mapping[int, PlanView] = field(default_factory=dict, kw_only=True)  # by the id of the user who owns it
    # Users who may sign in for one, while no model is served by an upstream: what a request of theirs waits for.
    lack_plans: frozenset[int] = field(default=frozenset(), kw_only=True)
    _terms: dict[str, Terms] = field(default_factory=dict)
    _family_members: dict[str, ModelView | None] = field(default_factory=dict)

    def named(self, name: str) -> ModelView | None:
        """The model that has exactly this name, as its own or as a further one."""
        found = self.models.get(name)
        return found if found is not None else self.models.get(self.aliases.get(name, ""))

    def plan_of(self, caller: Caller) -> PlanView | None:
        """The plan that serves this request of the caller, None: none does.

        A token that is limited to models of the portal is for these only, and one that anybody on the network may use
        without knowing it is not its owner.
        """
        plan = self.plans.get(caller.user_id)
        serves = plan is not None and plan.serves(caller.user_id, caller.playground) and caller.models is None
        serves = serves and not caller.anybody
        return plan if serves else None

    def has_lost_plan(self, caller: Caller) -> bool:
        """Whether the plan that served a request of the caller serves no more."""
        plan = self.plan_of(caller)
        return plan is None or plan.signed_out

    def models_of(self, caller: Caller) -> Collection[ModelView]:
        """The models of the portal, with those of the caller's own plan in the place of others of the same name."""
        plan = self.plan_of(caller)
        return ({**self.models, **plan.models} if plan is not None else self.models).values()

    def family_member(self, name: str) -> ModelView | None:
        """The model of a name in a family such as `gpt-4-gizmo-*`; None when no family matches.

        The longest matching family wins. The part that its star stands for is inserted into the upstream's name. A
        disabled model is not replaced by its family.
        """
        if name in self.disabled:
            return None
        if name not in self._family_members:
            if len(self._family_members) > _MAX_MEMBERS:
                self._family_members.clear()
            families = [model for model in self.models.values() if is_in_family(name, model.name)]
            family = max(families, key=lambda model: len(model.name), default=None)
            if family is None:
                return None  # unknown names are not cached: clients can invent any number
            rest = name[len(family.name) - 1 :]
            self._family_members[name] = replace(
                family,
                name=name,
                routes=Routes(_named(route, route.upstream_name.replace("*", rest)) for route in family.routes),
            )
        return self._family_members[name]

    def terms(self, caller: Caller) -> Terms:
        """The terms of a caller, computed once for each caller and snapshot."""
        found = self._terms.get(caller.digest)
        if found is None or found.caller is not caller:
            if len(self._terms) > _MAX_TERMS:
                self._terms.clear()
            found = self._terms[caller.digest] = self._compute_terms(caller)
        return found

    def _compute_terms(self, caller: Caller) -> Terms:
        groups = [self.groups[group] for group in sorted(caller.groups) if group in self.groups]
        subjects = [Subject(f"token:{caller.token_id}", "this token", caller.limits)] if caller.limits else []
        family_member = _most_generous([group.member for group in groups])
        own = caller.user_limits
        user = Limits(
            *(
                mine if mine is not None else theirs
                for mine, theirs in zip(_fields(own), _fields(family_member), strict=True)
            )
        )
        if user:
            subjects.append(Subject(f"user:{caller.user_id}", "your account", user))
        subjects += [Subject(f"group:{group.id}", "your group", group.limits) for group in groups if group.limits]
        return Terms(caller, min((group.multiplier for group in groups), default=ONE), checks(subjects))


def _named(route: Route, upstream_name: str) -> Route:
    """A route of a family to one of its members."""
    return replace(route, upstream_name=upstream_name, channel=route.channel.of_model(upstream_name))


def _fields(limits: Limits) -> tuple[int | None, ...]:
    return (limits.rpm, limits.tpm, limits.rpd, limits.concurrency)


def _most_generous(all_limits: list[Limits]) -> Limits:
    """The largest limit of each kind; none if one of the groups has none."""
    if not all_limits:
        return Limits()
    columns = zip(*(_fields(limits) for limits in all_limits), strict=True)
    return Limits(
        *(None if None in column else max(value for value in column if value is not None) for column in columns)
    )
