"""The admin's page of a request that was refused before it was routed: why, and what to do."""

from __future__ import annotations

from typing import Final

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.doors import needs
from accounts.rights import may
from relay.error_texts import explained
from relay.models import Model, RefusedRequest

_OF_USER: Final = frozenset(("insufficient_quota",))
_OF_MODEL: Final = frozenset(("model_not_allowed", "model_not_priced"))


@needs("relay.view_usagerecord")
def refused_view(request: HttpRequest, request_id: str) -> HttpResponse:
    """Show a refused request to staff who may view usage records."""
    refusal = get_object_or_404(RefusedRequest.objects.select_related("user", "token"), request_id=request_id)
    context = {
        **admin.site.each_context(request),
        "title": _("Refused request %(id)s") % {"id": refusal.request_id},
        "refusal": refusal,
        "error": explained(refusal.error_code) if refusal.error_code else None,
        "place": _place(request, refusal),
        "sees_user": may(request.user, "accounts.view_user"),
        "sees_token": may(request.user, "relay.view_token"),
    }
    return render(request, "admin/relay/usagerecord/refused.html", context)


def _place(request: HttpRequest, refusal: RefusedRequest) -> tuple[str, str] | None:
    """Return the page on which the cause is put right, as (label, address), if its reader may see it."""
    user = request.user
    if refusal.error_code in _OF_USER and refusal.user is not None and may(user, "accounts.view_user"):
        return _("Balance and budgets of the user"), reverse("admin:accounts_user_change", args=[refusal.user_id])
    if refusal.error_code in _OF_MODEL and may(user, "relay.view_model"):
        model = (
            Model.objects.filter(Q(name=refusal.model) | Q(aliases__name=refusal.model))
            .values_list("pk", flat=True)
            .first()
        )
        if model is not None:
            return _("The model, its price and permissions"), reverse("admin:relay_model_change", args=[model])
    if refusal.error_code == "model_not_found" and may(user, "relay.view_model"):
        return _("Models"), reverse("admin:relay_model_changelist")
    if refusal.token is not None and may(user, "relay.view_token"):
        return _("The token and its limits"), reverse("admin:relay_token_change", args=[refusal.token_id])
    return None
