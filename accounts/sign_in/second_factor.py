"""Sends staff without the second factor that is required from the admin to its set-up."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _

from accounts.rights import has_required_factor


class SecondFactorMiddleware(MiddlewareMixin):
    """Redirects staff without the required second factor from the admin to its set-up.

    Powers that are used elsewhere are refused by `accounts.rights`.
    """

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
