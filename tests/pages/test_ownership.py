"""Every page and every form of the portal shows and changes what is ones own alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import get_resolver

from accounts.models import User
from portal.pages.shared.scope import usage_of
from relay.models import Token, Upload
from tests.support.portal import People
from tests.support.sessions import POSTS, SECRET_WORD, signed_in

pytestmark = pytest.mark.shared

PORTAL = {
    "home": "/",
    "tokens": "/tokens/",
    "token-new": "/tokens/new/",
    "token": "/tokens/{token}/",
    "usage": "/usage/",
    "usage-newest": "/usage/newest/?after=0",
    "usage-export": "/usage/export.csv",
    "receipt": "/usage/{request}/",
    "sessions": "/usage/sessions/",
    "session": "/usage/sessions/{session}/",
    "my-files": "/storage/",
    "docs": "/docs/",
    "balance": "/balance/",
    "notices": "/balance/notices/",
    "connect": "/connect/",
    "models": "/catalog/",
    "playground": "/playground/",
    "errors": "/errors/",
    "status": "/status/",
    "account": "/accounts/",
}
"""Every page of the portal that is read, by the name of its view."""


def test_every_view_of_the_portal_is_in_these_tests() -> None:
    patterns: list[Any] = list(get_resolver("portal.urls").url_patterns)
    names = {
        pattern.name
        for pattern in patterns
        if getattr(pattern, "name", None) and not str(pattern.pattern).startswith("admin/")
    }
    names = {name for name in names if not name.startswith("my-plan")}  # in tests of plans: it needs no id of a row
    assert names - {"healthz", "readyz"} == set(PORTAL) - {"account"} | set(POSTS)


@pytest.mark.parametrize("name", PORTAL)
def test_pages_show_what_is_ones_own(people: People, owned: dict[str, Any], settings: Any, name: str) -> None:
    """Owner, another user, staff without this right: only the owner reads a word of it on the portal."""
    path = PORTAL[name].format(**owned)
    staff = User.objects.create_user("dora", password="a long password", is_staff=True)
    assert Client().get(path).status_code == 302, "nobody without a sign-in"
    assert signed_in(people.owner).get(path).status_code == 200
    for stranger in (people.other, staff, people.staff):
        answer = signed_in(stranger).get(path)
        if "{" in PORTAL[name]:
            assert answer.status_code == 404, stranger
        else:
            assert answer.status_code == 200, stranger
            if answer.streaming:  # written piece by piece from this set; its bytes are looked at in test_portal
                assert not usage_of(stranger).exists()
            else:
                assert SECRET_WORD not in answer.content.decode(), stranger


@pytest.mark.parametrize("name", POSTS)
def test_what_is_anothers_cannot_be_changed(people: People, owned: dict[str, Any], name: str) -> None:
    cache.clear()
    path = POSTS[name].format(**owned)
    data = {"playground-key": {"token": owned["token"]}, "token-enabled": {"enabled": "0"}}.get(name, {})
    assert Client().post(path, data).status_code == 302
    for stranger in (people.other, people.staff):
        answer = signed_in(stranger).post(path, data)
        assert answer.status_code == 404 if name != "kept-delete" else answer.status_code == 302, stranger
    token = Token.objects.get(pk=owned["token"])
    assert (
        token.enabled
        and token.revoked_at is None
        and token.rotated_at is None
        and Upload.objects.filter(file_id="file-alice").exists()
    )
    if name not in {"my-file-delete", "token-limits"}:
        assert signed_in(people.owner).post(path, data).status_code in {200, 302}
