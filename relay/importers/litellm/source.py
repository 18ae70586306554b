"""LiteLLM's database and configuration file, as a source of an import.

Its keys are known by their SHA-256 alone, which suffices: they keep working.

Source: the schema of litellm-proxy-extras and LiteLLM 1.108, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from portal.lib import clock
from portal.lib.days import Days
from relay.importers.description import (
    Level,
    Remark,
    SourceChannel,
    SourceCode,
    SourceGroup,
    SourceModel,
    SourcePrice,
    SourceToken,
    SourceUnreadable,
    SourceUser,
)
from relay.importers.litellm import deployments as all_of
from relay.importers.litellm.access import Names, access_groups, texts
from relay.importers.litellm.config_file import deployments_of, read_config, section
from relay.importers.litellm.deployments import Deployment, Stored, aliases_of
from relay.importers.litellm.people import People
from relay.importers.litellm.secretbox import SecretBox
from relay.importers.reading.database import Database, open_database
from relay.importers.reading.row import nano_of
from relay.importers.usage_sums import UsageChunk, UsageKey

_TABLES: Final = ("LiteLLM_VerificationToken", "LiteLLM_UserTable", "LiteLLM_TeamTable", "LiteLLM_ProxyModelTable")
_FILES: Final = (".yaml", ".yml")
_USD: Final = Decimal(1)
_SETTLED: Final = 600  # seconds after which a request is surely in the log
_LOG: Final = (
    "api_key", "spend", "prompt_tokens", "completion_tokens", "endTime", "model", "model_id", "model_group", "user",
    "status",
)  # fmt: skip


class LiteLLM:
    """One installation of LiteLLM. `key`: its salt key, or its master key where it has none."""

    program = "litellm"
    title = "LiteLLM"

    def __init__(self, database: Database | None, config: Mapping[str, Any], key: str) -> None:
        self._db = database
        self._config = config
        self._box = SecretBox(key)

    @property
    def shown(self) -> str:
        return self._db.shown if self._db is not None else "config.yaml"

    # -- what holds for the whole ------------------------------------------------------------------------------------

    def about(self) -> Sequence[Remark]:
        found = []
        if self._db is not None:
            found += [
                Remark(f"There is no table {table}: what it had is not carried over.", Level.LEFT_OUT)
                for table in _TABLES
                if not self._db.has(table)
            ]
            for table, words in (
                ("LiteLLM_OrganizationTable", "organisations, with their budgets and limits"),
                ("LiteLLM_EndUserTable", "customers (end users), with their budgets"),
                ("LiteLLM_ProjectTable", "projects, with their budgets and lists of models"),
                ("LiteLLM_ModelTable", "names of models that teams have of their own"),
                ("LiteLLM_ModelAccessGroupBudgetTable", "budgets of access groups"),
                ("LiteLLM_TagTable", "tags, with their budgets"),
                ("LiteLLM_GuardrailsTable", "guardrails"),
                ("LiteLLM_MCPServerTable", "MCP servers"),
                ("LiteLLM_DeprecatedVerificationToken", "old keys of rotated ones, which still open for a while"),
            ):
                if count := self._db.count(table):
                    found.append(Remark(f"Not carried over: {count:,} {words}.", Level.LEFT_OUT))
        router = self._router
        for name in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
            if router.get(name) or section(self._config, "litellm_settings").get(name):
                text = f"The {name.replace('_', ' ')} of models have no counterpart: give models several channels."
                found.append(Remark(text, Level.LEFT_OUT))
        text = "The master key opens nothing here: staff sign in, and have tokens of their own."
        return [*found, Remark(text, Level.NOTE)]

    @cached_property
    def _router(self) -> Mapping[str, Any]:
        found = dict(section(self._config, "router_settings"))
        if self._db is not None:
            for row in self._db.rows("LiteLLM_Config", ("param_value",), key="param_name"):
                if row.text("param_name") == "router_settings":
                    found.update(row.object("param_value"))
        return found

    # -- models and channels -----------------------------------------------------------------------------------------

    @cached_property
    def _deployments(self) -> list[Deployment]:
        credentials: dict[str, Mapping[str, Any]] = {}
        listed = self._config.get("credential_list")
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict):
                credentials[str(entry.get("credential_name"))] = section(entry, "credential_values")
        stored = list(deployments_of(self._config))
        if self._db is not None:
            for row in self._db.rows(
                "LiteLLM_CredentialsTable", ("credential_name", "credential_values"), key="credential_id"
            ):
                credentials[row.text("credential_name")] = row.object("credential_values")
            wanted = ("model_name", "litellm_params", "model_info", "blocked")
            for row in self._db.rows("LiteLLM_ProxyModelTable", wanted, key="model_id"):
                stored.append(
                    Stored(
                        row.text("model_id"),
                        row.text("model_name"),
                        row.object("litellm_params"),
                        row.object("model_info"),
                        row.flag("blocked"),
                    )
                )
        return list(all_of.read(stored, self._box, credentials))

    @cached_property
    def _names(self) -> Names:
        deployments = self._deployments
        names = {one.name: one.provider for one in deployments}
        groups = access_groups((one.name, one.info) for one in deployments)
        ids: dict[str, frozenset[str]] = {}
        if self._db is not None:
            wanted = ("access_group_name", "access_model_names")
            for row in self._db.rows("LiteLLM_AccessGroupTable", wanted, key="access_group_id"):
                found = Names(names, groups, {}).allowed(texts(row.get("access_model_names")) or ["no-default-models"])
                ids[row.text("access_group_id")] = frozenset(names) if found is None else found
        return Names(names, groups, ids)

    @cached_property
    def _people(self) -> People | None:
        return People(self._db, self._names, clock.now()) if self._db is not None else None

    def groups(self) -> Iterator[SourceGroup]:
        if self._people is not None:
            yield from self._people.groups()

    def models(self) -> Iterator[SourceModel]:
        people = self._people
        own = {one.name: f"team:{one.team}" for one in self._deployments if one.team}

        def may(name: str) -> tuple[Sequence[str], Sequence[str]]:
            if name in own:
                return (), (own[name],)
            return (people.may(name), ()) if people is not None else ((), ())

        yield from all_of.models(self._deployments, aliases_of(self._router), may)

    def channels(self) -> Iterator[SourceChannel]:
        yield from all_of.channels(self._deployments)

    def prices(self) -> Iterator[SourcePrice]:
        yield from all_of.prices(self._deployments)

    # -- people and keys ---------------------------------------------------------------------------------------------

    def users(self) -> Iterator[SourceUser]:
        if self._people is not None:
            yield from self._people.users()

    def tokens(self) -> Iterator[SourceToken]:
        if self._people is not None:
            yield from self._people.tokens()

    def codes(self) -> Iterator[SourceCode]:
        yield from ()

    # -- the log -----------------------------------------------------------------------------------------------------

    def usage(self, after: int) -> Iterator[UsageChunk]:
        """Requests by the time of their end, in milliseconds: their ids have no order. Of one chunk, so that an import
        that is killed begins anew.
        """
        people, days = self._people, Days(settings.TIME_ZONE)
        if self._db is None or people is None:
            return
        channels = {one.id: one.channel for one in self._deployments}
        owners = {token.id: token.user for token in people.tokens() if not token.left_out}
        until = int((clock.now().timestamp() - _SETTLED) * 1000)
        chunk = UsageChunk(mark=after)
        for row in self._db.rows("LiteLLM_SpendLogs", _LOG, key="request_id"):
            ended = row.moment("endTime")
            at = int(ended.timestamp() * 1000) if ended is not None else 0
            if not after < at <= until:
                continue
            token = row.text("api_key")[:16]
            key = UsageKey(
                days.of(at / 1000),
                owners.get(token, row.text("user")),
                token if token in owners else "",
                channels.get(row.text("model_id"), ""),
                row.text("model_group") or row.text("model"),
            )
            found = chunk.sums[key]
            cost = max(0, nano_of(row.get("spend"), _USD)[0])
            found.requests += 1
            found.failed += row.text("status") == "failure"
            found.faults += row.text("status") == "failure"
            found.input += max(0, row.whole("prompt_tokens"))
            found.output += max(0, row.whole("completion_tokens"))
            found.charged += cost
            found.upstream_cost += cost
            chunk.rows += 1
            chunk.mark = max(chunk.mark, at)
        if chunk.rows:
            yield chunk

    def close(self) -> None:
        if self._db is not None:
            self._db.close()


def open_source(program: str, address: str, logs: str = "", key: str = "") -> LiteLLM:
    """Open LiteLLM's database, or its `config.yaml` alone. `logs`: the configuration file beside a database.

    `key`: its salt key, or its master key where it has none. Raises SourceUnreadable.
    """
    if address.lower().endswith(_FILES):
        return LiteLLM(None, read_config(Path(address)), key)
    config = read_config(Path(logs)) if logs else {}
    database = open_database(address)
    if not any(database.has(table) for table in _TABLES):
        database.close()
        raise SourceUnreadable("This is no database of LiteLLM: it has none of its tables.")
    return LiteLLM(database, config, key)
