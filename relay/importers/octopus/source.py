"""Octopus's database, as a source of an import: from version 0.9, whose channels have several keys and addresses, to
0.11, whose channels have one of each.

Its one user owns all keys, which are limited by what they may spend.

Source: the models, migrations and price module of Octopus 0.9.9, 0.9.28 and 0.11.0, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings

from portal.lib import clock
from portal.lib.days import Days
from relay.importers.description import (
    Level,
    Remark,
    Role,
    SourceChannel,
    SourceCode,
    SourceGroup,
    SourceKey,
    SourceModel,
    SourcePrice,
    SourceToken,
    SourceUnreadable,
    SourceUser,
)
from relay.importers.octopus import routing
from relay.importers.reading import rules
from relay.importers.reading.database import Database, open_database
from relay.importers.reading.row import Row, json_of, nano_of, object_of, text_of, texts_of, whole_of
from relay.importers.usage_sums import UsageChunk, UsageKey
from relay.providers.vendors import VENDORS

_USD: Final = Decimal(1)
# Types as they were written from version to version, the vendor here, and the API that it is asked by.
_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("0", "openai/chat_completions", "openai"), ("openai", "chat")),
    **dict.fromkeys(("1", "openai/responses", "openai_responses"), ("openai", "responses")),
    **dict.fromkeys(("2", "anthropic/messages", "anthropic"), ("anthropic", "")),
    **dict.fromkeys(("3", "gemini/contents", "gemini"), ("gemini", "")),
    **dict.fromkeys(("4", "doubao", "volcengine"), ("volcengine", "responses")),
    **dict.fromkeys(("5", "openai/embeddings"), ("openai", "chat")),
}
_COMPLETE: Final = "##"  # the end of an address that has its version path already
_CHANNEL: Final = (
    "name", "type", "enabled", "base_urls", "base_url", "key", "model", "custom_model", "proxy", "custom_header",
    "param_override", "channel_proxy", "match_regex",
)  # fmt: skip
_KEPT: Final = ("model", "stream")  # parameters that Octopus never overrides
_PRICES: Final = (
    ("input", "input"),
    ("output", "output"),
    ("cache_read", "cached_input"),
    ("cache_write", "cache_write"),
)
_SETTLED: Final = 600  # seconds after which a request is surely in the log


class Octopus:
    """One installation of Octopus."""

    program = "octopus"
    title = "Octopus"

    def __init__(self, database: Database) -> None:
        self._db = database

    # -- reading -----------------------------------------------------------------------------------------------------

    @cached_property
    def _groups(self) -> dict[str, routing.Group]:
        wanted = ("name", "mode", "match_regex", "active_item_id")
        items = self._db.rows("group_items", ("group_id", "channel_id", "model_name", "priority", "weight"))
        return routing.read_groups(self._db.rows("groups", wanted), items)

    @cached_property
    def _keys(self) -> dict[str, list[SourceKey]]:
        """Keys of channels that have them in a table of their own."""
        found: dict[str, list[SourceKey]] = {}
        for row in self._db.rows("channel_keys", ("channel_id", "enabled", "channel_key", "remark")):
            if secret := row.text("channel_key"):
                key = SourceKey(secret=secret, label=row.text("remark"), enabled=row.flag("enabled"))
                found.setdefault(row.text("channel_id"), []).append(key)
        return found

    @cached_property
    def _owner(self) -> str:
        """The id of the only user."""
        return next((row.text("id") for row in self._db.rows("users", ())), "1")

    @cached_property
    def _proxy(self) -> str:
        for row in self._db.rows("settings", ("value",), key="key"):
            if row.text("key") == "proxy_url":
                return row.text("value")
        return ""

    @property
    def shown(self) -> str:
        return self._db.shown

    # -- what holds for the whole ------------------------------------------------------------------------------------

    def about(self) -> Sequence[Remark]:
        found = [
            Remark("Groups of Octopus are models here; its channels keep one place in the order for all of them."),
            Remark("A price of 0 for reading or writing a cache counts as none: those tokens cost what others do."),
        ]
        if not self._db.has("groups"):
            found.append(Remark("There is no table groups: no model is carried over.", Level.LEFT_OUT))
        return found

    def groups(self) -> Iterator[SourceGroup]:
        yield from ()

    def users(self) -> Iterator[SourceUser]:
        seen = False
        for row in self._db.rows("users", ("username", "password")):
            seen = True
            yield SourceUser(
                id=row.text("id"),
                name=row.text("username"),
                role=Role.OWNER,
                password=row.text("password"),
                balance=None,
            )
        if not seen:
            yield SourceUser(id=self._owner, name="octopus", role=Role.OWNER, balance=None)

    # -- channels ----------------------------------------------------------------------------------------------------

    def models(self) -> Iterator[SourceModel]:
        yield from routing.models(self._groups.values(), (self._owner,))

    def channels(self) -> Iterator[SourceChannel]:
        places = routing.places(self._groups.values())
        for row in self._db.rows("channels", _CHANNEL):
            yield from self._channel(row, places.get(row.text("id"), routing.Place()))

    def _channel(self, row: Row, place: routing.Place) -> Iterator[SourceChannel]:
        channel, kind = row.text("id"), row.text("type")
        base = SourceChannel(id=channel, name=row.text("name"))
        if kind not in _TYPES:
            yield replace(base, left_out=f"This portal knows no type “{kind[:40]}” of Octopus.")
            return
        provider, text_api = _TYPES[kind]
        kept, remarks = rules.usable(_rules(row), provider)
        remarks = [*place.remarks, *remarks]
        if not place.routes:
            remarks.append(Remark("It is in no group, so that it answers for no model here.", Level.NOTE))
        keys = self._keys.get(channel, [])
        if secret := row.text("key"):
            keys = [*keys, *([] if any(one.secret == secret for one in keys) else [SourceKey(secret=secret)])]
        addresses = _addresses(row)
        if len(addresses) > 1:
            text = f"Of its {len(addresses)} addresses the fastest is carried over: a channel here has one."
            remarks.append(Remark(text, Level.LEFT_OUT))
        base_url = _base_url(provider, addresses[0] if addresses else "")
        official = provider == "openai" and not base_url
        yield replace(
            base,
            provider=provider,
            base_url=base_url,
            keys=tuple(keys),
            routes=tuple(place.routes),
            priority=place.priority,
            weight=place.weight,
            enabled=row.flag("enabled"),
            proxy_url=(row.text("channel_proxy") or self._proxy) if row.flag("proxy") else "",
            overrides=kept,
            text_api="" if official and text_api == "chat" else text_api,
            remarks=tuple(remarks),
        )

    def prices(self) -> Iterator[SourcePrice]:
        """Prices of upstream models, which there are by their names in lower case, for the groups that they answer."""
        known = {
            row.text("name").lower(): {name: row.number(column) for column, name in _PRICES}
            for row in self._db.rows("llm_infos", [column for column, _name in _PRICES], key="name")
        }
        for group in self._groups.values():
            members = [
                (member, known[member.upstream.lower()]) for member in group.serving if member.upstream.lower() in known
            ]
            if not members:
                continue
            if all(usd == members[0][1] for _member, usd in members):
                yield SourcePrice(id=group.name, name=group.name, tiers=_tiers(members[0][1]))
                continue
            for member, usd in members:
                yield SourcePrice(
                    id=f"{group.name}@{member.channel}", name=group.name, channel=member.channel, tiers=_tiers(usd)
                )

    # -- keys --------------------------------------------------------------------------------------------------------

    @cached_property
    def _spent(self) -> dict[str, Decimal]:
        """USD that each key has spent."""
        return {
            row.text("api_key_id"): (row.number("input_cost") or Decimal(0)) + (row.number("output_cost") or Decimal(0))
            for row in self._db.rows("stats_api_keys", ("input_cost", "output_cost"), key="api_key_id")
        }

    def tokens(self) -> Iterator[SourceToken]:
        wanted = ("name", "api_key", "enabled", "expire_at", "max_cost", "supported_models")
        for row in self._db.rows("api_keys", wanted):
            most, models = row.number("max_cost") or Decimal(0), texts_of(row.get("supported_models"))
            left = max(Decimal(0), most - self._spent.get(row.text("id"), Decimal(0)))
            yield SourceToken(
                id=row.text("id"),
                name=row.text("name"),
                user=self._owner,
                secret=row.text("api_key"),
                enabled=row.flag("enabled"),
                expires_at=_moment(row.whole("expire_at")),
                quota=nano_of(left, _USD)[0] if most > 0 else None,
                models=tuple(models) if models else None,
            )

    def codes(self) -> Iterator[SourceCode]:
        yield from ()

    # -- the log -----------------------------------------------------------------------------------------------------

    def usage(self, after: int) -> Iterator[UsageChunk]:
        """Requests of the log, which versions up to 0.9 write; of later ones the sums of each day."""
        if self._db.has("relay_logs", "time"):
            yield from self._logged(after)
        else:
            yield from self._daily(after)

    def _logged(self, after: int) -> Iterator[UsageChunk]:
        days, names = Days(settings.TIME_ZONE), {}
        for row in self._db.rows("api_keys", ("name",)):
            names[row.text("name")] = "" if row.text("name") in names else row.text("id")
        wanted = (
            "time", "request_model_name", "request_api_key_name", "channel_id", "input_tokens", "output_tokens", "cost",
            "error",
        )  # fmt: skip
        for page in self._db.pages("relay_logs", wanted, after=after or None):
            chunk = UsageChunk(mark=page[-1].whole("id"))
            for row in page:
                ended = row.moment("time")
                if ended is None:
                    continue  # of no day
                key = UsageKey(
                    days.of(ended.timestamp()),
                    self._owner,
                    names.get(row.text("request_api_key_name"), ""),
                    row.text("channel_id"),
                    row.text("request_model_name"),
                )
                found, cost = chunk.sums[key], max(0, nano_of(row.get("cost"), _USD)[0])
                failed = bool(row.text("error"))
                found.requests += 1
                found.failed += failed
                found.faults += failed
                found.input += max(0, row.whole("input_tokens"))
                found.output += max(0, row.whole("output_tokens"))
                found.charged += cost
                found.upstream_cost += cost
                chunk.rows += 1
            yield chunk

    def _daily(self, after: int) -> Iterator[UsageChunk]:
        today, chunk = Days(settings.TIME_ZONE).of(clock.now().timestamp() - _SETTLED), UsageChunk(mark=after)
        wanted = ("input_token", "output_token", "input_cost", "output_cost", "request_success", "request_failed")
        for row in self._db.rows("stats_dailies", wanted, key="date"):
            day = _day(row.text("date"))
            if not after < day < today:
                continue
            found = chunk.sums[UsageKey(day, self._owner, "", "", "")]
            cost = sum(max(0, nano_of(row.get(name), _USD)[0]) for name in ("input_cost", "output_cost"))
            failed = max(0, row.whole("request_failed"))
            found.requests += max(0, row.whole("request_success")) + failed
            found.failed += failed
            found.faults += failed
            found.input += max(0, row.whole("input_token"))
            found.output += max(0, row.whole("output_token"))
            found.charged += cost
            found.upstream_cost += cost
            chunk.rows += 1
            chunk.mark = max(chunk.mark, day)
        if chunk.rows:
            yield chunk

    def close(self) -> None:
        self._db.close()


def open_source(program: str, address: str, logs: str = "") -> Octopus:
    """Open a database of Octopus. Raises SourceUnreadable."""
    database = open_database(address)
    if not (database.has("llm_infos") and database.has("channels") and database.has("group_items")):
        database.close()
        raise SourceUnreadable("This is no database of Octopus: it has none of its tables.")
    return Octopus(database)


def _addresses(row: Row) -> list[str]:
    """The addresses of a channel, the fastest first: the one with the shortest delay that was measured."""
    listed = json_of(row.get("base_urls"))
    found = [
        (whole_of(entry.get("delay")), text_of(entry.get("url")))
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, dict) and text_of(entry.get("url"))
    ]
    one = row.text("base_url")
    return [one] if one else [url for _delay, url in sorted(found, key=lambda entry: entry[0])]


def _base_url(provider: str, address: str) -> str:
    """An address as channels have it; empty where it is the vendor's own."""
    complete = address.endswith(_COMPLETE)
    address = address.removesuffix(_COMPLETE).rstrip("/")
    own = VENDORS[provider].base_url
    if address and not complete and urlsplit(address).path in ("", "/"):
        address += urlsplit(own).path
    return "" if address == own else address


def _rules(row: Row) -> Iterator[Mapping[str, Any]]:
    changed = object_of(row.get("param_override"))
    yield from rules.parameters({name: value for name, value in changed.items() if name not in _KEPT})
    listed = json_of(row.get("custom_header"))
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and (name := text_of(entry.get("header_key"))):
            yield from rules.set_headers([(name, text_of(entry.get("header_value")))])


def _tiers(usd: Mapping[str, Decimal | None]) -> tuple[tuple[int, Mapping[str, Decimal]], ...]:
    """A price: input and output, and what else has one."""
    classes = {name: value or Decimal(0) for name, value in usd.items() if value or name in ("input", "output")}
    return ((0, classes),)


def _moment(seconds: int) -> datetime | None:
    """When a key ends; None: never. A time before the year 2000 has passed as well."""
    if seconds <= 0:
        return None
    return datetime.fromtimestamp(min(seconds if seconds < 32_503_680_000 else seconds / 1000, 32_503_680_000), UTC)


def _day(text: str) -> int:
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).toordinal()
    except ValueError:
        return 0
