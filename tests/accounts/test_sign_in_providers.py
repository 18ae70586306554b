"""Signing in from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.test import Client

from accounts.models import AuditEvent, User
from accounts.sign_in.discovery import discover
from portal import limits
from portal.lib import net
from tests.services.stalled import stalled
from tests.support.portal import People
from tests.support.provider import OLGA, Issuer, issuing, provider_form
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared


@pytest.fixture
def issuer(people: People, settings: Any) -> Iterator[Issuer]:
    """An OIDC server that is set up in the admin."""
    with_config(settings, signup="open")
    cache.clear()
    with issuing() as server:
        answer = signed_in(people.staff).post("/admin/socialaccount/socialapp/add/", provider_form(server))
        assert answer.status_code == 302
        yield server


def is_inside(browser: Client) -> bool:
    return browser.get("/").status_code == 200


def test_an_oidc_server_that_is_set_up_in_the_admin_signs_people_in(people: People, issuer: Issuer) -> None:
    app = SocialApp.objects.get()
    staff = signed_in(people.staff)
    assert app.secret == "" and "the-client-secret" not in json.dumps(app.settings)
    assert "the-client-secret" not in staff.get(f"/admin/socialaccount/socialapp/{app.pk}/change/").content.decode()
    assert "the-client-secret" not in json.dumps(list(AuditEvent.objects.values("detail")))
    browser = Client()
    assert "House" in browser.get("/accounts/login/").content.decode()
    back = issuer.sign_in(browser)
    assert back.status_code == 302, back.content
    assert "the-client-secret-123" in json.dumps(issuer.seen[-1]) or issuer.seen[-1]["authorization"].startswith(
        "Basic "
    )
    assert is_inside(browser) and User.objects.filter(email="olga@example.org").exists()
    assert issuer.asked["nonce"] and issuer.verified(issuer.seen[-1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"claims": {"nonce": "another"}}, "made for another sign-in"),
        ({"claims": {"nonce": None}}, "made for another sign-in"),
        ({"signed_with": "wrong"}, "is not valid"),
        ({"algorithm": "none"}, "no signature"),
        ({"algorithm": "HS256"}, "no signature"),
        ({"id_token": False}, "sent no ID token"),
        ({"claims": {"iss": "https://other.example.org"}}, "is not valid"),
        ({"claims": {"aud": "another-app"}}, "is not valid"),
        ({"claims": {"aud": ["portal", "another-app"]}}, "for another application"),
        ({"claims": {"azp": "another-app"}}, "for another application"),
        ({"claims": {"exp": 1}}, "is not valid"),
        ({"claims": {"exp": None}}, "is not valid"),
        ({"claims": {"sub": "somebody-else"}}, "about somebody else"),
        ({"claims": {"sub": None}}, "is not valid"),
        ({"claims": {"sub": "x" * 300}, "person": {**OLGA, "sub": "x" * 300}}, "in a way that is not allowed"),
        ({"person": {**OLGA, "sub": "olga\0"}}, "in a way that is not allowed"),
        ({"person": {**OLGA, "sub": "\ud800"}}, "in a way that is not allowed"),
        ({"person": {"email": "olga@example.org"}, "claims": {"sub": "olga-1"}}, "about somebody else"),
        ({"answers": {"openid-configuration": (500, "")}}, "answered 500 for its configuration"),
        ({"answers": {"openid-configuration": (200, "<html>")}}, "configuration cannot be read"),
        ({"answers": {"openid-configuration": (200, "[]")}}, "configuration cannot be read"),
        ({"answers": {"openid-configuration": (200, "{}")}}, "no issuer"),
        ({"answers": {"openid-configuration": (200, "x" * (2 << 20))}}, "cannot be reached"),
        ({"answers": {"/token": (401, '{"error":"invalid_client"}')}}, "does not accept the portal"),
        ({"answers": {"/token": (200, '{"error":"incorrect_client_credentials"}')}}, "does not accept the portal"),
        ({"answers": {"/token": (400, '{"error":"invalid_grant"}')}}, "Begin again"),
        ({"answers": {"/token": (500, "no")}}, "cannot be read"),
        ({"answers": {"/token": (200, "<html>")}}, "cannot be read"),
        ({"answers": {"/token": (302, "")}}, "cannot be read"),
        ({"answers": {"/userinfo": (500, "")}}, "answered 500 for its user information"),
        ({"answers": {"/userinfo": (200, "null")}}, "user information cannot be read"),
        ({"answers": {"/jwks": (200, "{}")}}, "a key that it does not list"),
        ({"answers": {"/jwks": (200, '{"keys":[1,{"kid":"k","kty":"RSA"}]}')}}, "a key that it does not list"),
        ({"person": {**OLGA, "email": ["olga@example.org"], "name": 5, "preferred_username": {}}}, "cannot be read"),
    ],
    ids=str,
)
def test_whatever_a_provider_answers_is_a_page_that_says_what(
    issuer: Issuer, change: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in change.items():
        setattr(issuer, name, value)
    browser = Client(raise_request_exception=True)
    answer = issuer.sign_in(browser)
    text = answer.content.decode()
    assert (answer.status_code, says in text, "House" in text) == (502, True, True), text[-1500:]
    assert not is_inside(browser) and not User.objects.filter(email="olga@example.org").exists()
    assert not [record for record in caplog.records if record.exc_info], "one line, no traceback"


def test_who_has_set_a_provider_up_sees_that_it_refuses_the_portal(people: People, issuer: Issuer) -> None:
    cache.clear()
    issuer.answers = {"/token": (401, '{"error":"invalid_client"}')}
    for _ in range(2):
        issuer.sign_in(Client())
    event = AuditEvent.objects.get(action="sign-in-provider.fail")
    page = signed_in(people.staff).get("/admin/accounts/auditevent/").content.decode()
    assert "client ID or secret" in event.detail["reason"] and "Sign-in provider: failed" in page


def test_a_provider_that_cannot_be_reached_is_named(issuer: Issuer) -> None:
    issuer.shutdown()
    issuer.socket.close()
    answer = Client().post("/accounts/oidc/house/login/")
    assert answer.status_code == 502 and "cannot be reached" in answer.content.decode()


def test_a_provider_that_is_not_set_up_is_not_there(people: People) -> None:
    for path in ("github/login/", "github/login/callback/?code=c&state=s", "oidc/house/login/", "gitlab/login/"):
        assert Client().post(f"/accounts/{path}").status_code == 404, path


def test_a_sign_in_that_was_begun_elsewhere_is_told_so(issuer: Issuer) -> None:
    answer = Client().get("/accounts/oidc/house/login/callback/?state=s&code=c")
    assert answer.status_code == 401 and "Begin again" in answer.content.decode()
    assert "<script>" not in Client().get("/accounts/oidc/house/login/callback/?error=<script>").content.decode()


@pytest.mark.parametrize(("said", "inside"), [("false", False), (False, False), (None, False), ("true", True)])
def test_an_address_is_verified_only_where_the_provider_says_so(
    issuer: Issuer, settings: Any, said: Any, inside: bool
) -> None:
    settings.MAILS = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    issuer.person = {**OLGA, "email_verified": said}
    browser = Client()
    assert issuer.sign_in(browser).status_code == 302
    assert is_inside(browser) == inside
    assert EmailAddress.objects.get(email="olga@example.org").verified == inside


def test_people_with_long_names_are_told_apart(issuer: Issuer) -> None:
    for last in "ab":
        issuer.person = {**OLGA, "sub": "x" * 250 + last, "email": f"{last}@example.org", "preferred_username": last}
        browser = Client()
        issuer.sign_in(browser)
        assert is_inside(browser)
    assert SocialAccount.objects.count() == 2


@pytest.mark.parametrize("name", ["preferred_username", "name", "given_name", "picture", "x\0y"])
def test_claims_that_no_database_stores_break_nothing(issuer: Issuer, name: str) -> None:
    issuer.person = {**OLGA, name: ["o\0lga\ud800"] if "\0" in name else "o\0lga\ud800"}
    browser = Client()
    assert issuer.sign_in(browser).status_code == 302 and is_inside(browser)
    found = json.dumps(SocialAccount.objects.get().extra_data)
    assert "olga" in found and "\\u0000" not in found and "\\ud800" not in found


def preset(**values: Any) -> User:
    """Somebody whose account the administrator made."""
    return User.objects.create_user("preset", "Olga@example.org", "a long password", **values)


def test_an_account_that_was_made_before_is_connected_after_its_password_once(issuer: Issuer) -> None:
    user, browser = preset(), Client()
    back = issuer.sign_in(browser)
    assert back.status_code == 302 and back["location"].startswith("/accounts/login/?next=")
    page = browser.get(back["location"]).content.decode()
    assert "has an account here" in page and "House" in page and not is_inside(browser)
    form = {"login": "preset", "password": "a long password", "next": "/accounts/3rdparty/pending/"}
    answer = browser.post("/accounts/login/", form, follow=True)
    assert answer.status_code == 200 and SocialAccount.objects.get().user == user
    again = Client()
    assert issuer.sign_in(again).status_code == 302 and is_inside(again), "from now on without a password"
    assert User.objects.filter(email__iexact="olga@example.org").count() == 1


def test_nobody_elses_account_is_connected(people: People, issuer: Issuer) -> None:
    preset()
    browser = Client()
    issuer.sign_in(browser)
    form = {"login": "bob", "password": "a long password", "next": "/accounts/3rdparty/pending/"}
    page = browser.post("/accounts/login/", form, follow=True)
    assert "Nothing was connected" in page.content.decode() and not SocialAccount.objects.exists()


def test_a_provider_whose_addresses_are_trusted_just_works(people: People, issuer: Issuer) -> None:
    user = preset()
    app = SocialApp.objects.get()
    form = provider_form(issuer, new_secret="", trusted="on")
    assert signed_in(people.staff).post(f"/admin/socialaccount/socialapp/{app.pk}/change/", form).status_code == 302
    browser = Client()
    assert issuer.sign_in(browser).status_code == 302 and is_inside(browser)
    assert SocialAccount.objects.get().user == user
    user.refresh_from_db()
    assert user.has_usable_password()
    SocialAccount.objects.all().delete()
    issuer.person = {**OLGA, "email_verified": False}
    browser = Client()
    issuer.sign_in(browser)
    assert not is_inside(browser) or not SocialAccount.objects.filter(user=user).exists(), "not proved, not trusted"


def test_nobody_comes_into_an_account_with_more_rights_by_a_server_of_their_own(people: People, issuer: Issuer) -> None:
    root, app = people.staff, SocialApp.objects.get()
    EmailAddress.objects.create(user=root, email="olga@example.org", verified=True, primary=True)
    owner = User.objects.create_user("owner", is_staff=True)
    owner.groups.add(Group.objects.get(name="Owner"))
    url = f"/admin/socialaccount/socialapp/{app.pk}/change/"
    assert signed_in(owner).post(url, provider_form(issuer, new_secret="", trusted="on")).status_code == 302
    browser = Client()
    back = issuer.sign_in(browser)
    assert not is_inside(browser) and "/accounts/login/?next=" in back["location"], "connected by signing in once"
    assert signed_in(root).post(url, provider_form(issuer, new_secret="")).status_code == 302
    assert signed_in(root).post(url, provider_form(issuer, new_secret="", trusted="on")).status_code == 302
    assert issuer.sign_in(Client()).status_code == 302 and SocialAccount.objects.get().user == root
    with issuing() as other:  # which says that its user is who signs in with the one of before
        moved = provider_form(other, provider_id=app.provider_id)
        page = signed_in(owner).post(url, moved)
        assert page.status_code == 200 and "have rights that you do not have" in page.content.decode()
        app.delete()
        page = signed_in(owner).post("/admin/socialaccount/socialapp/add/", moved)
        assert "have rights that you do not have" in page.content.decode() and not SocialApp.objects.exists()
        assert signed_in(root).post("/admin/socialaccount/socialapp/add/", moved).status_code == 302


def test_an_unproved_address_binds_nobody(issuer: Issuer, settings: Any) -> None:
    settings.MAILS = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    squatter = Client()
    form = {"username": "olga", "email": "olga@example.org", "password1": "a long password 7"}
    squatter.post("/accounts/signup/", {**form, "password2": "a long password 7"})
    assert User.objects.filter(username="olga").exists()
    browser = Client()
    assert issuer.sign_in(browser).status_code == 302 and is_inside(browser)
    assert SocialAccount.objects.get().user.email == "olga@example.org"
    assert not is_inside(squatter) and squatter.get("/", follow=True).status_code == 200
    fresh = Client()
    fresh.post("/accounts/login/", {"login": "olga", "password": "a long password 7"})
    assert not is_inside(fresh)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"signup": "off"}, "made by its administrator"),
        ({"signup": "invitation"}, "need an invitation"),
        ({"signup": "open", "signup_domains": ["corp.example"]}, "addresses at corp.example"),
    ],
)
def test_who_may_not_sign_up_is_told_why(issuer: Issuer, settings: Any, config: dict[str, Any], says: str) -> None:
    with_config(settings, **config)
    page = issuer.sign_in(Client())
    assert says in page.content.decode() and not User.objects.filter(email="olga@example.org").exists()


def test_a_secret_does_not_follow_the_address_of_a_provider(people: People, issuer: Issuer) -> None:
    app, staff = SocialApp.objects.get(), signed_in(people.staff)
    path = f"/admin/socialaccount/socialapp/{app.pk}/change/"
    elsewhere = provider_form(issuer, server_url="http://127.0.0.1:9", new_secret="")
    assert "given for another address" in staff.post(path, elsewhere).content.decode()
    assert staff.post(path, provider_form(issuer, name="Home", new_secret="")).status_code == 302
    app.refresh_from_db()
    app.settings["server_url"] = "http://127.0.0.1:9"  # by whatever else than the form
    app.save()
    assert Client().post("/accounts/oidc/house/login/").status_code == 404


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
    from portal.services import outside

    monkeypatch.setattr(outside, "allowances", lambda: ())
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_args, **_more: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 80))]
    )
    with pytest.raises(requests.ConnectionError, match=r"10\.1\.2\.3 is not a public Internet address"):
        outbound.CheckedSession().get("http://id.example.org/.well-known/openid-configuration")
    monkeypatch.setattr(outside, "allowances", lambda: (net.Allowance.parse("10.1.2.3"),))
    assert outbound.permitted_address("id.example.org", 80) == "10.1.2.3"


def test_a_provider_that_hangs_is_named_in_time(
    issuer: Issuer, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROVIDER_SECONDS", 0.5)
    with stalled() as server:
        SocialApp.objects.update(settings={"server_url": f"http://127.0.0.1:{server.port}"})
        answer = Client().post("/accounts/oidc/house/login/")
        assert answer.status_code == 502 and "did not answer within" in answer.content.decode()
        found = discover(f"http://127.0.0.1:{server.port}")
        assert found.away and "did not answer within" in found.fault
