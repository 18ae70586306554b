"""Looking at the portal as a user sees it, without being able to change anything: for those who help them.

The pages of the portal are shown as the user's while the session says so; nothing but reading is let through, so no secret is shown
(secrets come on answers to POST) and no request can be made in the user's name. The admin stays the person's own.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from accounts.models import AuditEvent, User

KEY = "view_as"
_OWN = ("/admin/", "/accounts/", "/static/", "/healthz", "/readyz")


def may_view_as(person: Any, user: User) -> bool:
    """Staff are looked at by superusers only: they may see more than who looks."""
    return bool(person.is_active and person.has_perm("accounts.view_as") and (person.is_superuser or not (user.is_staff or user.is_superuser)))


class ViewAsMiddleware(MiddlewareMixin):
    """Puts the user that is looked at in the place of who looks."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        if KEY not in request.session or request.path.startswith(_OWN) or not request.user.is_authenticated:
            return None
        person = request.user
        user = User.objects.filter(pk=request.session[KEY]).first()
        if user is None or not may_view_as(person, user):
            del request.session[KEY]
            return None
        if request.method not in {"GET", "HEAD"}:
            return render(request, "portal/read_only.html", {"viewed": user}, status=403)
        request.viewer = person  # type: ignore[attr-defined]
        request.user = user
        return None


@login_required
@require_POST
def start(request: HttpRequest, pk: int) -> HttpResponse:
    user = get_object_or_404(User, pk=pk)
    if not may_view_as(request.user, user):
        raise PermissionDenied
    request.session[KEY] = user.pk
    AuditEvent.write("user.view-as", request.user, user, request.META.get("REMOTE_ADDR"))
    return redirect("home")


@login_required
@require_POST
def leave(request: HttpRequest) -> HttpResponse:
    pk = request.session.pop(KEY, None)
    if pk is None:
        return redirect("home")
    messages.info(request, _("You see your own pages again."))
    return redirect(reverse("admin:accounts_user_change", args=[pk]))
