"""Behind a proxy, and for browser apps."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from allauth.socialaccount.models import SocialApp
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings as django_settings
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from accounts.sign_in.adapter import seal_secret
from portal.lib import net
from tests.support.portal import People, Portal, ask
from tests.support.server import Server, serving
from tests.support.sessions import with_config


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


def test_page_for_an_unknown_host_says_which_setting_to_change(db: None, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["ai.example.org"]
    answer = Client(headers={"host": "ai.example.com"}).get("/accounts/login/")
    text = answer.content.decode()
    assert answer.status_code == 400 and "AIRELAYS_PUBLIC_URL" in text and "AIRELAYS_ALLOWED_HOSTS" in text


@pytest.fixture
def public(settings: Any) -> str:
    """The portal behind a TLS proxy at 127.0.0.1, as its settings make it."""
    settings.CONFIG = settings.CONFIG.model_copy(update={"public_url": "https://ai.example.org:8443"})
    settings.ALLOWED_HOSTS = ["127.0.0.1", "ai.example.org", "testserver"]
    settings.SECURE_SSL_REDIRECT, settings.SECURE_SSL_HOST = True, "ai.example.org:8443"
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.TRUSTED_PROXIES = net.parse_networks(["127.0.0.1"])
    return str(settings.CONFIG.public_url)


@pytest.mark.parametrize("host", ["ai.example.org", "ai.example.org:8443", "127.0.0.1:8080"])
def test_links_that_leave_the_page_begin_with_the_configured_address(
    db: None, public: str, people: People, settings: Any, host: str
) -> None:
    """nginx sends `Host $host` without the port, and some proxies send the portal's own name."""
    with_config(settings, signup="invitation")
    client = Client(headers={"host": host, "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"})
    client.force_login(people.staff)
    page = client.post("/admin/accounts/invitation/add/", {"note": "Eve", "email": "eve@example.org", "uses": "1"})
    assert f"{public}/accounts/signup/?invitation=" in page.content.decode()
    SocialApp.objects.create(
        provider="github", name="GitHub", client_id="id", settings={"sealed_secret": seal_secret("s")}
    )
    to_provider = Client(headers={"host": host, "x-forwarded-proto": "https"}).post("/accounts/github/login/")
    assert parse_qs(urlsplit(to_provider["location"]).query)["redirect_uri"] == [
        f"{public}/accounts/github/login/callback/"
    ]
    plain = Client(headers={"host": host, "x-forwarded-proto": "http"}).get("/accounts/login/")
    assert plain.status_code == 301 and plain["location"] == f"{public}/accounts/login/"


@pytest.mark.parametrize(
    ("trusted", "headers", "status", "said"),
    [
        ([], {"x-forwarded-proto": "https"}, 502, "AIRELAYS_TRUSTED_PROXIES"),
        ([], {"x-forwarded-for": "203.0.113.9"}, 502, "AIRELAYS_TRUSTED_PROXIES"),
        (["10.0.0.0/8"], {"x-forwarded-proto": "https"}, 502, "AIRELAYS_TRUSTED_PROXIES"),
        (["127.0.0.1"], {"x-forwarded-for": "203.0.113.9"}, 502, "X-Forwarded-Proto"),
        (["127.0.0.1"], {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}, 200, ""),
        (["127.0.0.1"], {"x-forwarded-proto": "http"}, 301, ""),
        ([], {"x-forwarded-proto": "http"}, 301, ""),
        ([], {}, 301, ""),
    ],
)
def test_a_proxy_that_would_be_redirected_for_ever_is_told_what_to_set(
    db: None,
    public: str,
    settings: Any,
    caplog: Any,
    trusted: list[str],
    headers: dict[str, str],
    status: int,
    said: str,
) -> None:
    settings.TRUSTED_PROXIES = net.parse_networks(trusted)
    answers = [Client(headers=headers).get("/accounts/login/") for _ in range(2)]
    assert {answer.status_code for answer in answers} == {status}
    if said:
        assert said in answers[0].content.decode() and "127.0.0.1" in caplog.text
    assert Client(headers=headers).get("/healthz").status_code == 200


def test_a_form_from_an_address_that_the_portal_does_not_know_says_what_to_set(db: None, caplog: Any) -> None:
    """TLS ends at a proxy, and neither PUBLIC_URL nor TRUSTED_PROXIES is set."""
    client = Client(enforce_csrf_checks=True, headers={"host": "testserver"})
    client.get("/accounts/login/")
    form = {"login": "a", "password": "b", "csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    refused = client.post("/accounts/login/", form, headers={"origin": "https://testserver"})
    assert refused.status_code == 403 and "AIRELAYS_PUBLIC_URL" in refused.content.decode()
    assert "https://testserver" in caplog.text
    foreign = client.post("/accounts/login/", form, headers={"origin": "https://evil.example.com"})
    assert foreign.status_code == 403 and "AIRELAYS" not in foreign.content.decode()


def test_a_name_that_the_portal_does_not_know_says_what_to_set(db: None) -> None:
    refused = Client(headers={"host": "unknown.example.org"}).get("/accounts/login/")
    assert refused.status_code == 400 and "AIRELAYS_PUBLIC_URL" in refused.content.decode()


@pytest.mark.parametrize(
    ("path", "cookies"),
    [("/accounts/login/?next=%00", {}), ("/%00", {}), ("/accounts/login/", {"sessionid": '"\\000"'})],
)
def test_nul_in_an_address_or_a_cookie_is_refused(db: None, path: str, cookies: dict[str, str]) -> None:
    client = Client()
    client.cookies.load("; ".join(f"{name}={value}" for name, value in cookies.items()))
    assert client.get(path).status_code == 400


def test_nul_in_a_form_is_refused(people: People) -> None:
    client = Client()
    client.force_login(people.owner)
    for path, form in (
        ("/tokens/new/", {"name": "a\x00"}),
        ("/playground/key/", {"token": "1\x00"}),
        ("/balance/", {"code": "\x00"}),
        ("/accounts/login/", {"login": "a\x00", "password": "b"}),
    ):
        assert client.post(path, form).status_code == 400, path
        assert Client().post(path, form).status_code == 400, path


@pytest.mark.parametrize("role", ["", "user", "staff"])
@pytest.mark.parametrize("path", ["/", "/balance/", "/admin/relay/channel/", "/accounts/login/", "/status/"])
def test_a_database_that_is_away_is_a_page_that_says_so(
    people: People, monkeypatch: pytest.MonkeyPatch, path: str, role: str
) -> None:
    """Also where the session is read, before any view."""
    client = Client(raise_request_exception=False)
    if role:
        client.force_login(people.owner if role == "user" else people.staff)

    def away(*_: object) -> None:
        raise OperationalError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "cursor", away)
        answer = client.get(path)
        alive = client.get("/healthz")
    assert alive.status_code == 200
    if path == "/accounts/login/" and not role:
        assert answer.status_code in {200, 503}, "nothing is read for it"
        return
    if answer.status_code == 302:
        assert not role and "/login/" in answer["location"]
        return
    assert answer.status_code == 503 and answer["retry-after"] == "10"
    assert "database" in answer.content.decode()


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
