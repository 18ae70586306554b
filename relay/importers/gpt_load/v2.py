"""GPT-Load 2: groups with one upstream, their models and keys, and access keys with limits.

Source: the branch v2 of GPT-Load, whose schema has version 1, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import Final

from django.conf import settings

from portal.lib import clock, money
from portal.lib.days import Days
from relay.importers.description import (
    Level,
    Rates,
    Remark,
    SourceBudget,
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
from relay.importers.reading.row import Row, json_of, nano_of, object_of, text_of
from relay.importers.usage_sums import UsageChunk, UsageKey

_OWNER: Final = "all"
_USD: Final = Decimal(1)
_REMEDY: Final = "set GPT-Load's ENCRYPTION_KEY, or put its key file beside the database, and import again."
_SETTLED: Final = 600  # seconds after which a request is surely in the log
_PRICES: Final = (
    ("input_price", "input"),
    ("output_price", "output"),
    ("cache_read_price", "cached_input"),
    ("cache_write_5m_price", "cache_write"),
    ("cache_write_1h_price", "cache_write_1h"),
)
# Input tokens are those beside what a cache had.
_LOG: Final = (
    "created_at", "access_key_id", "client_model", "status_code", "input_tokens", "output_tokens", "cache_read_tokens",
    "cache_write_5m_tokens", "cache_write_1h_tokens", "cost",
)  # fmt: skip


class Version2:
    """A database of GPT-Load 2. `key`: its ENCRYPTION_KEY, or what its file `encryption.key` has."""

    program = "gpt-load"
    title = "GPT-Load 2"

    def __init__(self, database: Database, key: str) -> None:
        self._db = database
        self._sealed = Sealed(key, 2)

    # -- reading -----------------------------------------------------------------------------------------------------

    @cached_property
    def _groups(self) -> dict[str, Row]:
        wanted = (
            "name", "upstream_url", "protocols", "models", "weight_manual", "validation_model", "config", "enabled",
        )  # fmt: skip
        return {row.text("id"): row for row in self._db.rows("groups", wanted)}

    @cached_property
    def _keys(self) -> dict[str, tuple[list[SourceKey], int]]:
        """The keys of each group, and how many of them could not be read."""
        found: dict[str, tuple[list[SourceKey], int]] = {}
        wanted = ("group_id", "key_value", "status", "weight_manual")
        for row in self._db.rows("upstream_keys", wanted):
            keys, locked = found.get(row.text("group_id"), ([], 0))
            try:
                secret = self._sealed.open(row.text("key_value"))
                enabled = row.text("status", "active") == "active"
                keys.append(SourceKey(secret=secret, enabled=enabled, weight=max(1, row.whole("weight_manual", 1))))
            except Locked:
                locked += 1
            found[row.text("group_id")] = (keys, locked)
        return found

    @cached_property
    def _settings(self) -> Mapping[str, str]:
        return {row.text("key"): row.text("value") for row in self._db.rows("system_settings", ("value",), key="key")}

    def _models_of(self, group: Row) -> dict[str, str]:
        """Upstream names by public name."""
        listed = json_of(group.get("models"))
        found: dict[str, str] = {}
        for entry in listed if isinstance(listed, list) else ():
            upstream = text_of(entry.get("id")) if isinstance(entry, dict) else ""
            if upstream:
                found.setdefault(text_of(entry.get("alias")) or upstream, upstream)
        return found

    @property
    def shown(self) -> str:
        return self._db.shown

    # -- what holds for the whole ------------------------------------------------------------------------------------

    def about(self) -> Sequence[Remark]:
        text = "Timeouts, health and automatic weights of GPT-Load have no counterpart: this portal has its own."
        return [Remark(text, Level.NOTE)]

    def groups(self) -> Iterator[SourceGroup]:
        """A group of users for each set of groups that access keys are limited to, besides all of them."""
        for group_id, row in self._groups.items():
            yield SourceGroup(id=group_id, name=f"gpt-load {row.text('name')}")

    @cached_property
    def _accounts(self) -> dict[str, tuple[str, ...]]:
        """The groups of each account: one account for each set of groups that access keys are limited to."""
        found: dict[str, tuple[str, ...]] = {}
        for row in self._db.rows("access_keys", ("filters",)):
            groups = self._groups_of(row)
            found[_account(groups)] = tuple(self._groups) if groups is None else groups
        return found

    def _groups_of(self, row: Row) -> tuple[str, ...] | None:
        """The groups that an access key is limited to; None: all."""
        listed = row.object("filters").get("groups")
        if not isinstance(listed, list) or not listed:
            return None
        return tuple(sorted({text_of(one) for one in listed} & set(self._groups)))

    def users(self) -> Iterator[SourceUser]:
        for account, groups in self._accounts.items():
            names = "-".join(self._groups[one].text("name") for one in groups)
            name = "gpt-load" if account == _OWNER else f"gpt-load-{names or 'nothing'}"
            remark = Remark("The account of access keys: GPT-Load has no users.", Level.NOTE)
            yield SourceUser(
                id=account,
                name=name[:150],
                signs_in=False,
                groups=groups,
                balance=None,
                notes="From GPT-Load",
                remarks=(remark,),
            )

    # -- channels ----------------------------------------------------------------------------------------------------

    def models(self) -> Iterator[SourceModel]:
        may: dict[str, list[str]] = {}
        for group_id, row in self._groups.items():
            for name in self._models_of(row):
                may.setdefault(name, []).append(group_id)
        for name, groups in may.items():
            yield SourceModel(id=name, name=name, groups=tuple(groups))

    def channels(self) -> Iterator[SourceChannel]:
        """A channel for each protocol of a group: a channel here speaks one, and others by conversion."""
        for group_id, row in self._groups.items():
            listed = json_of(row.get("protocols"))
            kinds = [text_of(one) for one in listed] if isinstance(listed, list) else []
            known = [kind for kind in kinds if kind in PROVIDERS and kind != "openai-response"]
            if not known:
                yield SourceChannel(
                    id=f"{group_id}:openai", name=row.text("name"), left_out="It has no known protocol."
                )
            for kind in known:
                yield self._channel(group_id, row, kind, len(known) > 1)

    def _channel(self, group_id: str, row: Row, kind: str, several: bool) -> SourceChannel:
        provider = PROVIDERS[kind]
        keys, locked = self._keys.get(group_id, ([], 0))
        own = object_of(row.object("config").get("header_rules"))
        shared = object_of(self._settings.get("header_rules"))
        headers = object_of((own or shared).get("set"))
        removed = (own or shared).get("remove")
        kept, remarks = rules.usable(
            (
                *rules.set_headers((name, text_of(value)) for name, value in headers.items()),
                *rules.removed_headers(text_of(name) for name in (removed if isinstance(removed, list) else ())),
            ),
            provider,
        )
        if locked:
            text = f"{locked} of its keys are encrypted: {_REMEDY}"
            remarks.append(Remark(text, Level.LEFT_OUT))
        name = f"gpt-load {row.text('name')}"
        return SourceChannel(
            id=f"{group_id}:{kind}",
            name=f"{name} {kind}" if several else name,
            provider=provider,
            base_url=base_url(kind, row.text("upstream_url")),
            keys=tuple(keys),
            routes=tuple(SourceRoute(model=public, upstream=to) for public, to in self._models_of(row).items()),
            groups=(group_id,),
            weight=max(1, row.whole("weight_manual", 1)),
            enabled=row.flag("enabled"),
            overrides=kept,
            test_model=row.text("validation_model"),
            text_api=text_api(kind, row.text("upstream_url")),
            remarks=tuple(remarks),
        )

    def prices(self) -> Iterator[SourcePrice]:
        """Prices by patterns of upstream names: the first of the most exact ones that fits a model's route."""
        rows = list(self._db.rows("model_prices", ("pattern", *(column for column, _name in _PRICES))))
        rows.sort(key=lambda row: (-len(row.text("pattern").rstrip("*")), row.whole("id")))
        done = set()
        for group in self._groups.values():
            for public, upstream in self._models_of(group).items():
                found = next((row for row in rows if _fits(row.text("pattern"), upstream)), None)
                if found is not None and public not in done:
                    done.add(public)
                    usd = {name: found.number(column) for column, name in _PRICES}
                    classes = {name: value for name, value in usd.items() if value or name in ("input", "output")}
                    tiers = ((0, {name: value or Decimal(0) for name, value in classes.items()}),)
                    yield SourcePrice(id=public, name=public, tiers=tiers)

    # -- keys --------------------------------------------------------------------------------------------------------

    def tokens(self) -> Iterator[SourceToken]:
        wanted = ("name", "key_value", "status", "filters", "rpm_limit", "daily_cost_limit", "monthly_cost_limit")
        for row in self._db.rows("access_keys", wanted):
            base = SourceToken(id=row.text("id"), name=row.text("name"), user=_account(self._groups_of(row)))
            try:
                secret = self._sealed.open(row.text("key_value"))
            except Locked:
                text = f"It is encrypted: {_REMEDY}"
                yield replace(base, left_out=text)
                continue
            filters, remarks = row.object("filters"), []
            if filters.get("protocols"):
                remarks.append(Remark("It was limited to some protocols, which tokens here are not.", Level.LEFT_OUT))
            listed = filters.get("models")
            limits = (("day", row.get("daily_cost_limit")), ("month", row.get("monthly_cost_limit")))
            yield replace(
                base,
                secret=secret,
                enabled=row.text("status", "active") == "active",
                models=tuple(text_of(one) for one in listed) if isinstance(listed, list) and listed else None,
                rates=Rates(rpm=max(0, row.whole("rpm_limit")) or None),
                budgets=tuple(
                    SourceBudget(period, amount)
                    for period, value in limits
                    if 0 < (amount := nano_of(value, _USD)[0]) <= money.MOST_USD * money.NANO
                ),
                remarks=tuple(remarks),
            )

    def codes(self) -> Iterator[SourceCode]:
        yield from ()

    # -- the log -----------------------------------------------------------------------------------------------------

    def usage(self, after: int) -> Iterator[UsageChunk]:
        """Requests by their time in milliseconds, in one chunk: their ids have no order."""
        days, chunk = Days(settings.TIME_ZONE), UsageChunk(mark=after)
        until = int((clock.now().timestamp() - _SETTLED) * 1000)
        owners = {row.text("id"): _account(self._groups_of(row)) for row in self._db.rows("access_keys", ("filters",))}
        for row in self._db.rows("request_logs", _LOG):
            moment = row.moment("created_at")
            at = int(moment.timestamp() * 1000) if moment is not None else 0
            if not after < at <= until:
                continue
            token = row.text("access_key_id")
            key = UsageKey(
                days.of(at / 1000),
                owners.get(token, ""),
                token if token in owners else "",
                "",
                row.text("client_model"),
            )
            found, failed = chunk.sums[key], row.whole("status_code") >= 400
            cached = max(0, row.whole("cache_read_tokens"))
            written = max(0, row.whole("cache_write_5m_tokens")) + max(0, row.whole("cache_write_1h_tokens"))
            cost = max(0, nano_of(row.get("cost"), _USD)[0])
            found.requests += 1
            found.failed += failed
            found.faults += failed
            found.input += max(0, row.whole("input_tokens")) + cached + written
            found.cached += cached
            found.output += max(0, row.whole("output_tokens"))
            found.charged += cost
            found.upstream_cost += cost
            chunk.rows += 1
            chunk.mark = max(chunk.mark, at)
        if chunk.rows:
            yield chunk

    def close(self) -> None:
        self._db.close()


def _account(groups: Sequence[str] | None) -> str:
    """The id of the account of access keys that are limited to these groups; None: to none."""
    return _OWNER if groups is None else "groups:" + "+".join(groups)


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
