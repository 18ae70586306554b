from __future__ import annotations

import time
from datetime import timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from accounts.models import User
from portal.lib import clock
from portal.views.scope import models_of, priced_models_of, tokens_of, usage_of
from portal.views.snippets import snippets
from relay.receipts import lines_of
from relay.reports import total


def admin_login(request: HttpRequest) -> HttpResponse:
    """The admin has no sign-in page of its own: the portal's counts attempts. Whoever is signed in without being staff is told so."""
    if request.user.is_authenticated:
        if not request.user.is_staff:
            raise PermissionDenied
        return redirect("admin:index")
    return redirect(f"{reverse('accounts:login')}?{urlencode({'next': request.GET.get('next', reverse('admin:index'))})}")


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The front page: where one stands, and what to do next."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101
    since = clock.now() - timedelta(days=30)
    totals = total(usage_of(user).filter(started_at__gte=since))
    lines = lines_of(user.pk, None, time.time())
    context = {
        "tokens": tokens_of(user)[:5],
        "token_count": tokens_of(user).count(),
        "models": priced_models_of(user),
        "totals": totals,
        "wallet": next((line for line in lines if line.kind == "wallet"), None),
        "budgets": [line for line in lines if line.kind == "budget"],
        "unpriced": settings.CONFIG.unpriced,
        "here": "home",
    }
    return render(request, "portal/home.html", context)


@login_required
def connect(request: HttpRequest) -> HttpResponse:
    """How to connect an app."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101
    names = list(models_of(user).values_list("name", flat=True))
    chosen = request.GET.get("model", "")
    model = chosen if chosen in names else names[0] if names else "MODEL"
    return render(request, "portal/connect.html", {"snippets": snippets(request, model=model), "models": names, "model": model, "here": "connect"})
