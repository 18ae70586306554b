"""The playground: a chat in the browser that calls /v1 with a short-lived key for one of the user's tokens."""

from __future__ import annotations

import time

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_ratelimit.core import is_ratelimited

from portal.lib.texts import whole_number
from portal.pages.own_plan.offered import plan_models
from portal.pages.shared.scope import signed_in_user, tokens_of
from relay.catalog.offers import own_name, usable_offers
from relay.gateway.access.short_lived_keys import make_playground_key

KEYS = "240/h"


@login_required
def playground(request: HttpRequest) -> HttpResponse:
    user = signed_in_user(request)
    usable = [
        token for token in tokens_of(user).exclude(purpose__in=("audio", "tasks"))[:100] if token.state() == "active"
    ]
    offers = usable_offers(user)
    models = [
        {
            "name": offer.model.name,
            "label": offer.model.display_name or offer.model.name,
            "images": "image_generation" in offer.model.known_abilities and not offer.chats,
        }
        for offer in offers
        if offer.chats or "image_generation" in offer.model.known_abilities
    ]
    own = plan_models(user)
    models = [{"name": name, "label": label, "images": False} for name, label in own.items()] + [
        model for model in models if model["name"] not in own
    ]
    chosen = own_name(offers, request.GET.get("model", ""))
    return render(
        request, "portal/playground.html", {"tokens": usable, "models": models, "chosen": chosen, "here": "playground"}
    )


@login_required
@require_POST
@never_cache
def playground_key(request: HttpRequest) -> HttpResponse:
    """Create a key for one of the user's tokens, valid for 15 minutes. The page requests a new one when it expires."""
    pk = whole_number(request.POST.get("token"))
    if pk is None:
        raise Http404
    token = get_object_or_404(tokens_of(signed_in_user(request)), pk=pk)
    if is_ratelimited(request, group="playground", key="user", rate=KEYS, increment=True):
        return JsonResponse({"error": _("Too many keys were asked for. Wait a few minutes.")}, status=429)
    if token.state() != "active":
        return JsonResponse({"error": _("This token is not in use. Choose another one.")}, status=409)
    key, until = make_playground_key(token.digest, time.time())
    return JsonResponse({"key": key, "until": until})
