"""The page on which the checks of the installation are run, with their progress, and what they found."""

from __future__ import annotations

import json

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache

from accounts.admin.base import request_ip
from accounts.doors import needs
from portal.doctor.runs import newest_run, start_run

# The class and the word of a result.
_STATES = {
    "pass": ("good", gettext_lazy("passed")),
    "warn": ("warn", gettext_lazy("warning")),
    "fail": ("bad", gettext_lazy("failed")),
    "skip": ("off", gettext_lazy("skipped")),
}


@never_cache
@needs("relay.change_channel")
def doctor(request: HttpRequest) -> HttpResponse:
    """Show the last run, and start one. Nothing is checked when the page is opened."""
    if request.method == "POST":
        port = str(request.META.get("SERVER_PORT", ""))
        start_run(request.user, bool(request.POST.get("response")), request_ip(request), port)
        return redirect("admin-doctor")
    found = newest_run()
    running = found is not None and found.state == "running"
    if request.GET.get("now"):
        told = {"running": running, "stage": found.stage if found else "", "done": found.done if found else 0}
        return JsonResponse(told)
    if request.GET.get("json") and found is not None and found.report:
        text = json.dumps(found.report, indent=2, ensure_ascii=False)
        headers = {"Content-Disposition": 'attachment; filename="doctor.json"'}
        return HttpResponse(text, content_type="application/json", headers=headers)
    context = {
        **admin.site.each_context(request),
        "title": _("Doctor"),
        "run": found,
        "running": running,
        "checks": [(check, *_STATES[check["status"]]) for check in found.checks] if found else [],
    }
    return render(request, "admin/doctor.html", context)
