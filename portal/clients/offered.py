"""What this portal offers to client apps of one of its users."""

from __future__ import annotations

from collections.abc import Iterable

from portal.clients.target import PRICE_CLASSES, OfferedModel
from relay.catalog.first_call import kinds_of
from relay.catalog.offers import Offer


def chat_models(offers: Iterable[Offer]) -> list[OfferedModel]:
    """The models that chat, under each of their names."""
    found = []
    for offer in offers:
        model = offer.model
        if "chat" in kinds_of(offer):
            limits = model.context_window, model.max_output_tokens
            abilities, prices = tuple(model.known_abilities), offer.price.amounts(PRICE_CLASSES, offer.factor)
            named = [(model.name, False), *((alias.name, True) for alias in model.aliases.all())]
            found += [
                OfferedModel(name, *limits, is_alias, abilities, prices, offer.is_demo) for name, is_alias in named
            ]
    return found
