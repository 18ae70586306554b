"""Signed-in browsers, of Django and of httpx, and the forms that they send."""

from __future__ import annotations

import re
from typing import Any

import httpx
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User
from tests.support.server import Server

NO_BUDGETS = {"budgets-TOTAL_FORMS": 0, "budgets-INITIAL_FORMS": 0}
POSTS = {
    "token-reveal": "/tokens/{token}/reveal/",
    "token-rotate": "/tokens/{token}/rotate/",
    "token-revoke": "/tokens/{token}/revoke/",
    "token-enabled": "/tokens/{token}/enabled/",
    "token-limits": "/tokens/{token}/limits/",
    "my-file-download": "/storage/{file}/content/",
    "my-file-delete": "/storage/{file}/delete/",
    "playground-key": "/playground/key/",
    "kept-delete": "/storage/kept/delete/",
}
"""Every view of the portal that changes something."""
SECRET_WORD = "owned-by-alice"
SESSION = -1234567890123456789  # the digest of one of her clients


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def clerk(*permissions: str) -> Client:
    """A member of staff with these rights and no others."""
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return signed_in(user)


def session_of(user: User) -> dict[str, str]:
    """Cookies of somebody who is signed in at the server."""
    client = signed_in(user)
    return {"sessionid": client.cookies["sessionid"].value}


def with_config(settings: Any, **values: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update=values)


def sign_in(client: httpx.Client, server: Server, name: str) -> None:
    page = client.get(f"{server.url}/accounts/login/")
    csrf = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert csrf
    form = {"login": name, "password": "a long password", "csrfmiddlewaretoken": csrf[1]}
    assert client.post(f"{server.url}/accounts/login/", data=form).status_code == 302


def csrf_of(client: httpx.Client, url: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', client.get(url).text)
    assert found
    return found[1]
