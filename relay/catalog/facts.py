"""Fills in what is known of models: from the upstream's list, from their names, and from the data of genai-prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from portal.lib import clock
from relay.billing.list_prices import look_up
from relay.models import Model
from relay.providers.model_facts import ModelFacts, abilities_of_name

_FIELDS: Final = ("context_window", "max_output_tokens", "abilities")
_CHUNK: Final = 200  # rows of one UPDATE, which names each of them


def fill_facts(names: Iterable[str], listed: Mapping[str, ModelFacts] | None = None) -> int:
    """Fill in the facts that models lack; what somebody has set stays. Returns how many models got some.

    `names` are public names; `listed` is what an upstream's list says, by its names for models.
    """
    wanted = list(dict.fromkeys(names))
    rows = [row for row in Model.objects.filter(name__in=wanted) if not all(getattr(row, name) for name in _FIELDS)]
    changed, now = [], clock.now()
    for row in rows:
        listing = look_up((), [row.name, row.name.rpartition("/")[2]], now) if not row.context_window else None
        known = ModelFacts(listing.context_window if listing is not None else None, None, abilities_of_name(row.name))
        facts = (listed or {}).get(row.name, ModelFacts()).or_else(known)
        found = {name: getattr(facts, name) for name in _FIELDS if not getattr(row, name) and getattr(facts, name)}
        if found:
            for name, value in found.items():
                setattr(row, name, list(value) if name == "abilities" else value)
            changed.append(row)
    Model.objects.bulk_update(changed, _FIELDS, batch_size=_CHUNK)
    return len(changed)
