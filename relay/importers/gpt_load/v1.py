"""GPT-Load 1: groups with upstream keys, and proxy keys that open one group or all of them.

A client names the group in the address that it asks, and the group passes on any model. Here a model is asked for by
its name: those are known that are tested, renamed, or found in the log of requests. A proxy key becomes a token of an
account for its group, so that it opens what it opened; keys of all groups belong to one account of all groups.

Source: the models and services of GPT-Load 1.4.9, read in November 2026.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
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
    SourceKey,
    SourceModel,
    SourcePrice,
    SourceRoute,
    SourceToken,
    SourceUser,
)
from relay.importers.gpt_load.addresses import PROVIDERS, base_url, text_api
from relay.importers.gpt_load.sealed import Locked, Sealed
from relay.importers.reading import rules
from relay.importers.reading.database import Database
from relay.importers.reading.row import Row, json_of, text_of, texts_of, whole_of
from relay.importers.usage_sums import UsageChunk, UsageKey

EVERY: Final = "all"  # the account of keys that open every group
_SETTLED: Final = 600  # seconds after which a request is surely in the log
_GROUP: Final = (
    "name", "display_name", "proxy_keys", "description", "group_type", "upstreams", "validation_endpoint",
    "channel_type", "test_model", "param_overrides", "config", "header_rules", "model_redirect_rules",
    "model_redirect_strict",
)  # fmt: skip


@dataclass(slots=True)
class _Group:
    """A group as it was read."""

    row: Row
    subgroups: tuple[tuple[str, int], ...] = ()  # (id, weight) of an aggregate group
    keys: list[SourceKey] = field(default_factory=list)
    locked: int = 0  # keys that could not be read

    @property
    def id(self) -> str:
        return self.row.text("id")

    @property
    def name(self) -> str:
        return self.row.text("name")

    @property
    def kind(self) -> str:
        return self.row.text("channel_type")

    @property
    def is_aggregate(self) -> bool:
        return self.row.text("group_type") == "aggregate"

    @property
    def renamed(self) -> dict[str, str]:
        """Upstream names by the names that clients use."""
        found = self.row.object("model_redirect_rules")
        return {name: text_of(target) for name, target in found.items() if name and text_of(target)}


class Version1:
    """A database of GPT-Load 1. `key`: its ENCRYPTION_KEY; empty: it has none, or it is not at hand."""

    program = "gpt-load"
    title = "GPT-Load"

    def __init__(self, database: Database, key: str) -> None:
        self._db = database
        self._sealed = Sealed(key, 1)

    # -- reading -----------------------------------------------------------------------------------------------------

    @cached_property
    def _groups(self) -> dict[str, _Group]:
        found = {row.text("id"): _Group(row) for row in self._db.rows("groups", _GROUP)}
        members: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for row in self._db.rows("group_sub_groups", ("group_id", "sub_group_id", "weight")):
            if row.whole("weight") > 0 and row.text("sub_group_id") in found:
                members[row.text("group_id")].append((row.text("sub_group_id"), row.whole("weight")))
        for group in found.values():
            group.subgroups = tuple(members[group.id])
        for row in self._db.rows("api_keys", ("key_value", "group_id", "status", "notes")):
            self._add_key(found.get(row.text("group_id")), row)
        return found

    def _add_key(self, group: _Group | None, row: Row) -> None:
        if group is None:
            return
        try:
            secret = self._sealed.open(row.text("key_value"))
        except Locked:
            group.locked += 1
            return
        if secret:
            failed = (
                "GPT-Load took it out of service: the upstream refused it." if row.text("status") == "invalid" else ""
            )
            group.keys.append(SourceKey(secret=secret, label=row.text("notes"), failed=failed))

    @cached_property
    def _logged(self) -> dict[str, set[str]]:
        """Models that were asked for with success, by group."""
        found: dict[str, set[str]] = defaultdict(set)
        for row in self._db.rows("request_logs", ("group_id", "model", "is_success")):
            if row.flag("is_success") and (model := row.text("model")):
                found[row.text("group_id")].add(model)
        return found

    def _models_of(self, group: _Group) -> dict[str, str]:
        """Upstream names by public name; empty: the same."""
        if group.is_aggregate or group.kind not in PROVIDERS:
            return {}
        found = dict(group.renamed)
        tested = group.row.text("test_model")
        if not group.row.flag("model_redirect_strict"):
            for name in (tested, *sorted(self._logged.get(group.id, ()))):
                if name and name not in found:
                    found[name] = ""
        return found

    @property
    def shown(self) -> str:
        return self._db.shown

    # -- what holds for the whole ------------------------------------------------------------------------------------

    def about(self) -> Sequence[Remark]:
        return [
            Remark(
                "Clients named a group in the address, /proxy/GROUP/v1. Here they ask /v1 for a model, whatever group "
                "it is of: set their address anew."
            ),
            Remark(
                "Groups passed on every model. Those that are tested, renamed or in the log are carried over: fetch "
                "the list of models of each channel for the others."
            ),
            Remark("It has no prices and no balances: set prices, or let models without one be served.", Level.NOTE),
        ]

    def groups(self) -> Iterator[SourceGroup]:
        for group in self._groups.values():
            if not group.is_aggregate:
                yield SourceGroup(id=group.id, name=f"gpt-load {group.name}", description=group.row.text("description"))

    def users(self) -> Iterator[SourceUser]:
        for account, groups in self._accounts.items():
            names = ", ".join(self._groups[one].name for one in groups)
            name = "gpt-load" if account == EVERY else f"gpt-load-{names.replace(', ', '-')}"
            what = "The account of keys of all groups" if account == EVERY else f"The account of keys of {names}"
            members = dict.fromkeys(
                one
                for group in (self._groups if account == EVERY else groups)
                for one in self._standard(self._groups[group])
            )
            remark = Remark(f"{what}: GPT-Load has no users.", Level.NOTE)
            yield SourceUser(
                id=account,
                name=name[:150],
                signs_in=False,
                groups=tuple(members),
                balance=None,
                notes=f"{what}, from GPT-Load",
                remarks=(remark,),
            )

    def _standard(self, group: _Group) -> tuple[str, ...]:
        """The groups with keys that a group stands for: itself, or those of an aggregate one."""
        return tuple(one for one, _weight in group.subgroups) if group.is_aggregate else (group.id,)

    # -- channels ----------------------------------------------------------------------------------------------------

    def models(self) -> Iterator[SourceModel]:
        may: dict[str, list[str]] = {}
        for group in self._groups.values():
            for name in self._models_of(group):
                may.setdefault(name, []).append(group.id)
        for name, groups in may.items():
            remarks = []
            if len(groups) > 1:
                text = (
                    f"{len(groups)} groups serve it: requests are spread over their channels, whatever group was named."
                )
                remarks.append(Remark(text))
            yield SourceModel(id=name, name=name, groups=tuple(groups), remarks=tuple(remarks))

    def channels(self) -> Iterator[SourceChannel]:
        shares: dict[str, list[int]] = defaultdict(list)
        for group in self._groups.values():
            for one, weight in group.subgroups:
                shares[one].append(weight)
        for group in self._groups.values():
            if not group.is_aggregate:
                yield from self._channels_of(group, shares.get(group.id, []))

    def _channels_of(self, group: _Group, shares: Sequence[int]) -> Iterator[SourceChannel]:
        base = SourceChannel(id=f"{group.id}:1", name=f"gpt-load {group.name}")
        if group.kind not in PROVIDERS:
            yield replace(base, left_out=f"This portal knows no type “{group.kind[:40]}” of GPT-Load.")
            return
        provider = PROVIDERS[group.kind]
        kept, remarks = self._rules(group, provider)
        remarks += _config_remarks(group.row)
        if group.locked:
            text = f"{group.locked} of its keys are encrypted: set GPT-Load's ENCRYPTION_KEY, and import again."
            remarks.append(Remark(text, Level.LEFT_OUT))
        share = 1
        if shares:
            share = shares[0]
            if len(set(shares)) > 1:
                remarks.append(Remark("Aggregate groups give it different shares: it has that of the first one."))
        config = group.row.object("config")
        for number, (address, weight) in enumerate(_upstreams(group.row), 1):
            yield replace(
                base,
                id=f"{group.id}:{number}",
                name=base.name if number == 1 else f"{base.name} {number}",
                provider=provider,
                base_url=base_url(group.kind, address, group.row.text("validation_endpoint")),
                keys=tuple(group.keys),
                routes=tuple(SourceRoute(model=name, upstream=to) for name, to in self._models_of(group).items()),
                groups=(group.id,),
                weight=max(1, weight * share),
                proxy_url=text_of(config.get("proxy_url")),
                in_turn=True,
                overrides=kept,
                test_model=group.row.text("test_model"),
                text_api=text_api(group.kind, address),
                notes=group.row.text("display_name") or group.row.text("description"),
                remarks=tuple(remarks) if number == 1 else (),
            )

    def _rules(self, group: _Group, provider: str) -> tuple[tuple[Mapping[str, Any], ...], list[Remark]]:
        listed = json_of(group.row.get("header_rules"))
        headers = [rule for rule in listed if isinstance(rule, dict)] if isinstance(listed, list) else []
        fixed = [rule for rule in headers if "${" not in text_of(rule.get("value"))]
        found = [
            *rules.parameters(group.row.object("param_overrides")),
            *rules.set_headers(
                (text_of(one.get("key")), text_of(one.get("value"))) for one in fixed if one.get("action") == "set"
            ),
            *rules.removed_headers(text_of(one.get("key")) for one in fixed if one.get("action") == "remove"),
        ]
        kept, remarks = rules.usable(found, provider)
        for rule in headers:
            if rule not in fixed:
                text = f"Its header “{text_of(rule.get('key'))[:60]}” has variables, which headers here have not."
                remarks.append(Remark(text, Level.LEFT_OUT))
        return kept, remarks

    def prices(self) -> Iterator[SourcePrice]:
        yield from ()

    # -- keys --------------------------------------------------------------------------------------------------------

    @cached_property
    def _keys(self) -> dict[str, tuple[str, ...]]:
        """The groups that each proxy key opens, by the key; none named: all."""
        every: list[str] = []
        for row in self._db.rows("system_settings", ("setting_key", "setting_value")):
            if row.text("setting_key") == "proxy_keys":
                every = texts_of(row.get("setting_value"))
        found: dict[str, list[str]] = {}
        for group in self._groups.values():
            for key in texts_of(group.row.get("proxy_keys")):
                found.setdefault(key, []).append(group.id)
        return {**{key: tuple(groups) for key, groups in found.items()}, **dict.fromkeys(every, ())}

    @cached_property
    def _accounts(self) -> dict[str, tuple[str, ...]]:
        """An account for each set of groups that keys open."""
        return {_account(groups): groups for groups in self._keys.values()}

    def tokens(self) -> Iterator[SourceToken]:
        counts: dict[str, int] = defaultdict(int)
        for key, groups in self._keys.items():
            account = _account(groups)
            counts[account] += 1
            name = ", ".join(self._groups[one].name for one in groups) or "All groups"
            digest = hashlib.sha256(key.encode()).hexdigest()[:24]
            yield SourceToken(id=digest, name=f"{name[:50]} {counts[account]}", user=account, secret=key)

    def codes(self) -> Iterator[SourceCode]:
        yield from ()

    # -- the log -----------------------------------------------------------------------------------------------------

    def usage(self, after: int) -> Iterator[UsageChunk]:
        """Numbers of requests, by the time of each in milliseconds. The log has no tokens and no cost, and does not say
        with which proxy key a request came: all are the account's of all groups.
        """
        days, chunk = Days(settings.TIME_ZONE), UsageChunk(mark=after)
        until = int((clock.now().timestamp() - _SETTLED) * 1000)
        wanted = ("timestamp", "group_id", "model", "is_success", "request_type")
        for row in self._db.rows("request_logs", wanted):
            moment, group = row.moment("timestamp"), row.text("group_id")
            at = int(moment.timestamp() * 1000) if moment is not None else 0
            if not after < at <= until or row.text("request_type", "final") != "final":
                continue
            user = next((one for one in (EVERY, group) if one in self._accounts), "")
            found = chunk.sums[UsageKey(days.of(at / 1000), user, "", f"{group}:1", row.text("model"))]
            failed = not row.flag("is_success")
            found.requests += 1
            found.failed += failed
            found.faults += failed
            chunk.rows += 1
            chunk.mark = max(chunk.mark, at)
        if chunk.rows:
            yield chunk

    def close(self) -> None:
        self._db.close()


def _account(groups: Sequence[str]) -> str:
    """The id of the account of keys that open these groups."""
    return "+".join(groups) or EVERY


def _upstreams(row: Row) -> Iterator[tuple[str, int]]:
    listed = json_of(row.get("upstreams"))
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and text_of(entry.get("url")):
            weight = whole_of(entry.get("weight"), 1)
            if weight > 0:
                yield text_of(entry.get("url")), weight


def _config_remarks(row: Row) -> list[Remark]:
    names = [name for name in row.object("config") if name.endswith(("_timeout", "_retries", "_threshold", "_codes"))]
    if not names:
        return []
    return [Remark(f"Its own {', '.join(sorted(names))[:150]} are settings of the whole portal here.", Level.LEFT_OUT)]
