"""Behind a proxy, and for browser apps."""

from __future__ import annotations

import inspect
from pathlib import Path

import httpx
import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from tests.support.portal import Portal, ask
from tests.support.server import Server, serving


@pytest.fixture
def edge(live: Portal, tmp_path: Path) -> object:
    env = {
        "AIRELAYS_TRUSTED_PROXIES": "127.0.0.1",
        "AIRELAYS_CORS_ORIGINS": "https://app.example.com",
        "AIRELAYS_PUBLIC_URL": "https://ai.example.org",
    }
    with serving(tmp_path / "log", env=env) as running:
        yield running


def test_behind_a_trusted_proxy_and_for_browser_apps(edge: Server, live: Portal) -> None:
    model, user = live.model(), live.user()
    limited, free = live.token(user, allowed_ips=["203.0.113.0/24"]), live.token(user)
    # The proxy is believed: the client is the last hop that is no proxy of ours.
    for header, status in (
        ("203.0.113.9", 200),
        ("203.0.113.9, 198.51.100.1", 403),
        ("198.51.100.1, 203.0.113.9", 200),
        ("203.0.113.9, 127.0.0.1", 200),
    ):
        response = edge.post(limited, ask(model), headers={"x-forwarded-for": header})
        assert response.status_code == status, header
    assert (
        live.record(edge.post(free, ask(model), headers={"x-forwarded-for": "203.0.113.9"})).client_ip == "203.0.113.9"
    )
    # A browser app of the permitted origin may call and read; others may not.
    ok = edge.post(free, ask(model), headers={"origin": "https://app.example.com"})
    assert (
        ok.headers["access-control-allow-origin"] == "https://app.example.com"
        and "x-request-id" in ok.headers["access-control-expose-headers"]
    )
    assert (
        "access-control-allow-origin"
        not in edge.post(free, ask(model), headers={"origin": "https://evil.example.com"}).headers
    )
    wanted = {
        "origin": "https://app.example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-os",
    }
    preflight = httpx.options(f"{edge.v1}/chat/completions", headers=wanted, trust_env=False)
    assert (
        preflight.status_code == 204
        and preflight.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    )
    errors = edge.post(
        "sk-wrong", ask(model), headers={"origin": "https://app.example.com", "x-forwarded-for": "203.0.113.77"}
    )
    assert errors.status_code == 401 and errors.headers["access-control-allow-origin"], (
        "a browser app can read errors, too"
    )
    # The pages: HTTPS as the proxy saw it, secure cookies, the public host alone.
    https = {"host": "ai.example.org", "x-forwarded-proto": "https"}
    page = httpx.get(f"{edge.url}/accounts/login/", headers=https, trust_env=False, timeout=60)
    assert (
        page.status_code == 200
        and "secure" in page.headers["set-cookie"].lower()
        and "max-age=31536000" in page.headers["strict-transport-security"]
    )
    assert (
        httpx.get(
            f"{edge.url}/accounts/login/", headers={"host": "ai.example.org"}, trust_env=False, timeout=60
        ).status_code
        == 301
    )
    assert (
        httpx.get(
            f"{edge.url}/accounts/login/", headers={**https, "host": "evil.example.com"}, trust_env=False, timeout=60
        ).status_code
        == 400
    )


def test_cors_is_off_by_default(server: Server, live: Portal) -> None:
    response = server.get(live.token(), "/v1/models", origin="https://app.example.com")
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", [name for name in django_settings.MIDDLEWARE if name.startswith(("portal.", "accounts."))]
)
def test_middleware_of_ours_holds_no_thread_and_brings_no_shell_of_its_own(path: str) -> None:
    async def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse("page")

    middleware = import_string(path)
    assert middleware.async_capable and iscoroutinefunction(middleware(page))
    if inspect.isclass(middleware):  # which hooks into the view or its errors, and leaves the passing on to Django
        assert issubclass(middleware, MiddlewareMixin)
        assert not {"__init__", "__call__"} & set(vars(middleware))
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1")
    assert async_to_sync(middleware(page))(request).content == b"page"
