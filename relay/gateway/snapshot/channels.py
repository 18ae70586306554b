"""Reads enabled channels and their keys into views. Synchronous, as `relay.gateway.snapshot.load` is.

A change of the configuration is often one row among thousands: a key that was taken out of service, a channel that was
tested. Rows that are as they were at the last reading keep their views, and their keys are not decrypted again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from operator import ne
from typing import Any, Final

import httpx
from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.models import Limited
from portal.lib import net
from portal.lib.crypto import Undecryptable
from relay.billing.prices import ONE
from relay.gateway.limits.windows import Check, Limits, Subject, checks
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.routes import Keys, Routes
from relay.gateway.snapshot.views import (
    ChannelView,
    DisabledKey,
    KeyView,
    PoolView,
    Route,
    Sealed,
    Signing,
    Timeouts,
)
from relay.models import ApiKey, Channel, Pool
from relay.providers.apis import FAMILIES
from relay.providers.credentials.contract import BadKey
from relay.providers.overrides.rules import BadOverrides, Overrides, read_overrides
from relay.providers.parameters import Policy, policy_of
from relay.providers.vendor import UNDOCUMENTED_SECONDS
from relay.providers.vendors import PRIVATE, VENDORS
from relay.transport.body import request_headers

logger: Final = logging.getLogger(__name__)
Row = tuple[Any, ...]


def _columns(model: type[models.Model], *left_out: str) -> list[str]:
    return [str(field.attname) for field in model._meta.concrete_fields if not field.attname.startswith(left_out)]


# All but what no view shows, so that a test or a balance changes no row. The id is the first.
_OF_CHANNELS: Final = _columns(Channel, "notes", "tags", "test", "listed_", "created_at", "updated_at")
_OF_KEYS: Final = _columns(ApiKey, "failed_tests", "balance", "created_at", "updated_at")
_CHANNEL_OF_KEY: Final = _OF_KEYS.index("channel_id")
# Keys that are decrypted when they are read, so that one that cannot be used is known at once. Of more than these each
# is decrypted when it is first used: ten thousand take a second.
_OPENED_AT_ONCE: Final = 100

_logged: Final[set[str]] = set()


def _log_once(problem: str) -> None:
    """Log a fault of the configuration once, not at every load."""
    if problem not in _logged:
        _logged.add(problem)
        logger.error("%s", problem)


@dataclass(frozen=True, slots=True)
class _Read:
    """A channel as it was read: its rows and what else its view depends on, and what was made of them."""

    depends: Row
    config: object
    digests: dict[int, int]  # of the rows of keys
    keys: dict[int, KeyView | DisabledKey | None]  # by id; None: it may not be used
    view: ChannelView


class ChannelViews:
    """The views of all enabled channels as they were read last."""

    def __init__(self) -> None:
        self._known: dict[int, _Read] = {}
        self._routes: dict[int, Routes] = {}  # by model

    def read(self, allowed: tuple[net.Allowance, ...]) -> dict[int, ChannelView]:
        """Read the channels by id, with 4 queries. Raises DatabaseError."""
        keys: dict[int, list[Row]] = {}
        everybodys = ~Q(provider__in=PRIVATE)  # a user's own are in `plans`, whatever their rows say
        for row in ApiKey.objects.filter(channel__enabled=True).values_list(*_OF_KEYS):
            keys.setdefault(row[_CHANNEL_OF_KEY], []).append(row)
        groups: dict[int, set[int]] = {}
        for channel_id, group_id in Channel.groups.through.objects.values_list("channel_id", "group_id"):
            groups.setdefault(channel_id, set()).add(group_id)
        pools = {row[0]: PoolView(*row) for row in Pool.objects.values_list("pk", "name", "strategy")}
        rows = list(Channel.objects.filter(everybodys, enabled=True).values_list(*_OF_CHANNELS))
        reads = []
        for row in rows:
            channel = Channel.from_db(None, _OF_CHANNELS, row)
            pool = pools.get(channel.pool_id) if channel.pool_id is not None else None
            depends = (row, pool, groups.get(channel.pk, set()), allowed)
            reads.append((channel, depends, self._fresh(channel, depends, keys.get(channel.pk, []))))
        at_once = sum(len(fresh) for _, _, fresh in reads) <= _OPENED_AT_ONCE
        known = {
            channel.pk: self._read(channel, depends, keys.get(channel.pk, []), {row[0] for row in fresh}, at_once)
            for channel, depends, fresh in reads
        }
        self._known = known
        return {pk: read.view for pk, read in known.items()}

    def _last(self, channel: Channel, depends: Row) -> _Read | None:
        """How a channel was read last, None: something else than its keys has changed."""
        last = self._known.get(channel.pk)
        return last if last is not None and last.depends == depends and last.config is settings.CONFIG else None

    def _fresh(self, channel: Channel, depends: Row, key_rows: list[Row]) -> list[Row]:
        """The rows of keys that are not as they were read last."""
        last = self._last(channel, depends)
        return key_rows if last is None else [row for row in key_rows if last.digests.get(row[0]) != hash(row)]

    def routes(self, found: dict[int, list[Route]]) -> dict[int, Routes]:
        """The routes of models with their tables, which are made again only for models whose routes have changed."""
        made = {}
        for model, routes in found.items():
            last = self._routes.get(model)
            if last is None or len(last) != len(routes) or any(map(ne, last, routes)):
                last = Routes(routes)
                last.prepare()
            made[model] = last
        self._routes = made
        return made

    def _read(self, channel: Channel, depends: Row, key_rows: list[Row], fresh: set[int], at_once: bool) -> _Read:
        last = self._last(channel, depends)
        if last is not None and not fresh and len(key_rows) == len(last.keys):
            return last
        keys: dict[int, KeyView | DisabledKey | None] = {}
        secrets = _Secrets(channel) if fresh else None
        for row in key_rows:
            pk = row[0]
            if last is not None and pk not in fresh:
                keys[pk] = last.keys[pk]
            elif secrets is not None:
                keys[pk] = _key(secrets, ApiKey.from_db(None, _OF_KEYS, row), at_once)
        _, pool, groups, allowed = depends
        view = channel_view(channel, list(keys.values()), pool, frozenset(groups), allowed)
        return _Read(depends, settings.CONFIG, {row[0]: hash(row) for row in key_rows}, keys, view)


def read_withdrawn(channel_id: int, key_id: int, allowed: tuple[net.Allowance, ...]) -> ChannelView | None:
    """A channel with this key alone, in service or not, for what was begun with them. None: the channel is gone.

    Without a key: it is gone, or may not be sent there.
    """
    channel = Channel.objects.filter(pk=channel_id).exclude(provider__in=PRIVATE).first()
    if channel is None:
        return None
    rows = ApiKey.objects.filter(pk=key_id, channel=channel_id)
    found = channel_view(channel, [_usable(_Secrets(channel), key) for key in rows], None, frozenset(), allowed)
    return found if all(key.id == key_id for key in found.keys) else replace(found, keys=())


def limits_of(row: Limited) -> Limits:
    return Limits(row.max_rpm, row.max_tpm, row.max_rpd, row.max_concurrency)


def checks_of(kind: str, pk: int, name: str, row: Limited) -> tuple[Check, ...]:
    return checks((Subject(f"{kind}:{pk}", name, limits_of(row)),))


def parts_per_million(factor: Decimal) -> int:
    return int((factor * ONE).to_integral_value())


def only(limited: bool, ids: frozenset[int]) -> frozenset[int] | None:
    """The ids that something is limited to, None: it is not limited.

    An empty list means nothing where there was a limit: its rows go with what they name.
    """
    return ids if limited or ids else None


class _Secrets:
    """How requests to a channel are signed, whatever its key."""

    __slots__ = ("_credentials", "_uris", "destination", "headers", "name")

    def __init__(self, channel: Channel) -> None:
        self._credentials, self._uris = channel.vendor.credentials, settings.CONFIG.google_token_uris
        self.name = channel.name
        self.destination, self.headers = channel.key_destination(), own_headers(channel)

    def sign(self, pk: int, secret: str) -> Signing | None:
        """What signs requests with a secret, None: nothing does."""
        credentials = self._credentials
        try:
            headers = request_headers({**self.headers, **credentials.headers(secret)})
            return headers, credentials.signer(secret, self._uris)
        except BadKey as bad:
            _log_once(f"API key {pk} of channel “{self.name}” is not used. {bad}")
            return None


class _SealedKey(Sealed):
    """A key as it is stored, for the address that it was given for."""

    __slots__ = ("_pk", "_sealed", "_secrets")

    def __init__(self, secrets: _Secrets, key: ApiKey) -> None:
        self._secrets, self._pk, self._sealed = secrets, key.pk, key.sealed

    def open(self) -> Signing | None:
        try:
            secret = ApiKey(pk=self._pk, sealed=self._sealed).secret_to_compare()
        except Undecryptable:
            _log_once(
                f"API key {self._pk} of channel “{self._secrets.name}” cannot be decrypted with the configured "
                "encryption keys; enter it again"
            )
            return None
        return self._secrets.sign(self._pk, secret)


def _key(secrets: _Secrets, key: ApiKey, at_once: bool = True) -> KeyView | DisabledKey | None:
    if not key.enabled:
        return None
    if key.auto_disabled:
        at, next_test = (moment.timestamp() if moment else 0.0 for moment in (key.auto_disabled_at, key.next_test_at))
        return DisabledKey(key.pk, str(key), key.auto_disabled, key.auto_disabled_reason, at, next_test, key.weight)
    return _usable(secrets, key, at_once)


def _usable(secrets: _Secrets, key: ApiKey, at_once: bool = True) -> KeyView | None:
    """A key as requests are signed with it, None: it may not be, or cannot. `at_once`: that is found out now."""
    if not key.given_for or key.given_for != secrets.destination:
        _log_once(
            f"API key {key.pk} of channel “{secrets.name}” was given for another address and is not sent to this "
            "one; enter it again, or change the address back"
        )
        return None
    found = KeyView(key.pk, key.weight, _SealedKey(secrets, key), str(key), checks_of("key", key.pk, "a key", key))
    return found if not at_once or found.usable else None


def channel_view(
    channel: Channel,
    keys: list[KeyView | DisabledKey | None],
    pool: PoolView | None,
    groups: frozenset[int],
    allowed: tuple[net.Allowance, ...],
) -> ChannelView:
    vendor, config = VENDORS[channel.provider], settings.CONFIG
    views = [key for key in keys if isinstance(key, KeyView)]
    if not keys and not vendor.needs_key:  # with keys that are all disabled it is out of service, not without a key
        views.append(KeyView(0, 1, request_headers(own_headers(channel))))
    overrides, fault = _overrides(channel)
    refusal = channel.refusal(allowed) or fault
    if refusal:
        _log_once(f"channel “{channel.name}” is not used: {refusal}")
    apis = vendor.served(channel.text_api)
    base = "https://invalid.invalid" if refusal else channel.effective_base_url
    return ChannelView(
        id=channel.pk,
        name=channel.name,
        provider=channel.provider,
        urls=_urls(base, tuple((api, vendor.path(api)) for api in apis)),
        stream_urls=_urls(base, tuple((api, path) for api, path in vendor.stream_paths.items() if api in apis)),
        keys=Keys.made(views, [(key.id, key.weight) for key in keys if isinstance(key, DisabledKey)]),
        priority=channel.priority,
        weight=channel.weight,
        groups=only(channel.groups_limited, groups),
        proxy=channel.proxy_url,
        sends_done=channel.sends_done and vendor.sends_done,
        stream_usage=channel.stream_usage and vendor.stream_usage,
        timeouts=Timeouts(
            connect=channel.connect_timeout or config.connect_timeout,
            first_byte=channel.first_byte_timeout or config.first_byte_timeout,
            idle=channel.idle_timeout or config.idle_timeout,
            total=channel.total_timeout or config.total_timeout,
        ),
        refusal=refusal,
        output_field=vendor.output_field,
        cost_multiplier=parts_per_million(channel.cost_multiplier),
        disconnect_policy=channel.disconnect_policy,
        checks=checks_of("channel", channel.pk, "a channel", channel),
        pool=pool,
        key_strategy=channel.key_strategy,
        retry_unanswered=channel.retry_unanswered,
        disabled_keys=tuple(key for key in keys if isinstance(key, DisabledKey)),
        policies=_policies(channel.provider, json.dumps(channel.parameters or {})),
        overrides=overrides,
        strips_nulls=vendor.strips_nulls,
        stores=vendor.stores,
        least_output=vendor.least_output,
        # Behind another address there is a server of another kind.
        cache_marks=vendor.cache_marks,
        cache_seconds=vendor.cache_at(channel.effective_base_url).seconds or UNDOCUMENTED_SECONDS,
        late_system=vendor.late_system and vendor.base_url in {"", channel.effective_base_url},
        reasoning=vendor.reasoning,
        limits_thinking=vendor.limits_thinking,
        cost_member=vendor.cost_member,
        model_apis=vendor.apis_by_model(channel.text_api),
        may_be_relay=_may_be_relay(channel),
    )


@lru_cache(maxsize=1_000)
def _policies(provider: str, own: str) -> Mapping[str, Policy]:
    """What to do with parameters, by family of APIs; the same object for all channels with the same rules of their
    own, since it is large.
    """
    vendors, rules = VENDORS[provider].parameters, json.loads(own)
    return {family: found for family in FAMILIES if (found := policy_of(vendors, rules, family))}


def _overrides(channel: Channel) -> tuple[Overrides | None, str]:
    """What a channel changes in requests, and why that cannot be used, empty when it can.

    Rules are checked when they are saved, so that others were written past the form.
    """
    try:
        return read_overrides(channel.overrides, channel.vendor.credentials.header), ""
    except BadOverrides as error:
        return None, f"its overrides cannot be used: {error}"


def own_headers(channel: Channel) -> Mapping[str, str]:
    """The headers of every request to a channel, but for its key."""
    found, _ = _overrides(channel)
    headers: Mapping[str, str] = channel.vendor.headers
    if _may_be_relay(channel):
        headers = {**headers, hops.HEADER: hops.own_id()}
    return found.headers(headers) if found is not None else headers


def _may_be_relay(channel: Channel) -> bool:
    """Whether another relay may be behind a channel: it is said to be one, or has another address than its vendor.

    The addresses of vendors that have one for each customer differ in what is the customer's own, and no more.
    """
    vendor, address = channel.vendor, channel.effective_base_url
    if vendor.relay or vendor.built_in:
        return vendor.relay
    if vendor.base_url:
        return net.origin(vendor.base_url) != net.origin(address)
    domain = vendor.address_form.removeprefix("https://").partition("/")[0].split(".")[-2:]
    return httpx.URL(address).host.split(".")[-2:] != domain


@lru_cache(maxsize=4_000)
def _urls(base: str, paths: tuple[tuple[str, str], ...]) -> Mapping[str, httpx.URL]:
    """The addresses of APIs, the same object for all channels with the same ones."""
    return {api: _url(base, path) for api, path in paths}


def _url(base: str, path: str) -> httpx.URL:
    """Join a base URL and a path; each `/..` at the beginning of the path removes a segment of the base."""
    while path.startswith("/../"):
        base, path = base.rpartition("/")[0], path[3:]
    return httpx.URL(base + path)
