"""Every parameter that any page reads from its address, with values that strangers write: no page breaks on one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from django.contrib.admin import site
from django.core.handlers import wsgi
from django.core.management import call_command
from django.http import QueryDict
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.models import User
from relay.usage import rollup
from tests.support.pages.pages import ALL_PAGES, FILTERED_PAGES, ids

pytestmark = pytest.mark.shared
VALUES: Final = (
    "²",  # `isdigit`, but no number
    "9" * 5000,  # more digits than `int` reads
    "9" * 19,  # beyond 64 bits
    "-1",
    "\x00",
    "9999-12-31",
    "0001-01-01",
    "NaN",
)
ALONE: Final = ("²", "9" * 5000, "\x00", "9999-12-31")
OF_DJANGO: Final = re.compile("/admin/(?!relay/usagerecord/)[a-z]+/[a-z]+/")
"""Lists and forms of models, whose filters are Django's: all at once is enough."""
SKIPPED: Final = ("jsi18n", "static", "i18n/")


class Recording(QueryDict):
    """A query string that remembers which of its parameters were asked for."""

    asked: set[str] = set()  # one for all requests: `names_read` empties it

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def getlist(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().getlist(key, default)


def routes(patterns: list[Any], start: str = "/") -> Iterator[str]:
    """Every address without a variable part."""
    for entry in patterns:
        path = f"{start}{str(entry.pattern).lstrip('^').rstrip('$')}"
        if any(sign in path for sign in "<(?\\") or path[1:].startswith(SKIPPED):
            continue
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, path)
        elif isinstance(entry, URLPattern):
            yield path


def paths() -> list[tuple[str, str]]:
    """Roles and paths of all pages: those listed for the tour, those without a variable part, those of every model."""
    known = ids()
    found = {
        (place.role or "user", place.path.format(**known).partition("?")[0]) for place in (*ALL_PAGES, *FILTERED_PAGES)
    }
    found |= {("staff", path) for path in routes(get_resolver().url_patterns)}
    for model in site._registry:
        first = model._default_manager.first()
        if first is not None:
            start = f"/admin/{model._meta.app_label}/{model._meta.model_name}/{first.pk}"
            found |= {("staff", f"{start}/{page}/") for page in ("change", "delete", "history")}
    return sorted(entry for entry in found if not entry[1].endswith("logout/"))


def names_read(client: Client, path: str) -> set[str]:
    """The parameters that a page reads: those it asks for, its filters, the fields of its form."""
    Recording.asked.clear()
    answer = client.get(path)
    found = set(Recording.asked)
    context: Any = answer.context or {}
    if context.get("cl") is not None:
        for spec in context["cl"].filter_specs:
            found |= {name for name in spec.expected_parameters() if name}
        found |= {"q", "o", "p", "all", "e", "id__in", "nothing__of__this"}
    if context.get("adminform") is not None:
        found |= set(context["adminform"].form.fields)
    return found


@pytest.mark.timeout(1500)
def test_no_page_breaks_on_what_is_typed_into_its_address(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"status_page": "public", "signup": "open"})
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    rollup.rebuild()
    admin = User.objects.create_superuser("page-admin", password="a long password")
    call_command("seed", users=2, tokens=4, requests=40, days=2)
    monkeypatch.setattr(wsgi, "QueryDict", Recording)
    browsers = {role: Client(raise_request_exception=False) for role in ("user", "staff")}
    browsers["user"].force_login(User.objects.get(pk=ids()["user"]))
    browsers["staff"].force_login(admin)
    broken, asked = [], 0
    for role, path in paths():
        names = names_read(browsers[role], path)
        queries = [dict.fromkeys(names, value) for value in VALUES]
        if not OF_DJANGO.match(path):
            queries += [{name: value} for name in sorted(names) for value in ALONE]
        for query in queries:
            answer = browsers[role].get(path, query)
            asked += 1
            if answer.status_code >= 500:
                broken.append(f"{answer.status_code} {path} {[(name, value[:12]) for name, value in query.items()]}")
    assert not broken, f"{len(broken)} of {asked}:\n" + "\n".join(broken)
    assert asked > 1000
