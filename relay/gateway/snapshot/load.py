"""Loads the configuration from the database into views. Synchronous: called in threads, never on the event loop."""

from __future__ import annotations

import logging
from datetime import datetime
from decimal import Decimal
from typing import Final

import httpx
from django.conf import settings
from django.db.models import Q

from accounts.models import GroupSettings, Limited, User
from accounts.rights import may
from accounts.transactions import consistent_read
from portal.lib import clock, money, net
from portal.lib.crypto import Undecryptable
from relay.billing.ledger.lines import BudgetLine
from relay.billing.prices import ONE, Price, PriceList
from relay.error_texts import own_remedies
from relay.gateway.limits.windows import Check, Limits, Subject, checks
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.snapshot import Snapshot
from relay.gateway.snapshot.views import (
    ChannelView,
    DisabledKey,
    GroupView,
    KeyView,
    ModelView,
    PoolView,
    Route,
    Timeouts,
)
from relay.models import (
    AllowedUpstream,
    ApiKey,
    BlockedAddress,
    Budget,
    Channel,
    ChannelModel,
    FailureRule,
    LedgerAccount,
    Model,
    ModelPermission,
    ModelPrice,
    Token,
)
from relay.models.channel import KeyGivenElsewhere
from relay.models.price import CLASSES, PricePurpose
from relay.providers.apis import FAMILIES
from relay.providers.parameters import policy_of
from relay.providers.vendors import VENDORS
from relay.transport.body import request_headers

logger: Final = logging.getLogger(__name__)
_NEVER: Final = float("inf")


_logged: Final[set[str]] = set()


def _log_once(problem: str) -> None:
    """Log a fault of the configuration once, not at every load."""
    if problem not in _logged:
        _logged.add(problem)
        logger.error("%s", problem)


def load_snapshot() -> Snapshot:
    """The configuration at one moment. 12 queries, independent of its size."""
    with consistent_read():
        return _load_snapshot()


def _load_snapshot() -> Snapshot:
    allowed = AllowedUpstream.allowances()
    keys: dict[int, list[ApiKey]] = {}
    for key in ApiKey.objects.filter(channel__enabled=True):
        keys.setdefault(key.channel_id, []).append(key)
    enabled = Channel.objects.filter(enabled=True).select_related("pool").prefetch_related("groups")
    channels = {channel.pk: _channel(channel, keys.get(channel.pk, []), allowed) for channel in enabled}
    prices = _prices()
    routes: dict[int, list[Route]] = {}
    for link in ChannelModel.objects.filter(enabled=True, channel__enabled=True).select_related("model"):
        here = (link.model_id, link.channel_id)
        route = Route(
            channels[link.channel_id],
            link.upstream_name or link.model.name,
            prices.get((*here, PricePurpose.SALE)),
            prices.get((*here, PricePurpose.COST)),
        )
        routes.setdefault(link.model_id, []).append(route)
    users: dict[int, dict[int, float]] = {}
    groups: dict[int, dict[int, float]] = {}
    for permission in ModelPermission.objects.all():
        until = permission.expires_at.timestamp() if permission.expires_at else _NEVER
        if permission.user_id is not None:
            users.setdefault(permission.model_id, {})[permission.user_id] = until
        elif permission.group_id is not None:
            groups.setdefault(permission.model_id, {})[permission.group_id] = until
    models = list(Model.objects.all())
    views = {
        model.name: ModelView(
            id=model.pk,
            name=model.name,
            owned_by=model.owned_by or "airelays",
            created=int(model.created_at.timestamp()),
            is_open=model.is_open,
            context_window=model.context_window,
            max_output_tokens=model.max_output_tokens,
            users=users.get(model.pk, {}),
            groups=groups.get(model.pk, {}),
            routes=tuple(routes.get(model.pk, ())),
            price=prices.get((model.pk, None, PricePurpose.SALE)),
            varied=any(route.price is not None for route in routes.get(model.pk, ())),
            checks=_checks("model", model.pk, "this model", model),
            strategy=model.strategy,
            sticky=model.sticky,
            abilities=model.known_abilities,
        )
        for model in models
        if model.enabled
    }
    group_views = {row.group_id: _group(row) for row in GroupSettings.objects.select_related("group")}
    return Snapshot(
        views,
        allowed,
        group_views,
        tuple(row.rule() for row in FailureRule.objects.filter(enabled=True)),
        own_remedies(),
        frozenset(model.name for model in models if not model.enabled),
    )


def _prices() -> dict[tuple[int, int | None, str], PriceList]:
    """Price lists by model, channel and purpose: current and future prices."""
    now = clock.now().timestamp()
    found: dict[tuple[int, int | None, str], list[Price]] = {}
    for row in ModelPrice.objects.all():
        found.setdefault((row.model_id, row.channel_id, row.purpose), []).append(price_view(row))
    lists = {}
    for key, prices in found.items():
        begun = max((price.since for price in prices if price.since <= now), default=0.0)
        lists[key] = PriceList.of([price for price in prices if price.since >= begun])
    return lists


def price_view(row: ModelPrice) -> Price:
    """A row of prices in nano-USD."""
    classes = {name: None if (usd := getattr(row, name)) is None else money.nano(usd) for name in CLASSES}
    return Price(
        id=row.pk,
        since=row.valid_from.timestamp(),
        above_tokens=row.above_tokens,
        input=classes["input"] or 0,
        output=classes["output"] or 0,
        cached_input=classes["cached_input"],
        cached_audio_input=classes["cached_audio_input"],
        cache_write=classes["cache_write"],
        reasoning=classes["reasoning"],
        audio_input=classes["audio_input"],
        audio_output=classes["audio_output"],
        image_input=classes["image_input"],
        call=classes["per_call"] or 0,
        image=classes["per_image"] or 0,
        second=classes["per_second"] or 0,
        character=classes["per_character"] or 0,
    )


def _limits(row: Limited) -> Limits:
    return Limits(row.max_rpm, row.max_tpm, row.max_rpd, row.max_concurrency)


def _checks(kind: str, pk: int, name: str, row: Limited) -> tuple[Check, ...]:
    return checks((Subject(f"{kind}:{pk}", name, _limits(row)),))


def _parts_per_million(factor: Decimal) -> int:
    return int((factor * ONE).to_integral_value())


def _group(row: GroupSettings) -> GroupView:
    member = Limits(row.member_rpm, row.member_tpm, row.member_rpd, row.member_concurrency)
    return GroupView(row.group_id, row.group.name, _parts_per_million(row.price_multiplier), _limits(row), member)


def _channel(channel: Channel, keys: list[ApiKey], allowed: tuple[net.Allowance, ...]) -> ChannelView:
    vendor, config = VENDORS[channel.provider], settings.CONFIG
    views = []
    disabled_keys = []
    for key in keys:
        if not key.enabled:
            continue
        if key.auto_disabled:
            at, next_test = (
                moment.timestamp() if moment else 0.0 for moment in (key.auto_disabled_at, key.next_test_at)
            )
            disabled_keys.append(
                DisabledKey(key.pk, str(key), key.auto_disabled, key.auto_disabled_reason, at, next_test)
            )
            continue
        try:
            headers = request_headers(vendor.credentials.headers(key.secret_for(channel)))
        except KeyGivenElsewhere:
            _log_once(
                f"API key {key.pk} of channel “{channel.name}” was given for another address and is not sent to this "
                "one; enter it again, or change the address back"
            )
            continue
        except Undecryptable:
            _log_once(
                f"API key {key.pk} of channel “{channel.name}” cannot be decrypted with the configured encryption "
                "keys; enter it again"
            )
            continue
        views.append(KeyView(key.pk, key.weight, headers, str(key), _checks("key", key.pk, "a key", key)))
    if not keys and not vendor.needs_key:  # with keys that are all disabled it is out of service, not without a key
        views.append(KeyView(0, 1, request_headers({})))
    refusal = channel.refusal(allowed)
    if refusal:
        _log_once(f"channel “{channel.name}” is not used: {refusal}")
    apis = vendor.served(channel.text_api)
    return ChannelView(
        id=channel.pk,
        name=channel.name,
        provider=channel.provider,
        urls={
            api: _url("https://invalid.invalid" if refusal else channel.effective_base_url, vendor.path(api))
            for api in apis
        },
        keys=tuple(views),
        priority=channel.priority,
        weight=channel.weight,
        groups=_only(channel.groups_limited, frozenset(group.pk for group in channel.groups.all())),
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
        cost_multiplier=_parts_per_million(channel.cost_multiplier),
        disconnect_policy=channel.disconnect_policy,
        checks=_checks("channel", channel.pk, "a channel", channel),
        pool=PoolView(channel.pool.pk, channel.pool.name, channel.pool.strategy) if channel.pool else None,
        key_strategy=channel.key_strategy,
        retry_unanswered=channel.retry_unanswered,
        disabled_keys=tuple(disabled_keys),
        policies={
            family: found
            for family in FAMILIES
            if (found := policy_of(vendor.parameters, channel.parameters or {}, family))
        },
        strips_nulls=vendor.strips_nulls,
        stores=vendor.stores,
        least_output=vendor.least_output,
        # Behind another address there is a server of another kind.
        late_system=vendor.late_system and vendor.base_url in {"", channel.effective_base_url},
        reasoning=vendor.reasoning,
        limits_thinking=vendor.limits_thinking,
        cost_member=vendor.cost_member,
    )


def _only(limited: bool, ids: frozenset[int]) -> frozenset[int] | None:
    """The ids that something is limited to, None: it is not limited.

    An empty list means nothing where there was a limit: its rows go with what they name.
    """
    return ids if limited or ids else None


def _url(base: str, path: str) -> httpx.URL:
    """Join a base URL and a path; each `/..` at the beginning of the path removes a segment of the base."""
    while path.startswith("/../"):
        base, path = base.rpartition("/")[0], path[3:]
    return httpx.URL(base + path)


def load_caller(digest: str) -> Caller | None:
    """The caller of a token's digest, or None when there is no such token. 5 queries."""
    token = Token.objects.select_related("user").filter(digest=digest, revoked_at__isnull=True).first()
    return caller_from_token(token) if token is not None else None


def caller_from_token(token: Token) -> Caller:
    """The caller of a token."""
    digest = token.digest
    allowed = frozenset(token.models_allowed.values_list("pk", flat=True))
    limited = {
        account.kind: account.limited
        for account in LedgerAccount.objects.filter(user=token.user_id, kind__in=("wallet", "quota")).exclude(
            ~Q(token=token.pk), kind="quota"
        )
    }
    budgets = tuple(
        BudgetLine(budget.token_id, budget.period, money.nano(budget.limit))
        for budget in Budget.objects.filter(Q(user=token.user_id) | Q(token=token.pk))
    )
    return Caller(
        digest=digest,
        token_id=token.pk,
        user_id=token.user_id,
        is_staff=may(token.user, "relay.view_channel"),
        groups=frozenset(token.user.groups.values_list("pk", flat=True)),
        token_enabled=token.enabled,
        user_enabled=token.user.is_active,
        expires_at=token.expires_at.timestamp() if token.expires_at else _NEVER,
        models=_only(token.models_limited, allowed),
        networks=net.parse_networks(token.allowed_ips),
        limited=limited.get("wallet", True) or limited.get("quota", False) or bool(budgets),
        house=not limited.get("wallet", True),
        budgets=budgets,
        limits=_limits(token),
        user_limits=_limits(token.user),
        purpose=token.purpose,
    )


def caller_from_user(user: User) -> Caller:
    """A user with a token without limits, for explanations."""
    return Caller(
        digest="",
        token_id=0,
        user_id=user.pk,
        is_staff=may(user, "relay.view_channel"),
        groups=frozenset(user.groups.values_list("pk", flat=True)),
        token_enabled=True,
        user_enabled=user.is_active,
        expires_at=_NEVER,
        models=None,
        networks=(),
    )


def load_blocks(now: datetime) -> dict[str, float]:
    """Blocked addresses and when each block ends, in seconds since 1970."""
    return {row.address: row.blocked_until.timestamp() for row in BlockedAddress.objects.filter(blocked_until__gt=now)}


def save_block(address: str, failures: int, until: datetime) -> None:
    """Save the block of an address for the admin and the other workers, and delete expired ones."""
    BlockedAddress.objects.filter(blocked_until__lte=clock.now()).delete()
    BlockedAddress.objects.update_or_create(address=address, defaults={"failures": failures, "blocked_until": until})
