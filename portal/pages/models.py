"""The catalogue of models that the user may use, with prices and abilities."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.pages.shared.scope import priced_models_of, signed_in_user
from relay.models.catalog import Ability

ROWS = 60


@login_required
def model_list(request: HttpRequest) -> HttpResponse:
    """List the models, searchable by name, description and ability."""
    asked, ability = request.GET.get("q", "").strip()[:100], request.GET.get("ability", "")
    rows = priced_models_of(signed_in_user(request))
    for word in asked.split():
        rows = rows.filter(Q(name__icontains=word) | Q(display_name__icontains=word) | Q(description__icontains=word))
    if ability in Ability.values:
        rows = rows.filter(abilities__icontains=f'"{ability}"')
    page = Paginator(rows, ROWS).get_page(request.GET.get("page"))
    labels = dict(Ability.choices)
    shown: list[tuple[Any, list[Any]]] = [
        (model, [labels[one] for one in model.abilities if one in labels]) for model in page
    ]
    context = {
        "page": page,
        "models": shown,
        "asked": asked,
        "ability": ability,
        "abilities": Ability.choices,
        "unpriced": settings.CONFIG.unpriced,
        "here": "models",
    }
    return render(request, "portal/models.html", context)
