"""In which language and time zone somebody sees the pages: what they chose, else what their browser says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone, translation
from django.utils.deprecation import MiddlewareMixin

if TYPE_CHECKING:
    from accounts.models import User

ZONE_COOKIE = "airelays_zone"  # set by portal.js


def speaking_to(user: User) -> AbstractContextManager[None]:
    """Texts for somebody who is not here, such as mails: in the language that they chose, or the portal's."""
    return translation.override(_chosen(user) or settings.LANGUAGE_CODE)


@dataclass(frozen=True, slots=True)
class Reader:
    """In which language and time zone somebody reads a page. `zone` None: the portal's."""

    language: str
    zone: ZoneInfo | None

    def sees(self, what: Callable[..., Any], *args: Any) -> Any:
        """What a function returns for this reader."""
        with translation.override(self.language), timezone.override(self.zone):
            return what(*args)


def reader_of(scope: Mapping[str, Any]) -> Reader:
    """Of a websocket, which no middleware sees: as the page that has opened it was shown."""
    request = HttpRequest()
    request.user, request.COOKIES = scope["user"], scope.get("cookies", {})
    request.META["HTTP_ACCEPT_LANGUAGE"] = dict(scope["headers"]).get(b"accept-language", b"").decode("latin-1")
    return Reader(_chosen(request.user) or translation.get_language_from_request(request), zone_of(request))


def _chosen(user: Any) -> str:
    """The language that a user has set; empty: none."""
    language: str = getattr(user, "language", "")
    return language if language and translation.check_for_language(language) else ""


def zone_of(request: HttpRequest) -> ZoneInfo | None:
    user: Any = request.user
    name = (user.time_zone if user.is_authenticated else "") or unquote(request.COOKIES.get(ZONE_COOKIE, ""))
    try:
        return ZoneInfo(name) if name and len(name) <= 40 else None
    except (ValueError, KeyError, OSError):
        return None


class PreferencesMiddleware(MiddlewareMixin):
    """Comes after the session. The user is read here, in the thread of the view: `process_view` is synchronous for synchronous views."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        zone = zone_of(request)
        if zone is not None:
            timezone.activate(zone)
        else:
            timezone.deactivate()
        if language := _chosen(request.user):
            translation.activate(language)
            request.LANGUAGE_CODE = translation.get_language()
