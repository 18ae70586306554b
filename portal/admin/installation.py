"""The page of the results of Django's system checks."""

from __future__ import annotations

from django.contrib import admin
from django.core import checks
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from accounts.doors import needs


@needs("relay.change_channel")
def installation(request: HttpRequest) -> HttpResponse:
    """All messages of `manage.py check --deploy` with their hints, for staff who may change channels."""
    found = [message for message in checks.run_checks(include_deployment_checks=True) if not message.is_silenced()]
    context = {
        **admin.site.each_context(request),
        "title": _("Installation"),
        "found": [(message, message.level >= checks.ERROR) for message in found],
    }
    return render(request, "admin/installation.html", context)
