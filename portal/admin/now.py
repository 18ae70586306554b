"""What the websockets of the admin tell, for browsers behind something that blocks websockets."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from portal.live import channels_now, running_now


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
