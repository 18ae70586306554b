"""The language and time zone in which a user sees the pages: the chosen ones, or else those of the browser."""

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


def language_of(user: User) -> AbstractContextManager[None]:
    """Activate a user's language, or else the portal's, for texts that are sent to the user, such as mails."""
    return translation.override(_chosen_language(user) or settings.LANGUAGE_CODE)


@dataclass(frozen=True, slots=True)
class Reader:
    """The language and time zone in which a page is shown."""

    language: str
    zone: ZoneInfo | None  # None: the portal's

    def render(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function with the reader's language and time zone active."""
        with translation.override(self.language), timezone.override(self.zone):
            return function(*args)


def reader_of(scope: Mapping[str, Any]) -> Reader:
    """Return the reader of a websocket, which passes no middleware: the same as of the page that opened it."""
    request = HttpRequest()
    request.user, request.COOKIES = scope["user"], scope.get("cookies", {})
    request.META["HTTP_ACCEPT_LANGUAGE"] = dict(scope["headers"]).get(b"accept-language", b"").decode("latin-1")
    return Reader(_chosen_language(request.user) or translation.get_language_from_request(request), zone_of(request))


def _chosen_language(user: Any) -> str:
    """Return the language that a user has chosen, empty when none."""
    language: str = getattr(user, "language", "")
    return language if language and translation.check_for_language(language) else ""


def zone_of(request: HttpRequest) -> ZoneInfo | None:
    """Return the time zone that the user has chosen, or else that of the browser. None: the portal's."""
    user: Any = request.user
    name = (user.time_zone if user.is_authenticated else "") or unquote(request.COOKIES.get(ZONE_COOKIE, ""))
    try:
        return ZoneInfo(name) if name and len(name) <= 40 else None
    except (ValueError, KeyError, OSError):
        return None


class PreferencesMiddleware(MiddlewareMixin):
    """Activates language and time zone of the user. Comes after the session middleware.

    The user is read in `process_view`, which runs in the thread of the view when the view is synchronous.
    """

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        zone = zone_of(request)
        if zone is not None:
            timezone.activate(zone)
        else:
            timezone.deactivate()
        if language := _chosen_language(request.user):
            translation.activate(language)
            request.LANGUAGE_CODE = translation.get_language()
