"""Signing in from elsewhere."""

from __future__ import annotations

import json
import threading
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib import net
from tests.support.portal import People
from tests.support.provider import Provider
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared


def test_an_oidc_server_that_is_set_up_in_the_admin_signs_people_in(people: People, settings: Any) -> None:
    from allauth.socialaccount.models import SocialApp

    with_config(settings, signup="open")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        form = {
            "provider": "openid_connect",
            "name": "House",
            "provider_id": "house",
            "server_url": address,
            "client_id": "portal",
            "new_secret": "the-client-secret-123",
        }
        staff = signed_in(people.staff)
        assert staff.post("/admin/socialaccount/socialapp/add/", form).status_code == 302
        app = SocialApp.objects.get()
        assert app.secret == "" and "the-client-secret" not in json.dumps(app.settings)
        assert "the-client-secret" not in staff.get(f"/admin/socialaccount/socialapp/{app.pk}/change/").content.decode()
        assert "the-client-secret" not in json.dumps(list(AuditEvent.objects.values("detail")))
        browser = Client()
        assert "House" in browser.get("/accounts/login/").content.decode()
        away = browser.post("/accounts/oidc/house/login/")
        assert away.status_code == 302 and away["location"].startswith(f"{address}/authorize")
        state = parse_qs(urlsplit(away["location"]).query)["state"][0]
        back = browser.get(f"/accounts/oidc/house/login/callback/?{urlencode({'state': state, 'code': 'c'})}")
        assert back.status_code == 302, back.content
        assert "the-client-secret-123" in json.dumps(Provider.seen[-1]) or Provider.seen[-1][
            "authorization"
        ].startswith("Basic ")
        assert (
            browser.get("/", follow=True).status_code == 200 and User.objects.filter(email="olga@example.org").exists()
        )
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "http://10.0.0.1/realms/x", "http://localhost:9/realms", "http://2130706433/"],
)
def test_sign_in_providers_cannot_point_inside(people: People, url: str) -> None:
    from allauth.socialaccount.models import SocialApp

    form = {
        "provider": "openid_connect",
        "name": "x",
        "provider_id": "x",
        "server_url": url,
        "client_id": "c",
        "new_secret": "s",
    }
    answer = signed_in(people.staff).post("/admin/socialaccount/socialapp/add/", form)
    if url.startswith(
        "http://localhost"
    ):  # the suite allows 127.0.0.1, which a local name may stand for; the connection is checked
        return
    assert answer.status_code == 200 and not SocialApp.objects.exists()


def test_the_connection_to_a_provider_is_checked_on_the_address_that_its_name_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    import requests

    from accounts.sign_in import outbound

    monkeypatch.setattr(outbound, "allowances", lambda: ())
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_args, **_more: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 80))]
    )
    with pytest.raises(requests.ConnectionError, match=r"10\.1\.2\.3 is not a public Internet address"):
        outbound.CheckedSession().get("http://id.example.org/.well-known/openid-configuration")
    monkeypatch.setattr(outbound, "allowances", lambda: (net.Allowance.parse("10.1.2.3"),))
    assert outbound.permitted_address("id.example.org", 80) == "10.1.2.3"
