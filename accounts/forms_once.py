"""Forms that create something or move money do so once, however often they are sent.

Each rendering of such a form has a key of its own. The first request with it claims it; another one, of a second click
or of a browser that sends again, is told that the form was sent already. A request that failed gives the key back.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils.decorators import async_only_middleware

from accounts.models.form_key import FormKey
from portal.lib import clock

FIELD: Final = "form_key"
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{22,43}")
_KEEP: Final = timedelta(days=7)
_PRUNE_EVERY: Final = 100  # claims
GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def new_key() -> str:
    """Return the key of one rendering of a form."""
    return secrets.token_urlsafe(16)


@async_only_middleware
def forms_once(get_response: GetResponse) -> GetResponse:
    """Answer a form that was sent before with 409, without doing its work again."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        key = request.POST.get(FIELD, "") if request.method == "POST" else ""
        if not _KEY.fullmatch(key) or not (await request.auser()).is_authenticated:
            return await get_response(request)
        if not await sync_to_async(_claim)(key):
            return HttpResponse(await sync_to_async(render_to_string)("409.html", request=request), status=409)
        done = False
        try:
            response = await get_response(request)
            done = response.status_code < 500
        finally:
            if not done:
                await sync_to_async(_give_back)(key)
        return response

    return middleware


def _claim(key: str) -> bool:
    """Whether this is the first request with the key."""
    row, made = FormKey.objects.get_or_create(key=key)
    if made and row.pk % _PRUNE_EVERY == 0:
        FormKey.objects.filter(used_at__lt=clock.now() - _KEEP).delete()
    return made


def _give_back(key: str) -> None:
    FormKey.objects.filter(key=key).delete()
