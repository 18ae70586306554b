"""Adds models to channels, copies channels, and adds GPTs of ChatGPT as models. Synchronous."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import LIMIT_FIELDS
from relay.billing.list_prices import Listing
from relay.billing.price_import import add_list_prices
from relay.models import Channel, ChannelModel, Model, ModelAlias
from relay.providers.vendors import BUILT_IN, PRIVATE
from relay.providers.vendors.openai import GPT_FAMILY

_GPT_ID: Final = re.compile(r"(?:^|/)(g-[A-Za-z0-9]{6,40})(?=$|[-/?#])")
_AT_ONCE: Final = 500  # rows in one statement: databases limit its parameters
_NOT_COPIED: Final = frozenset(
    (
        "id",
        "name",
        "enabled",
        "tested_at",
        "test_ok",
        "test_latency_ms",
        "test_message",
        "test_first_token_ms",
        "listed_models",
        "listed_at",
        "created_at",
        "updated_at",
    )
)


def add_models(
    channel: Channel, names: Sequence[tuple[str, str]], listings: Mapping[str, Listing], is_open: bool = False
) -> int:
    """Let a channel serve models, creating those that do not exist. Returns how many it did not serve before.

    Names that are further names of models are left out: `aliased` tells them.

    `names` are pairs of public name and upstream name, which is empty when it is the same. Models without any price get
    that of `listings`, which `relay.billing.price_import.listings_for` looks up before the transaction. Costs the same
    number of queries for one name as for 500.
    """
    upstreams: dict[str, str] = {}
    for name, upstream in names:
        upstreams.setdefault(name, upstream)  # of a name that comes twice the first one counts
    with transaction.atomic():
        models = _models_of(upstreams, is_open)
        have = set(channel.served.values_list("model", flat=True))
        new = [
            ChannelModel(channel=channel, model=model, upstream_name=upstreams[name])
            for name, model in models.items()
            if model.pk not in have
        ]
        ChannelModel.objects.bulk_create(new, batch_size=_AT_ONCE)
        add_list_prices(list(models.values()), listings)
    return len(new)


def _models_of(names: Collection[str], is_open: bool) -> dict[str, Model]:
    """The models of public names, created where there is none, by the name that was asked for."""
    found = _by_name(names)
    if missing := [name for name in names if name not in found]:
        taken = aliased(missing)
        missing = [name for name in missing if name not in taken]
        # Somebody else may be adding the same.
        Model.objects.bulk_create(
            [Model(name=name, is_open=is_open) for name in missing], ignore_conflicts=True, batch_size=_AT_ONCE
        )
        found |= _by_name(missing)
    return found


def aliased(names: Collection[str]) -> dict[str, str]:
    """Those of the names that are further names of models, with the names of these models."""
    wanted = list(names)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        rows = dict(ModelAlias.objects.filter(name__in=some).values_list("name", "model__name"))
        loose = {name.casefold(): model for name, model in rows.items()}  # as in `_by_name`
        found.update((name, loose[name.casefold()]) for name in some if name.casefold() in loose)
    return found


def _by_name(names: Collection[str]) -> dict[str, Model]:
    wanted = list(names)
    found: dict[str, Model] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        rows = {row.name: row for row in Model.objects.filter(name__in=some)}
        loose = {name.casefold(): row for name, row in rows.items()}  # MySQL finds, and keeps apart, no letter cases
        found.update((name, row) for name in some if (row := rows.get(name) or loose.get(name.casefold())) is not None)
    return found


def copy_channel(channel: Channel) -> Channel:
    """Copy a channel with its models under another name, disabled and without keys: secrets are never copied."""
    copy = Channel(enabled=False)
    for field in Channel._meta.concrete_fields:
        if field.name not in _NOT_COPIED:
            setattr(copy, field.attname, getattr(channel, field.attname))
    number = 2
    while Channel.objects.filter(name=f"{channel.name[:70]} ({number})").exists():
        number += 1
    copy.name = f"{channel.name[:70]} ({number})"
    with transaction.atomic():
        copy.save()
        copy.groups.set(channel.groups.all())
        ChannelModel.objects.bulk_create(
            [
                ChannelModel(
                    channel=copy, model_id=link.model_id, upstream_name=link.upstream_name, enabled=link.enabled
                )
                for link in channel.served.all()
            ],
            batch_size=_AT_ONCE,
        )
    return copy


def gpt_id(link: str) -> str | None:
    """Return the id in a link to a GPT, such as `https://chatgpt.com/g/g-2fkFE8rbu-dall-e`, or in a bare id.

    None when there is none. Nothing is fetched.
    """
    text = link.strip()
    if not text.startswith("g-") and not re.match(r"https://(?:chatgpt\.com|chat\.openai\.com)/", text):
        return None
    found = _GPT_ID.search(text.split("?")[0].split("#")[0])
    return found[1] if found else None


def add_gpt(identifier: str, name: str, channels: Sequence[Channel], is_open: bool) -> tuple[Model, bool]:
    """Create the model of a GPT and let channels serve it. Returns it and whether it is new.

    A new one gets limits, context window and prices from the model `gpt-4-gizmo-*`, if that exists.
    """
    with transaction.atomic():
        model, made = Model.objects.get_or_create(
            name=GPT_FAMILY + identifier,
            defaults={
                "display_name": name[:120],
                "is_open": is_open,
                "description": _("A GPT of ChatGPT."),
                "abilities": ["chat"],
            },
        )
        for channel in channels:
            ChannelModel.objects.get_or_create(channel=channel, model=model)
        family = Model.objects.filter(name=f"{GPT_FAMILY}*").first()
        if made and family is not None:
            for field in LIMIT_FIELDS:
                setattr(model, field, getattr(family, field))
            model.context_window, model.max_output_tokens = family.context_window, family.max_output_tokens
            model.save()
            for price in family.prices.filter(purpose="sale"):
                price.pk, price.model = None, model
                price.save(force_insert=True)
    return model, made


def gpt_channels() -> list[Any]:
    """Return the channels that serve the model `gpt-4-gizmo-*`, or all channels when none does."""
    serving = list(Channel.objects.filter(served__model__name=f"{GPT_FAMILY}*").distinct())
    return serving or list(Channel.objects.exclude(provider__in=BUILT_IN | PRIVATE))
