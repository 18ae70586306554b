"""Which pages somebody may open, and what is missing for the others. Links and the page of a refusal both ask here.

Pages of the admin ask their `ModelAdmin`. Other pages name their permissions with `needs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final
from urllib.parse import urlsplit

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from accounts.rights import may

View = Callable[..., HttpResponseBase]
# What is asked of a page of the admin before it is shown.
_RIGHTS: Final = {"changelist": "view", "change": "view", "history": "view", "add": "add", "delete": "delete"}


def needs(*powers: str) -> Callable[[View], View]:
    """Let only people with all of these permissions into a view, and into none of its links."""

    def decorate(view: View) -> View:
        @wraps(view)
        def asking(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not may(request.user, *powers):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        asking.powers = lambda kwargs: (powers,)  # type: ignore[attr-defined]  # read by `_door`
        return asking

    return decorate


@dataclass(frozen=True, slots=True)
class _Door:
    """A page: the `ModelAdmin` that it belongs to, if any, and its view."""

    page: Any
    view: str  # changelist, add, change, history, delete, or the name of an action
    object_id: str  # of the row that it shows, else empty
    powers: tuple[tuple[str, ...], ...]  # permissions that the view itself names: all of any one line

    def open_to(self, request: HttpRequest, row: Any = None, verb: str = "") -> bool:
        """Whether somebody may open the page. `row`: the one that it shows; `verb`: what is done to it if not seen."""
        if self.page is None:
            return not self.powers or any(may(request.user, *line) for line in self.powers)
        if self.view in _RIGHTS:
            ask = getattr(self.page, f"has_{verb or _RIGHTS[self.view]}_permission")
            return bool(ask(request) if row is None else ask(request, row))
        known = (*self.page.actions_list, *self.page.actions_detail)
        if self.view not in self.page._extract_action_names(known):
            return True
        actions = [self.page.get_unfold_action(self.view)]
        return bool(self.page._filter_unfold_actions_by_permissions(request, actions, self.object_id or None))


def _door(match: Any) -> _Door:
    page = getattr(match.func, "model_admin", None)
    powers = getattr(match.func, "powers", None)
    view = ""
    if page is not None:
        options = page.model._meta
        view = str(match.url_name or "").removeprefix(f"{options.app_label}_{options.model_name}_")
    return _Door(
        page, view, str(match.kwargs.get("object_id", "")), tuple(powers(match.kwargs)) if powers is not None else ()
    )


def may_open(request: HttpRequest, url: str) -> bool:
    """Whether somebody may open a page of the portal, as far as that can be told without reading its rows.

    `url`: its path, a query is ignored. True for addresses that are no pages of the portal.
    """
    try:
        match = resolve(urlsplit(url).path)
    except Resolver404:
        return True
    return _door(match).open_to(request)


def open_url(request: HttpRequest, url: str) -> str:
    """Return the address of a page for a link, empty when the reader may not open it."""
    return url if may_open(request, url) else ""


class _Trial:
    """Stands for somebody with all permissions, and notes those of them that the person has not."""

    def __init__(self, person: Any, superuser: bool = False) -> None:
        self._person = person
        self.is_superuser = superuser or person.is_superuser
        self.lacking: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._person, name)

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        if perm not in self.lacking and not self._person.has_perm(perm):
            self.lacking.append(perm)
        return True

    def has_perms(self, perms: Iterable[str], obj: Any = None) -> bool:
        return all([self.has_perm(perm) for perm in perms])

    def has_module_perms(self, app_label: str) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody may not open a page."""

    rights: tuple[str, ...] = ()  # permissions that are missing
    superusers: bool = False  # no permission opens it: it is for superusers
    nobody: bool = False  # it is for nobody


def why_refused(request: HttpRequest) -> Refusal:
    """Return why a page was refused: the page is asked again, in the name of somebody who may do more."""
    match = request.resolver_match
    if match is None:
        return Refusal()
    door = _door(match)
    changes = door.page is not None and door.view == "change" and request.method == "POST"
    row = None
    if door.page is not None and door.object_id and door.view in _RIGHTS:
        row = door.page.get_object(request, unquote(door.object_id))
    for superuser in (False, True):
        trial, asked = _Trial(request.user, superuser), copy(request)
        asked.user = trial  # type: ignore[assignment]
        if door.open_to(asked, row, "change" if changes else ""):
            return Refusal(rights=tuple(trial.lacking)) if not superuser else Refusal(superusers=True)
    return Refusal(nobody=True)
