"""Lets staff enter the admin only with a second factor set up, where the configuration requires it."""

from __future__ import annotations

from typing import Any

from allauth.mfa.adapter import get_adapter
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _


def has_required_factor(user: Any) -> bool:
    """Whether a user has a second factor, or none is required. Takes one query, or none when none is required."""
    return not settings.CONFIG.staff_mfa or bool(get_adapter().is_mfa_enabled(user))


class SecondFactorMiddleware(MiddlewareMixin):
    """Redirects staff without the required second factor from the admin to its set-up."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        if (
            request.path.startswith("/admin/")
            and request.user.is_authenticated
            and request.user.is_staff
            and not has_required_factor(request.user)
        ):
            messages.warning(
                request, _("The administration of this portal needs a second factor. Set one up here, then go on.")
            )
            return redirect("mfa_index")
        return None
