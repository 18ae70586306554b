"""Lets staff view the portal as a user sees it, read-only, in order to help that user.

While the session names a user, the pages of the portal are shown as for that user. Only GET and HEAD are allowed, so no
secret is shown (those come in answers to POST) and nothing can be done in the user's name. The admin stays that of the
staff member.
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
from accounts.rights import may

SESSION_KEY = "view_as"
_EXEMPT_PATHS = ("/admin/", "/api/", "/accounts/", "/static/", "/healthz", "/readyz")


def may_view_as(person: Any, user: User) -> bool:
    """Whether a staff member may view the portal as a user. Only superusers may view as staff, who may see more."""
    return may(person, "accounts.view_as") and (person.is_superuser or not (user.is_staff or user.is_superuser))


class ViewAsMiddleware(MiddlewareMixin):
    """Replaces `request.user` by the user that a staff member views the portal as."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        if (
            SESSION_KEY not in request.session
            or request.path.startswith(_EXEMPT_PATHS)
            or not request.user.is_authenticated
        ):
            return None
        person = request.user
        user = User.objects.filter(pk=request.session[SESSION_KEY]).first()
        if user is None or not may_view_as(person, user):
            del request.session[SESSION_KEY]
            return None
        if request.method not in {"GET", "HEAD"}:
            return render(request, "portal/read_only.html", {"viewed": user}, status=403)
        request.viewer = person  # type: ignore[attr-defined]
        request.user = user
        return None


@login_required
@require_POST
def start(request: HttpRequest, pk: int) -> HttpResponse:
    """Begin to view the portal as a user."""
    user = get_object_or_404(User, pk=pk)
    if not may_view_as(request.user, user):
        raise PermissionDenied
    request.session[SESSION_KEY] = user.pk
    AuditEvent.write("user.view-as", request.user, user, request.META.get("REMOTE_ADDR"))
    return redirect("home")


@login_required
@require_POST
def leave(request: HttpRequest) -> HttpResponse:
    """Return to the staff member's own pages."""
    pk = request.session.pop(SESSION_KEY, None)
    if pk is None:
        return redirect("home")
    messages.info(request, _("You see your own pages again."))
    return redirect(reverse("admin:accounts_user_change", args=[pk]))
