"""The playground: a chat in the browser that calls /v1 with a short-lived key for one of the user's tokens."""

from __future__ import annotations

import time
from typing import Any, Final

from django.contrib.auth.decorators import login_required
from django.db.models import Exists, F, OuterRef, Subquery
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_ratelimit.core import is_ratelimited

from accounts.models import User
from portal.lib.texts import whole_number
from portal.pages.own_plan.offered import plan_models
from portal.pages.shared.scope import signed_in_user, tokens_of
from relay.catalog.offers import own_name, usable_offers
from relay.gateway.access.short_lived_keys import make_playground_key
from relay.models import Token
from relay.models.token import TokenPurpose
from relay.usage.receipts import quota_accounts

KEYS: Final = "240/h"
SHOWN: Final = 100  # tokens


def _tokens(user: User) -> list[Token]:
    """The user's tokens that may be asked with, those first that are sure to answer: the page begins with the first.

    Last is that of an open relay, which has no secret for the code that the page shows, and reaches no plan.
    """
    account = quota_accounts()
    rows = tokens_of(user).exclude(purpose__in=("audio", "tasks"))
    chosen = Token.models_allowed.through.objects.filter(token=OuterRef("pk"))
    rows = rows.annotate(
        limited_to_some=Exists(chosen),
        used=Subquery(account.values("used")[:1]),
        quota=Subquery(account.filter(limited=True).values("granted")[:1]),
    )
    found: list[Any] = list(rows.order_by(F("built_in").asc(nulls_first=True), "-pk")[:SHOWN])
    usable = [one for one in found if one.state(left=None if one.quota is None else one.quota - one.used) == "active"]
    return sorted(usable, key=_doubts)


def _doubts(token: Any) -> list[bool]:
    """What may keep a token from answering, the worst first."""
    limited = token.models_limited or token.limited_to_some
    return [token.built_in is not None, token.purpose != TokenPurpose.ALL, limited, bool(token.allowed_ips)]


@login_required
def playground(request: HttpRequest) -> HttpResponse:
    user = signed_in_user(request)
    usable = _tokens(user)
    offers = usable_offers(user)
    models = [
        {
            "name": offer.model.name,
            "label": offer.model.display_name or offer.model.name,
            "images": "image_generation" in offer.model.known_abilities and not offer.chats,
        }
        for offer in sorted(offers, key=lambda offer: offer.is_demo)
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
