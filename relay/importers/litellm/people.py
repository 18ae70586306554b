"""Users, teams and keys of LiteLLM: who owns which key here, and what it may spend and use.

Keys of a team belong to the team's account here when the team has limits of its own, or its user has a budget, which
does not count for them there. Otherwise they belong to their user, who then sees them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from accounts.passwords.litellm import encoded
from relay.importers.description import (
    Level,
    Remark,
    Role,
    SourceGroup,
    SourceToken,
    SourceUser,
)
from relay.importers.litellm.access import TEAM, Allowed, Names, both, either, listed, texts
from relay.importers.litellm.budgets import COLUMNS, RATES, Allowance, allowance, per_model
from relay.importers.reading.database import Database
from relay.importers.reading.row import Row

_DASHBOARD: Final = "litellm-dashboard"  # the team of keys that its pages make for a session
NOBODY: Final = "key:nobody"  # the account of keys without a user and a team
EVERYTHING: Final = "models:all"  # the group of those who may use every model
_LONG: Final = 100  # characters of the models that a group is named after
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ALL: Final = 1_000_000  # rows of a table without a column that is unique
_ROLES: Final[Mapping[str, Role]] = {"proxy_admin": Role.ADMIN}
_VIEWERS: Final[Mapping[str, str]] = {
    "proxy_admin_viewer": "It could look at everything there; here it is an ordinary user.",
    "org_admin": "It administered an organisation there; here it is an ordinary user.",
    "team": "It was a team's own user there; here it is an ordinary user.",
}
_MANAGEMENT: Final = frozenset(("management", "read_only"))
_TOKEN: Final = (
    "key_name", "key_alias", "expires", "models", "aliases", "user_id", "team_id", "blocked", "metadata", "budget_id",
    "allowed_routes", "key_type", "access_group_ids", "model_max_budget", "permissions", "organization_id",
    *COLUMNS, *RATES,
)  # fmt: skip
_USER: Final = (
    "user_alias", "user_email", "user_role", "password", "models", "metadata", "sso_user_id", "created_at",
    "model_max_budget", *COLUMNS, *RATES,
)  # fmt: skip
_TEAM: Final = (
    "team_alias", "models", "blocked", "metadata", "organization_id", "access_group_ids", "model_max_budget", *COLUMNS,
    *RATES,
)  # fmt: skip


@dataclass(slots=True)
class Team:
    """A team, and what its keys may do together."""

    id: str
    name: str
    may: Allowed
    allowance: Allowance
    blocked: bool
    organization: str

    @property
    def limited(self) -> bool:
        return self.blocked or self.allowance.limited

    @property
    def account(self) -> str:
        return f"team:{self.id}"


@dataclass(slots=True)
class Survey:
    """What must be known of all rows before the first of them is carried over."""

    user_models: dict[str, Allowed] = field(default_factory=dict)
    user_budgets: set[str] = field(default_factory=set)  # users who have a budget
    teams: dict[str, Team] = field(default_factory=dict)
    members: dict[tuple[str, str], Row] = field(default_factory=dict)  # the budget of a user within a team
    accounts: dict[str, Allowed] = field(default_factory=dict)  # by id: what it may use here
    used: set[str] = field(default_factory=set)  # accounts that are no users there and have keys


class People:
    """Reads them. `names`: of the models that are carried over."""

    def __init__(self, database: Database, names: Names, now: datetime) -> None:
        self._db = database
        self._names = names
        self._now = now
        self._budgets = {
            row.text("budget_id"): row
            for row in database.rows("LiteLLM_BudgetTable", (*COLUMNS, *RATES), key="budget_id")
        }
        self.survey = self._survey()

    # -- what is known of all ----------------------------------------------------------------------------------------

    def _survey(self) -> Survey:
        found = Survey()
        for row in self._db.rows("LiteLLM_UserTable", ("models", "max_budget"), key="user_id"):
            user = row.text("user_id")
            found.user_models[user] = self._names.allowed(texts(row.get("models")))
            if row.number("max_budget") is not None:
                found.user_budgets.add(user)
        for row in self._db.rows("LiteLLM_TeamTable", _TEAM, key="team_id"):
            entries = [one for one in texts(row.get("models")) if one != TEAM]
            team = Team(
                row.text("team_id"),
                row.text("team_alias") or row.text("team_id"),
                self._names.allowed(entries, texts(row.get("access_group_ids"))),
                allowance(row, None, self._now),
                row.flag("blocked"),
                row.text("organization_id"),
            )
            team.allowance.remarks += per_model(row, (("model_max_budget", "budgets"),))
            found.teams[team.id] = team
        for row in self._db.rows("LiteLLM_TeamMembership", ("team_id", "budget_id", "spend"), key="user_id", page=_ALL):
            budget = self._budgets.get(row.text("budget_id"))
            if budget is not None:
                found.members[row.text("team_id"), row.text("user_id")] = Row({**budget, "spend": row.get("spend")})
        found.accounts = {user: allowed for user, allowed in found.user_models.items()}
        for row in self._db.rows("LiteLLM_VerificationToken", ("user_id", "team_id"), key="token"):
            self._count(found, row)
        return found

    def _count(self, found: Survey, row: Row) -> None:
        owner, team = _owner(found, row), found.teams.get(row.text("team_id"))
        if owner not in found.user_models:
            found.used.add(owner)
        if team is None:
            found.accounts.setdefault(owner, None)
        else:
            found.accounts[owner] = either(found.accounts[owner], team.may) if owner in found.accounts else team.may

    def group_of(self, account: str) -> str:
        """The id of the group of those who may use the same models as an account."""
        allowed = self.survey.accounts.get(account)
        if allowed is None:
            return EVERYTHING
        return "models:" + hashlib.sha256("\0".join(sorted(allowed)).encode()).hexdigest()[:24]

    @cached_property
    def _groups(self) -> dict[str, tuple[Allowed, int]]:
        """What each group may use, and how many are in it."""
        found: dict[str, tuple[Allowed, int]] = {}
        for account, allowed in self.survey.accounts.items():
            group = self.group_of(account)
            found[group] = (allowed, found.get(group, (None, 0))[1] + 1)
        return found

    def groups(self) -> Iterator[SourceGroup]:
        """A group for each set of models that accounts may use."""
        for group, (allowed, count) in self._groups.items():
            if allowed is None:
                yield SourceGroup(id=group, name="LiteLLM", description="May use every model that LiteLLM had.")
            elif allowed:
                names = ", ".join(sorted(allowed))
                name = f"LiteLLM {names if len(names) <= _LONG else group[-8:]}"
                who = "One account" if count == 1 else f"{count:,} accounts"
                note = Remark(f"{who} may use these models alone: {names[:300]}.", Level.NOTE)
                yield SourceGroup(id=group, name=name, description=f"May use {names}"[:200], remarks=(note,))

    def may(self, model: str) -> list[str]:
        """The groups that may use a model."""
        return [group for group, (allowed, _count) in self._groups.items() if allowed is None or model in allowed]

    # -- accounts ----------------------------------------------------------------------------------------------------

    def users(self) -> Iterator[SourceUser]:
        for row in self._db.rows("LiteLLM_UserTable", _USER, key="user_id"):
            yield self._user(row)
        for team in self.survey.teams.values():
            if team.account in self.survey.used:
                yield replace(_team_account(team), groups=self._member_of(team.account))
        if NOBODY in self.survey.used:
            text = "LiteLLM has keys that belong to nobody: they are this account's."
            yield SourceUser(
                id=NOBODY,
                name="litellm-keys",
                signs_in=False,
                balance=None,
                groups=self._member_of(NOBODY),
                remarks=(Remark(text, Level.NOTE),),
                notes=text,
            )

    def _member_of(self, account: str) -> tuple[str, ...]:
        return (self.group_of(account),) if self.survey.accounts.get(account) != frozenset() else ()

    def _user(self, row: Row) -> SourceUser:
        user, role = row.text("user_id"), row.text("user_role")
        spend = allowance(row, None, self._now)
        remarks = [*spend.remarks, *per_model(row, (("model_max_budget", "budgets"),))]
        if role in _VIEWERS:
            remarks.append(Remark(_VIEWERS[role], Level.LEFT_OUT))
        if row.text("sso_user_id"):
            text = "It signs in by single sign-on there: link the provider here, which finds it by its e-mail address."
            remarks.append(Remark(text, Level.NOTE))
        email = row.text("user_email")
        return SourceUser(
            id=user,
            name=_name(email or user),
            display_name=row.text("user_alias"),
            email=email,
            role=Role.OWNER if user == "default_user_id" else _ROLES.get(role, Role.USER),
            enabled=row.object("metadata").get("scim_active") is not False and not spend.closed,
            password=encoded(row.text("password")),
            groups=self._member_of(user),
            balance=spend.left,
            rates=spend.rates,
            budgets=spend.source_budgets,
            joined_at=row.moment("created_at"),
            remarks=tuple(remarks),
        )

    # -- keys --------------------------------------------------------------------------------------------------------

    def tokens(self) -> Iterator[SourceToken]:
        for row in self._db.rows("LiteLLM_VerificationToken", _TOKEN, key="token"):
            yield self._token(row)

    def _token(self, row: Row) -> SourceToken:
        sha256, alias = row.text("token"), row.text("key_alias")
        name = alias or row.text("key_name") or "key"
        base = SourceToken(id=_short(sha256), name=name, user=_owner(self.survey, row))
        if why := _not_a_key(row, sha256):
            return replace(base, left_out=why)
        team = self.survey.teams.get(row.text("team_id"))
        spend = allowance(row, self._budgets.get(row.text("budget_id")), self._now)
        remarks = [*spend.remarks, *_key_remarks(row)]
        member = self.survey.members.get((row.text("team_id"), row.text("user_id")))
        if member is not None and team is not None:
            self._within_team(spend, member, remarks)
        entries = texts(row.get("models"))
        if unknown := self._names.unknown(entries):
            remarks.append(Remark(f"It names models that are not there: {', '.join(unknown)[:200]}."))
        models = self._models(row, entries, team, base.user)
        if team is not None:
            remarks.append(Remark(f"It is a key of the team “{team.name}”.", Level.NOTE))
        return replace(
            base,
            sha256=sha256,
            hint=row.text("key_name").replace("...", "…"),
            enabled=not row.flag("blocked") and not spend.closed and not (team is not None and team.blocked),
            expires_at=row.moment("expires"),
            quota=spend.left,
            models=models,
            rates=spend.rates,
            budgets=spend.source_budgets,
            notes=f"Team {team.name}" if team is not None else "",
            remarks=tuple(remarks),
        )

    def _models(self, row: Row, entries: list[str], team: Team | None, owner: str) -> tuple[str, ...] | None:
        """The models of its list; None: all that its owner may use here."""
        groups = texts(row.get("access_group_ids"))
        own = self._names.allowed(entries, groups)
        if TEAM in entries and team is not None:
            own = None if len(entries) == 1 else either(own, team.may)
        around = team.may if team is not None else self.survey.user_models.get(row.text("user_id"))
        allowed = both(own, around)
        if own is None and allowed == self.survey.accounts.get(owner):
            return None
        return tuple(listed(allowed, self._names.models))

    def _within_team(self, spend: Allowance, member: Row, remarks: list[Remark]) -> None:
        shared = allowance(member, None, self._now)
        if shared.left is not None:
            spend.cap(shared.left)
        for period, limit in shared.budgets.items():
            spend.budgets[period] = min(limit, spend.budgets.get(period, limit))
        if shared.limited:
            remarks.append(Remark("What its user may spend within the team is a limit of each of these keys here."))


def _owner(survey: Survey, row: Row) -> str:
    user, team = row.text("user_id"), survey.teams.get(row.text("team_id"))
    if team is None:
        return user if user in survey.user_models else NOBODY
    if user in survey.user_models and user not in survey.user_budgets and not team.limited:
        return user
    return team.account


def _team_account(team: Team) -> SourceUser:
    remarks = [*team.allowance.remarks, Remark("The account of a team, which has its budget and its keys.", Level.NOTE)]
    if team.organization:
        remarks.append(Remark("The budget and limits of its organisation have no counterpart.", Level.LEFT_OUT))
    return SourceUser(
        id=team.account,
        name=_name(f"team-{team.name}"),
        signs_in=False,
        display_name=team.name,
        enabled=not team.blocked and not team.allowance.closed,
        balance=team.allowance.left,
        rates=team.allowance.rates,
        budgets=team.allowance.source_budgets,
        notes=f"The team {team.name} of LiteLLM",
        remarks=tuple(remarks),
    )


def _name(text: str) -> str:
    """A name to sign in with, of the characters that such names may have."""
    return re.sub(r"[^\w.@+-]+", "-", text).strip("-")[:150]


def _short(sha256: str) -> str:
    """What a key is called in reports: a part of its digest, which opens nothing."""
    return sha256[:16]


def _not_a_key(row: Row, sha256: str) -> str:
    if row.text("team_id") == _DASHBOARD:
        return "It was made for a session of LiteLLM's pages."
    if _SHA256.fullmatch(sha256) is None:
        return "What is stored of it is no digest of a key that begins with sk-."
    if row.text("key_type") in _MANAGEMENT or texts(row.get("allowed_routes")) in (
        ["management_routes"],
        ["info_routes"],
    ):
        return "It opens LiteLLM's management API alone, which is another one here."
    return ""


def _key_remarks(row: Row) -> Iterator[Remark]:
    metadata: Mapping[str, Any] = row.object("metadata")
    if aliases := row.object("aliases"):
        names = ", ".join(f"{alias} → {target}" for alias, target in sorted(aliases.items()))
        text = f"Its own names of models have no counterpart; a model can have further names: {names[:200]}."
        yield Remark(text, Level.LEFT_OUT)
    words = (
        ("model_max_budget", "budgets"),
        ("model_rpm_limit", "limits of requests"),
        ("model_tpm_limit", "limits of tokens"),
    )
    yield from per_model(row, words)
    if texts(row.get("allowed_routes")) not in ([], ["llm_api_routes"], ["openai_routes"]):
        yield Remark("It was limited to some routes, which tokens here are not: check its purpose.", Level.LEFT_OUT)
    if metadata.get("guardrails"):
        yield Remark("Its guardrails have no counterpart.", Level.LEFT_OUT)
