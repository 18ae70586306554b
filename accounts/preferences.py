"""In which language and time zone somebody sees the pages: what they chose, else what their browser says."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone, translation

if TYPE_CHECKING:
    from accounts.models import User

ZONE_COOKIE = "airelays_zone"  # set by portal.js


def speaking_to(user: User) -> AbstractContextManager[None]:
    """Texts for somebody who is not here, such as mails: in the language that they chose, or the portal's."""
    return translation.override(user.language if user.language and translation.check_for_language(user.language) else settings.LANGUAGE_CODE)


def zone_of(request: HttpRequest) -> ZoneInfo | None:
    user: Any = request.user
    name = (user.time_zone if user.is_authenticated else "") or unquote(request.COOKIES.get(ZONE_COOKIE, ""))
    try:
        return ZoneInfo(name) if name and len(name) <= 40 else None
    except (ValueError, KeyError, OSError):
        return None


class PreferencesMiddleware:
    """Comes after the session. The user is read here, in the thread of the view: `process_view` is synchronous for synchronous views."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        zone = zone_of(request)
        if zone is not None:
            timezone.activate(zone)
        else:
            timezone.deactivate()
        language = getattr(request.user, "language", "")
        if language and translation.check_for_language(language):
            translation.activate(language)
            request.LANGUAGE_CODE = translation.get_language()
