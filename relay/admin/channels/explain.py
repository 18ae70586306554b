"""The admin page that explains routing: where a request would go, or why a user may not use a model."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _

from accounts.doors import needs
from accounts.models import User
from accounts.rights import may
from portal.lib.texts import whole_number
from relay.gateway.routing.explain.explanation import Explanation, Reader
from relay.gateway.routing.explain.routes import explain_route
from relay.gateway.runtime import current
from relay.models import Model, ModelAlias, Token
from relay.models.ledger import AMOUNTS
from relay.models.token import STATES

_MAX_CHOICES = 500  # of a list
_LONGEST = 300  # characters of a name; addresses have 254


@needs("relay.view_channel", "accounts.view_user")
def explain_view(request: HttpRequest) -> HttpResponse:
    """Explain where a request of a user for a model would go.

    Parameters: `user` is a name or e-mail address, `model` a name, `token` the id of one of the user's tokens,
    optional. GET shows the form and, with parameters, the answer. POST takes them as a form or as JSON and answers
    in JSON.
    """
    if request.method == "POST":
        return _json_answer(request)
    asked = {name: request.GET.get(name, "").strip() for name in ("user", "token", "model")}
    error, found = "", None
    if asked["user"] and asked["model"]:
        found, error = explain_for(asked, request.user)
    chosen = User.objects.named(asked["user"])
    context = {
        **admin.site.each_context(request),
        "title": _("Explain routing"),
        "asked": asked,
        "error": error,
        "found": found,
        "users": User.objects.order_by("username").values_list("username", flat=True)[:_MAX_CHOICES],
        "models": [
            *Model.objects.order_by("name").values_list("name", flat=True)[:_MAX_CHOICES],
            *ModelAlias.objects.order_by("name").values_list("name", flat=True)[:_MAX_CHOICES],
        ],
        "tokens": [
            (str(token.pk), f"{token} ({token.hint}, {_(STATES[token.state()])})")
            for token in Token.objects.filter(user=chosen)[:_MAX_CHOICES]
        ]
        if chosen
        else [],
    }
    return render(request, "admin/relay/explain.html", context)


def _json_answer(request: HttpRequest) -> HttpResponse:
    asked: dict[str, str] = {}
    if request.content_type == "application/json":
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError):
            return JsonResponse({"error": _("The body is not valid JSON.")}, status=400)
        if not isinstance(body, dict):
            return JsonResponse(
                {"error": _("Send an object with “user”, “model” and, if you like, “token”.")}, status=400
            )
        asked = {name: str(body.get(name) or "").strip() for name in ("user", "token", "model")}
    else:
        asked = {name: request.POST.get(name, "").strip() for name in ("user", "token", "model")}
    if not asked["user"] or not asked["model"]:
        return JsonResponse({"error": _("Name a “user” and a “model”.")}, status=400)
    found, error = explain_for(asked, request.user)
    return JsonResponse(found.as_json()) if found is not None else JsonResponse({"error": error}, status=404)


def explain_for(asked: dict[str, str], reader: Any) -> tuple[Explanation | None, str]:
    """Return the explanation as somebody may read it, or None and what is wrong with the parameters."""
    user = User.objects.named(asked["user"])
    if user is None:
        return None, str(_("There is no user “%(user)s”.") % {"user": _shown(asked["user"])})
    if not _may_be_name(asked["model"]):
        said = {"model": _shown(asked["model"])}
        return None, str(_("There is no model “%(model)s”. Create it, or add it to a channel's models.") % said)
    token = None
    if asked["token"]:
        number = whole_number(asked["token"])
        token = Token.objects.filter(user=user, pk=number).first() if number is not None else None
        if token is None:
            return None, str(
                _("%(user)s has no token with the number %(token)s.") % {"user": user, "token": _shown(asked["token"])}
            )
    serving = current()
    seen = serving.health.live if serving is not None else None
    rights = Reader(may(reader, "relay.view_usagerecord"), may(reader, AMOUNTS), own=user.pk == reader.pk)
    return explain_route(user, token, asked["model"], seen, rights), ""


def _may_be_name(text: str) -> bool:
    """Whether somebody or something may be called so, and databases can look for it."""
    return len(text) <= _LONGEST and text.isprintable()


def _shown(text: str) -> str:
    return "".join(filter(str.isprintable, text[:_LONGEST]))
