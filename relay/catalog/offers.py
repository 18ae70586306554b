"""The models that a user may use, with what they cost this user and whether requests for them can succeed.

Catalogue, snippets and playground take models from here, so that none of them shows what the others know to fail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.db.models import Exists, Min, OuterRef, Q, QuerySet

from accounts.models import GroupSettings, User
from portal.lib import clock
from relay.catalog.price_texts import ONE, PriceNow, prices_now
from relay.catalog.serving import serving_channels
from relay.models import ChannelModel, Model, Token
from relay.models.token import fits_purpose
from relay.providers.model_facts import may_chat
from relay.providers.vendors import BUILT_IN

_MOST: Final = 500  # models that a page chooses from


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it is offered to one user."""

    model: Model
    price: PriceNow
    factor: Decimal  # of the user's group, which the price is multiplied by
    served: bool  # some channel that the user may use has it
    is_demo: bool = False  # nothing but the portal's own demo does

    @property
    def priced(self) -> bool:
        return self.price.known or settings.CONFIG.unpriced != "refuse"

    @property
    def usable(self) -> bool:
        """Whether requests for it can succeed. Families such as `gpt-4-gizmo-*` are patterns, not models."""
        return self.served and self.priced and not self.model.name.endswith("*")

    @property
    def sides(self) -> tuple[str, str] | None:
        """The prices of input and output per 1M tokens, None when they do not say what it costs."""
        return self.price.sides(self.factor)

    @property
    def notes(self) -> str:
        return self.price.notes(self.factor)

    @property
    def words(self) -> str:
        """The price in one line."""
        return self.price.words(self.factor, settings.CONFIG.unpriced)

    @property
    def chats(self) -> bool:
        """Whether it takes chat requests, as far as is known."""
        return may_chat(self.model.name, self.model.known_abilities)


def models_of(user: User) -> QuerySet[Model]:
    """Enabled models that the user may use: open ones, and those permitted to the user or one of their groups."""
    valid = Q(permissions__expires_at__isnull=True) | Q(permissions__expires_at__gt=clock.now())
    mine = Q(permissions__user=user) | Q(permissions__group__in=user.groups.all())
    return Model.objects.filter(Q(is_open=True) | (mine & valid), enabled=True).distinct().order_by("name")


def price_factor(user: User) -> Decimal:
    """Return what the user's prices are multiplied by: the lowest of the user's groups."""
    found = GroupSettings.objects.filter(group__user=user).aggregate(lowest=Min("price_multiplier"))["lowest"]
    return ONE if found is None else Decimal(found).normalize()


def served_to(channels: Collection[int], models: QuerySet[Model]) -> QuerySet[Model]:
    """Annotate models with `served`: whether one of the channels, as `serving_channels` finds them, serves them.

    `real`: whether one that is not built in does.
    """
    links = ChannelModel.objects.filter(channel__in=channels, model=OuterRef("pk"), enabled=True)
    return models.annotate(served=Exists(links), real=Exists(links.exclude(channel__provider__in=BUILT_IN)))


def offers(user: User, models: Iterable[Model], channels: Collection[int]) -> list[Offer]:
    """Return offers of models, which are annotated by `served_to`, at the prices of the channels. Takes 3 queries."""
    listed = list(models)
    prices, factor = prices_now((model.pk for model in listed), clock.now(), channels), price_factor(user)
    return [_offer(model, prices[model.pk], factor) for model in listed]


def _offer(model: Model, price: PriceNow, factor: Decimal) -> Offer:
    served = bool(getattr(model, "served", False))
    return Offer(model, price, factor, served, served and not getattr(model, "real", True))


def usable_offers(user: User, token: Token | None = None) -> list[Offer]:
    """Return at most 500 models that the user can call now, by name; with a token, those that it can call."""
    channels = serving_channels(user)
    rows = served_to(channels, models_of(user)).filter(Q(served=True))
    if token is not None:
        allowed = list(token.models_allowed.values_list("pk", flat=True))
        rows = rows.filter(pk__in=allowed) if token.models_limited or allowed else rows
    purpose = token.purpose if token is not None else ""
    return [
        offer
        for offer in offers(user, rows.prefetch_related("aliases")[:_MOST], channels)
        if offer.usable and fits_purpose(purpose, offer.model.known_abilities)
    ]


def own_name(offers: Iterable[Offer], name: str) -> str:
    """Return the own name of the model that has this further name, else the name as it is."""
    for offer in offers:
        if any(alias.name == name for alias in offer.model.aliases.all()):
            return offer.model.name
    return name
