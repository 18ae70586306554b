"""The catalogue of models that the user may use, with prices and abilities."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.pages.shared.scope import signed_in_user
from relay.catalog.offers import models_of, offers, price_factor, served_to
from relay.catalog.serving import serving_channels
from relay.models import ModelAlias
from relay.models.catalog import Ability

ROWS = 60


@login_required
def model_list(request: HttpRequest) -> HttpResponse:
    """List the models, searchable by name, description and ability."""
    asked, ability = request.GET.get("q", "").strip()[:100], request.GET.get("ability", "")
    user = signed_in_user(request)
    channels = serving_channels(user)
    rows = served_to(channels, models_of(user))
    for word in asked.split():
        rows = rows.filter(
            Q(name__icontains=word)
            | Q(display_name__icontains=word)
            | Q(description__icontains=word)
            | Q(pk__in=ModelAlias.objects.filter(name__icontains=word).values("model"))
        )
    if ability in Ability.values:
        told = [model.pk for model in rows.filter(abilities=[]) if ability in model.known_abilities]
        rows = rows.filter(Q(abilities__icontains=f'"{ability}"') | Q(pk__in=told))
    rows = rows.prefetch_related("aliases")
    page = Paginator(rows, ROWS).get_page(request.GET.get("page"))
    labels = dict(Ability.choices)
    shown: list[tuple[Any, list[Any]]] = [
        (offer, [labels[one] for one in offer.model.known_abilities if one in labels])
        for offer in offers(user, page, channels)
    ]
    context = {
        "page": page,
        "models": shown,
        "asked": asked,
        "ability": ability,
        "abilities": Ability.choices,
        "factor": price_factor(user),
        "here": "models",
    }
    return render(request, "portal/models.html", context)
