"""Fills in what is known of models: from the upstream's list, from their names, and from the data of genai-prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final

from portal.lib import clock
from relay.billing.list_prices import look_up
from relay.models import Channel, Model
from relay.providers.model_facts import ModelFacts, abilities_of_name

_FIELDS: Final = ("context_window", "max_output_tokens", "abilities", "reasoning_levels", "retires_on")
_CHUNK: Final = 200  # rows of one UPDATE, which names each of them


def fill_facts(names: Iterable[str], listed: Mapping[str, ModelFacts] | None = None) -> int:
    """Fill in the facts that models lack, and follow lists in what they have said before.

    What somebody has set stays. `names` are public names; `listed` is what an upstream's list says, by these names.
    Returns how many models got some.
    """
    wanted = list(dict.fromkeys(names))
    changed: list[Model] = []
    for start in range(0, len(wanted), _CHUNK):
        for row in Model.objects.filter(name__in=wanted[start : start + _CHUNK]):
            if _fill(row, (listed or {}).get(row.name, ModelFacts())):
                changed.append(row)
    Model.objects.bulk_update(changed, [*_FIELDS, "filled_facts"], batch_size=_CHUNK)
    return len(changed)


def fill_facts_of(channel: Channel, listed: Mapping[str, ModelFacts]) -> int:
    """Do so for all models of a channel, of whose upstream this is the list, by its own names."""
    links = channel.served.values_list("model__name", "upstream_name")
    found = {name: listed[upstream or name] for name, upstream in links if (upstream or name) in listed}
    return fill_facts(found, found)


def _fill(row: Model, said: ModelFacts) -> bool:
    """Fill a model in by what a list says of it, else by what else is known. Returns whether anything changed."""
    before: dict[str, Any] = row.filled_facts or {}
    after, changed = dict(before), False
    for name in _FIELDS:
        here, value = _plain(getattr(row, name)), _plain(getattr(said, name))
        if here and here != before.get(name):
            continue  # somebody has set it
        if value or (not here and (value := _plain(_known(row, name)))):
            changed = changed or value != here or value != before.get(name)
            after[name] = value
            setattr(row, name, date.fromisoformat(value) if name == "retires_on" else value)
    row.filled_facts = after
    return changed


def _known(row: Model, field: str) -> Any:
    """What is known of a model without any list."""
    if field == "abilities":
        return abilities_of_name(row.name)
    if field == "context_window":
        listing = look_up((), [row.name, row.name.rpartition("/")[2]], clock.now())
        return listing.context_window if listing is not None else None
    return None


def _plain(value: Any) -> Any:
    """A value as JSON keeps it."""
    if isinstance(value, date):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value
