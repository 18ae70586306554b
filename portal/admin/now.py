"""Current states of channels and running requests.

`portal.live` sends them over websockets; the views here serve browsers for which websockets are blocked.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from accounts.models import User
from accounts.sign_in.second_factor import has_required_factor
from relay.channels import status as channel_status
from relay.usage.running import RunningRequests, request_worker_status, running_requests


@never_cache
def channels(request: HttpRequest) -> HttpResponse:
    found = channels_now(request.user.pk or 0)
    if found is None:
        raise PermissionDenied
    return JsonResponse({"channels": found})


@never_cache
def running(request: HttpRequest) -> HttpResponse:
    found = running_now(request.user.pk or 0, True)
    if found is None:
        raise PermissionDenied
    return JsonResponse({"workers": found.workers, "rows": found.rows})


def channels_now(user_id: int) -> list[dict[str, Any]] | None:
    """States of all channels as JSON, or None if the user may not view them."""
    user = User.objects.filter(pk=user_id, is_active=True, is_staff=True).first()
    if user is None or not user.has_perm("relay.view_channel") or not has_required_factor(user):
        return None
    return [one.as_json() for one in channel_status.channel_statuses()]


def may_end(user_id: int) -> bool:
    user = User.objects.filter(pk=user_id, is_active=True, is_staff=True).first()
    return user is not None and user.has_perm("relay.end_request") and has_required_factor(user)


def running_now(user_id: int, request_update: bool) -> RunningRequests | None:
    """Running requests of all workers, or None if the user may not see them (any more).

    `request_update` asks the workers to publish theirs, which they then do for 15 seconds.
    """
    if not may_end(user_id):
        return None
    if request_update:
        request_worker_status()
    return running_requests()
