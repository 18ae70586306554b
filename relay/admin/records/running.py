"""Running requests of every worker, and ending one."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import address
from accounts.models import AuditEvent
from relay.usage import running
from relay.usage.running import lines

_REQUEST = re.compile(r"req_[0-9a-f]{32}")


def _check(request: HttpRequest) -> None:
    person: Any = request.user
    if not person.has_perm("relay.end_request"):
        raise PermissionDenied


def running_view(request: HttpRequest) -> HttpResponse:
    """The page; its rows come over a websocket, and are there without it when the page is loaded again."""
    _check(request)
    running.look()
    found = lines()
    return render(request, "admin/relay/running.html", {**admin.site.each_context(request), "title": _("Running requests"), "workers": found.workers, "rows": found.rows})


def end_view(request: HttpRequest, request_id: str) -> HttpResponse:
    """Asks, then ends a request wherever it runs."""
    _check(request)
    if not _REQUEST.fullmatch(request_id):
        raise Http404
    if request.method == "POST":
        with transaction.atomic():
            AuditEvent.write("request.end", request.user, None, address(request), request_id=request_id)
            running.end_request(request_id)
        said = _("%(id)s is being ended: its client gets an error that says so, and what was delivered is billed by the channel's policy.")
        messages.success(request, said % {"id": request_id})
        return redirect("admin-running")
    context = {**admin.site.each_context(request), "title": _("End a running request"), "request_id": request_id}
    return render(request, "admin/relay/end_request.html", context)
