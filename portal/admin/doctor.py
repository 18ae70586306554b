"""The page on which the checks of the installation are run, with their progress, and what they found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache

from accounts.admin.base import request_ip
from accounts.doors import needs, open_url
from portal.doctor.runs import newest_run, start_run
from portal.installation.command import anywhere

# The class and the word of a result.
_STATES: Final = {
    "pass": ("good", gettext_lazy("passed")),
    "warn": ("warn", gettext_lazy("warning")),
    "fail": ("bad", gettext_lazy("failed")),
    "skip": ("off", gettext_lazy("skipped")),
}
_KEY_REFUSED: Final = frozenset((401, 403))


@dataclass(frozen=True, slots=True)
class _Page:
    """The page on which the next step of a check is done."""

    view: str
    label: Any
    instead: bool = False  # of the steps, which are commands for a terminal
    query: str = ""
    args: tuple[Any, ...] = ()


_PAGES: Final[Mapping[str, _Page]] = {
    "config": _Page("admin-installation", gettext_lazy("Installation")),
    "environment": _Page("admin-installation", gettext_lazy("Installation")),
    "disk": _Page("admin:relay_upload_changelist", gettext_lazy("Files")),
    "relay_token": _Page("admin:relay_token_add", gettext_lazy("Create a token"), instead=True),
    "books": _Page("admin:relay_ledgeraccount_verify_books", gettext_lazy("The books"), instead=True),
    "plan_sign_ins": _Page("admin:relay_chatgptaccount_changelist", gettext_lazy("ChatGPT sign-ins"), instead=True),
}


def _page_of(check: Mapping[str, Any]) -> _Page | None:
    """Where the next step of a check is done, as its name and figures tell; None: in no page."""
    name, data = check["name"], check.get("data", {})
    if check["status"] == "pass" or (check["status"] == "skip" and not check.get("next_steps")):
        return None
    if name == "upstream_auth":
        if not data.get("channels"):
            return _Page("admin-setup", gettext_lazy("Set the portal up"), instead=True)
        return _Page("admin:relay_channel_changelist", gettext_lazy("Channels"))
    if data.get("status") in _KEY_REFUSED:
        chosen = f"?channel__id__exact={data['channel']}"
        return _Page("admin:relay_apikey_changelist", gettext_lazy("Its API keys"), query=chosen)
    if name == "response" and "channel" not in data:
        return _Page("admin:relay_channel_changelist", gettext_lazy("Channels"))
    if "channel" in data:
        return _Page("admin:relay_channel_change", gettext_lazy("The channel"), args=(data["channel"],))
    return _PAGES.get(name)


def _shown(request: HttpRequest, check: Mapping[str, Any]) -> dict[str, Any]:
    """A check as the page has it: its result in words, its next steps, and the page where these are done."""
    state, word = _STATES[check["status"]]
    page = _page_of(check)
    url = open_url(request, reverse(page.view, args=page.args) + page.query) if page is not None else ""
    steps = check.get("next_steps", [])
    return {
        "state": state,
        "word": word,
        "message": check["message"],
        "steps": steps if not url else [] if page is not None and page.instead else steps[:-1],
        "url": url,
        "label": steps[-1] if steps and page is not None and not page.instead else page.label if page else "",
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
        "command": anywhere("doctor", data_dir=settings.DATA_DIR),
        "checks": [_shown(request, check) for check in found.checks] if found else [],
    }
    return render(request, "admin/doctor.html", context)
