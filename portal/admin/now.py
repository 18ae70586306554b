"""Current states of channels and running requests.

`portal.live` sends them over websockets; the views here serve browsers for which websockets are blocked.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from accounts.rights import may
from relay.channels import status as channel_status
from relay.usage.running import RunningRequests, request_worker_status, running_requests


@never_cache
def channels(request: HttpRequest) -> HttpResponse:
    found = channels_now(request.user)
    if found is None:
        raise PermissionDenied
    return JsonResponse({"channels": found})


@never_cache
def running(request: HttpRequest) -> HttpResponse:
    found = running_now(request.user, True)
    if found is None:
        raise PermissionDenied
    return JsonResponse({"workers": found.workers, "rows": found.rows})


def channels_now(user: Any) -> list[dict[str, Any]] | None:
    """States of all channels as JSON, or None if the user may not view them."""
    if not (may(user, "relay.view_channel") or may(user, "relay.change_channel")):  # as of the list of channels
        return None
    return [one.as_json() for one in channel_status.channel_statuses()]


def running_now(user: Any, request_update: bool) -> RunningRequests | None:
    """Running requests of all workers, or None if the user may not see them.

    `request_update` asks the workers to publish theirs, which they then do for 15 seconds.
    """
    if not may(user, "relay.end_request"):
        return None
    if request_update:
        request_worker_status()
    return running_requests()
