"""Loads the configuration from the database into views. Synchronous: called in threads, never on the event loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db.models import Q

from accounts.models import GroupSettings, User
from accounts.rights import may
from accounts.transactions import consistent_read
from portal.lib import clock, money, net
from relay.billing.ledger.lines import BudgetLine
from relay.billing.prices import Price, PriceList
from relay.error_texts import own_remedies
from relay.gateway.limits.windows import Limits
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.channels import (
    ChannelViews,
    checks_of,
    limits_of,
    only,
    parts_per_million,
    read_withdrawn,
)
from relay.gateway.snapshot.plans import read_plans
from relay.gateway.snapshot.routes import NO_ROUTES
from relay.gateway.snapshot.snapshot import Snapshot
from relay.gateway.snapshot.views import GroupView, ModelView, Route
from relay.models import (
    AllowedUpstream,
    BlockedAddress,
    Budget,
    ChannelModel,
    ChatGPTAccount,
    LedgerAccount,
    Model,
    ModelAlias,
    ModelPermission,
    ModelPrice,
    Token,
)
from relay.models.chatgpt_account import SignInState
from relay.models.failure_rule import rules_in_force
from relay.models.price import CLASSES, PricePurpose
from relay.models.token import digest_of_sha256, sha256_of
from relay.providers.vendors import BUILT_IN
from relay.tokens import lifecycle

_NEVER: Final = float("inf")


def load_snapshot(known: ChannelViews | None = None) -> Snapshot:
    """The configuration at one moment. 14 queries, independent of its size.

    `known`: channels as they were read last, which need not be made again where they have not changed.
    """
    with consistent_read():
        return _load_snapshot(known or ChannelViews())


def _load_snapshot(known: ChannelViews) -> Snapshot:
    allowed = AllowedUpstream.allowances()
    channels = known.read(allowed)
    prices = _prices()
    found: dict[int, list[Route]] = {}
    links = ChannelModel.objects.filter(enabled=True, channel__enabled=True, model__enabled=True)
    for model_id, channel_id, upstream_name, name in links.values_list(
        "model_id", "channel_id", "upstream_name", "model__name"
    ):
        if channel_id not in channels:  # it is a user's own, which no row puts into the list of a model
            continue
        route = Route(
            channels[channel_id].of_model(upstream_name or name),
            upstream_name or name,
            prices.get((model_id, channel_id, PricePurpose.SALE)),
            prices.get((model_id, channel_id, PricePurpose.COST)),
        )
        found.setdefault(model_id, []).append(route)
    routes = known.routes(found)
    users: dict[int, dict[int, float]] = {}
    groups: dict[int, dict[int, float]] = {}
    for model_id, user_id, group_id, expires_at in ModelPermission.objects.filter(model__enabled=True).values_list(
        "model_id", "user_id", "group_id", "expires_at"
    ):
        until = expires_at.timestamp() if expires_at else _NEVER
        if user_id is not None:
            users.setdefault(model_id, {})[user_id] = until
        elif group_id is not None:
            groups.setdefault(model_id, {})[group_id] = until
    rows = {model.name: model for model in Model.objects.all()}
    aliases = _aliases(rows)
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
            routes=routes.get(model.pk, NO_ROUTES),
            price=prices.get((model.pk, None, PricePurpose.SALE)),
            varied=any(route.price is not None for route in routes.get(model.pk, NO_ROUTES).tariffs),
            overridden=any(
                (rules := route.channel.overrides) is not None and rules.change_bodies
                for route in routes.get(model.pk, NO_ROUTES).examples
            ),
            checks=checks_of("model", model.pk, "this model", model),
            strategy=model.strategy,
            sticky=model.sticky,
            keeps_cache=model.keeps_cache,
            native_only=model.native_only,
            abilities=model.known_abilities,
            aliases=tuple(aliases.get(model.pk, ())),
            display_name=model.display_name,
            reasoning_levels=model.known_reasoning_levels,
            retires_on=model.retires_on,
        )
        for model in rows.values()
        if model.enabled
    }
    disabled = [model for model in rows.values() if not model.enabled]
    group_views = {row.group_id: _group(row) for row in GroupSettings.objects.select_related("group")}
    return Snapshot(
        views,
        allowed,
        group_views,
        rules_in_force(),
        own_remedies(),
        frozenset(name for model in disabled for name in (model.name, *aliases.get(model.pk, ()))),
        aliases={alias: view.name for view in views.values() for alias in view.aliases},
        plans=read_plans(allowed),
        lack_plans=_who_lack_plans(views.values()),
        channels=frozenset(channels),
    )


def _who_lack_plans(views: Iterable[ModelView]) -> frozenset[int]:
    """The users who may sign in for a plan and have not, where there is no upstream but the demo."""
    if settings.CONFIG.plan_users == "off":
        return frozenset()
    if not all(route.channel.provider in BUILT_IN for view in views for route in view.routes):
        return frozenset()
    signed_in = ChatGPTAccount.objects.exclude(state=SignInState.SIGNED_OUT)
    users = User.objects.filter(is_active=True).exclude(pk__in=signed_in.values("user"))
    if settings.CONFIG.plan_users == "superusers":
        users = users.filter(is_superuser=True)
    return frozenset(users.values_list("pk", flat=True))


def _aliases(models: Collection[str]) -> dict[int, list[str]]:
    """The further names of models, by the id of the model. One that has become a model's own counts no more."""
    found: dict[int, list[str]] = {}
    for model_id, name in ModelAlias.objects.values_list("model_id", "name"):
        if name not in models:
            found.setdefault(model_id, []).append(name)
    return found


def load_withdrawn(name: str, channel_id: int, key_id: int) -> Route | None:
    """The route of a model through a channel with this key alone, in service or not, for what was begun with them.

    None: the channel is gone; it has no key when that is gone, or may not be sent there.
    """
    with consistent_read():
        channel = read_withdrawn(channel_id, key_id, AllowedUpstream.allowances())
        if channel is None:
            return None
        link = ChannelModel.objects.filter(channel=channel_id, model__name=name).first()
        if link is None:
            return Route(channel.of_model(name), name)
        prices = _prices()
        return Route(
            channel.of_model(link.upstream_name or name),
            link.upstream_name or name,
            prices.get((link.model_id, channel_id, PricePurpose.SALE)),
            prices.get((link.model_id, channel_id, PricePurpose.COST)),
        )


def _prices() -> dict[tuple[int, int | None, str], PriceList]:
    """Price lists by model, channel and purpose: current and future prices."""
    now = clock.now().timestamp()
    found: dict[tuple[int, int | None, str], list[Price]] = {}
    for row in ModelPrice.objects.filter(model__enabled=True):
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
        cache_write_1h=classes["cache_write_1h"],
        reasoning=classes["reasoning"],
        audio_input=classes["audio_input"],
        audio_output=classes["audio_output"],
        image_input=classes["image_input"],
        call=classes["per_call"] or 0,
        image=classes["per_image"] or 0,
        second=classes["per_second"] or 0,
        character=classes["per_character"] or 0,
        search=classes["per_search"] or 0,
    )


def _group(row: GroupSettings) -> GroupView:
    member = Limits(row.member_rpm, row.member_tpm, row.member_rpd, row.member_concurrency)
    return GroupView(row.group_id, row.group.name, parts_per_million(row.price_multiplier), limits_of(row), member)


def load_caller(digest: str, secret: str = "") -> Caller | None:
    """The caller of a token's digest, or None when there is no such token. 5 queries.

    `secret`: what has this digest, if it was presented. A token that is stored by the SHA-256 of it is stored by the
    digest from then on.
    """
    tokens = Token.objects.select_related("user")
    if not secret:
        token = tokens.filter(digest=digest).first()
    else:
        found = tokens.in_bulk([digest, digest_of_sha256(sha256_of(secret))], field_name="digest")
        token = found.get(digest) or next(iter(found.values()), None)  # a revoked one of the digest counts, too
        if token is not None and token.digest != digest and token.revoked_at is None:
            lifecycle.store_secret(token, secret)
            token = tokens.filter(digest=digest).first()
    return caller_from_token(token) if token is not None and token.revoked_at is None else None


def is_revoked(digests: Sequence[str]) -> bool:
    """Whether an open relay must refuse a token that is not known: it was revoked. Other relays refuse all of them."""
    return not settings.CONFIG.require_bearer_auth and Token.objects.filter(digest__in=digests).exists()


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
        models=only(token.models_limited, allowed),
        networks=net.parse_networks(token.allowed_ips),
        limited=limited.get("wallet", True) or limited.get("quota", False) or bool(budgets),
        house=not limited.get("wallet", True),
        budgets=budgets,
        limits=limits_of(token),
        user_limits=limits_of(token.user),
        purpose=token.purpose,
        token_name=token.name,
        anybody=token.built_in is not None and settings.CONFIG.open_relay_on_network,
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
