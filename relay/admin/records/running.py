"""The admin page of the requests that are running on all workers, and the action that ends one."""

from __future__ import annotations

import re

from django.contrib import admin, messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import request_ip
from accounts.doors import needs
from accounts.models import AuditEvent
from relay.usage import running

_REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


@needs("relay.end_request")
def running_view(request: HttpRequest) -> HttpResponse:
    """Show the running requests. The page updates its rows over a websocket."""
    running.request_worker_status()
    found = running.running_requests()
    return render(
        request,
        "admin/relay/running.html",
        {
            **admin.site.each_context(request),
            "title": _("Running requests"),
            "workers": found.workers,
            "rows": found.rows,
        },
    )


@needs("relay.end_request")
def end_view(request: HttpRequest, request_id: str) -> HttpResponse:
    """Ask for confirmation, then end a request on whichever worker it runs."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise Http404
    if request.method == "POST":
        with transaction.atomic():
            AuditEvent.write("request.end", request.user, None, request_ip(request), request_id=request_id)
            running.end_request(request_id)
        said = _(
            "%(id)s is being ended: its client gets an error that says so, and what was delivered is billed by the "
            "channel's policy."
        )
        messages.success(request, said % {"id": request_id})
        return redirect("admin-running")
    context = {**admin.site.each_context(request), "title": _("End a running request"), "request_id": request_id}
    return render(request, "admin/relay/end_request.html", context)
