"""Signing in and signing up."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core import mail
from django.core.cache import cache
from django.test import Client

from accounts.models import AuditEvent, Invitation, User
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared


def test_sign_up_is_off_unless_it_is_turned_on(db: None) -> None:
    form = {
        "username": "eve",
        "email": "eve@example.org",
        "password1": "a long password",
        "password2": "a long password",
    }
    assert "made by its administrator" in Client().get("/accounts/signup/").content.decode()
    Client().post("/accounts/signup/", form)
    assert not User.objects.filter(username="eve").exists()


def test_open_sign_up_asks_for_domains_and_a_confirmed_address(db: None, settings: Any) -> None:
    with_config(settings, signup="open", signup_domains=["example.org"])
    settings.MAILS = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    cache.clear()
    form = {
        "username": "eve",
        "email": "eve@elsewhere.net",
        "password1": "a long password 7",
        "password2": "a long password 7",
    }
    assert "Accounts here are for addresses at example.org" in Client().post("/accounts/signup/", form).content.decode()
    browser = Client()
    answer = browser.post("/accounts/signup/", {**form, "email": "eve@example.org"})
    assert answer.status_code == 302 and browser.get("/").status_code == 302, (
        "not inside before the address is confirmed"
    )
    code = re.search(r"^([A-Z0-9]{3,6}-?[A-Z0-9]{0,6})$", str(mail.outbox[-1].body), re.M)
    assert code, mail.outbox[-1].body
    browser.post("/accounts/confirm-email/", {"code": code[1]})
    assert browser.get("/").status_code == 200
    assert AuditEvent.objects.filter(action="sign-up", actor_name="eve").exists()


def test_an_invitation_is_used_once_and_puts_people_where_it_says(db: None, settings: Any) -> None:
    with_config(settings, signup="invitation")
    cache.clear()
    group = Group.objects.create(name="Testers")
    invitation = Invitation(note="Eve", email="eve@example.org")
    code = invitation.new_code()
    invitation.save()
    invitation.groups.add(group)
    form = {
        "username": "eve",
        "email": "mallory@example.org",
        "password1": "a long password 7",
        "password2": "a long password 7",
    }
    browser = Client()
    browser.get(f"/accounts/signup/?invitation={code}")
    assert "for another e-mail address" in browser.post("/accounts/signup/", form).content.decode()
    assert browser.post("/accounts/signup/", {**form, "email": "eve@example.org"}).status_code == 302
    assert User.objects.get(username="eve").groups.filter(name="Testers").exists()
    invitation.refresh_from_db()
    assert invitation.used == 1 and not invitation.open()
    assert code not in json.dumps(list(Invitation.objects.values("digest", "note")))


def test_guessing_is_slowed_down_at_every_door(people: People, one_window: None) -> None:
    for path, form in (
        ("/accounts/login/", {"login": "alice", "password": "x"}),
        ("/accounts/2fa/authenticate/", {"code": "1"}),
        ("/accounts/signup/", {"username": "x"}),
    ):
        cache.clear()
        assert 429 in {Client().post(path, form).status_code for _ in range(22)}, path


def test_where_nothing_can_be_mailed_the_page_says_so(db: None) -> None:
    assert "sends no e-mail" in Client().get("/accounts/password/reset/").content.decode()


def test_half_a_sign_in_opens_nothing_and_the_second_factor_is_kept_encrypted(people: People) -> None:
    from allauth.mfa.models import Authenticator
    from allauth.mfa.totp.internal.auth import TOTP

    TOTP.activate(people.owner, "JBSWY3DPEHPK3PXP")
    assert "JBSWY3DPEHPK3PXP" not in json.dumps(Authenticator.objects.get(user=people.owner).data)
    browser = Client()
    cache.clear()
    answer = browser.post("/accounts/login/", {"login": "alice", "password": "a long password"})
    assert answer["location"].startswith("/accounts/2fa/authenticate/")
    assert browser.get("/tokens/").status_code == 302


def test_staff_without_a_second_factor_stay_outside_where_it_is_demanded(people: People, settings: Any) -> None:
    from portal.admin.now import channels_now

    with_config(settings, staff_mfa=True)
    answer = signed_in(people.staff).get("/admin/relay/channel/")
    assert answer.status_code == 302 and answer["location"] == "/accounts/2fa/"
    assert channels_now(people.staff) is None, "nor over a websocket"


def test_sign_in_and_out(people: People) -> None:
    client = Client()
    wrong = client.post("/accounts/login/", {"login": "alice", "password": "wrong"})
    assert wrong.status_code == 200 and "is not right" in wrong.content.decode()
    response = client.post("/accounts/login/", {"login": "alice", "password": "a long password"})
    assert response.status_code == 302 and response["location"] == "/"
    assert AuditEvent.objects.filter(action="sign-in", actor=people.owner).exists()
    client.post("/accounts/logout/")
    assert client.get("/").status_code == 302


def test_sign_in_does_not_redirect_elsewhere(people: People) -> None:
    response = Client().post(
        "/accounts/login/?next=https://evil.example.com/",
        {"login": "alice", "password": "a long password", "next": "https://evil.example.com/"},
    )
    assert response["location"] == "/"


def test_guessing_of_passwords_is_slowed_down(people: People, one_window: None) -> None:
    statuses = [
        Client().post("/accounts/login/", {"login": "alice", "password": f"x{number}"}).status_code
        for number in range(12)
    ]
    assert statuses[:8] == [200] * 8 and statuses[-1] == 429
    right = Client().post("/accounts/login/", {"login": "alice", "password": "a long password"})
    assert right.status_code == 429, "the right password does not help while the limit holds"
    other_name = Client().post("/accounts/login/", {"login": "bob", "password": "a long password"})
    assert other_name.status_code == 302, "other people can still sign in from there"


def test_admin_is_entered_through_the_same_counted_door(people: People, clients: tuple[Client, Client, Client]) -> None:
    stranger = Client()
    page = stranger.get("/admin/relay/token/", follow=True)
    assert page.redirect_chain[-1][0] == "/accounts/login/?next=%2Fadmin%2Frelay%2Ftoken%2F"
    assert stranger.post("/admin/login/", {"login": "carol", "password": "a long password"}).status_code == 302
    assert stranger.get("/admin/").status_code == 302, "the admin's own form is not served"
    response = stranger.post(
        "/accounts/login/", {"login": "carol", "password": "a long password", "next": "/admin/relay/token/"}
    )
    assert response["location"] == "/admin/relay/token/" and stranger.get("/admin/login/")["location"] == "/admin/"
    refused = clients[0].get("/admin/", follow=True)
    assert refused.status_code == 403 and "Not allowed" in refused.content.decode()


def test_signing_up_with_an_address_that_has_an_account_looks_the_same_and_tells_its_owner(
    people: People, settings: Any
) -> None:
    with_config(settings, signup="open")
    settings.MAILS = settings.ACCOUNT_PREVENT_ENUMERATION = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    people.owner.email = "alice@example.org"
    people.owner.save()
    cache.clear()
    form = {"password1": "a long password 7", "password2": "a long password 7"}
    found = []
    for name, email in (("eve", "eve@example.org"), ("mallory", "Alice@Example.org")):
        browser = Client()
        answer = browser.post("/accounts/signup/", {**form, "username": name, "email": email})
        page = browser.get(answer["location"])
        found.append((answer.status_code, answer["location"], page.status_code, "Send" in page.content.decode()))
        assert browser.get("/").status_code == 302
    assert found[0] == found[1] and found[0][:3] == (302, "/accounts/confirm-email/", 200)
    assert mail.outbox[-1].to == ["alice@example.org"] and "already" in str(mail.outbox[-1].body)
    settings.MAILS = settings.ACCOUNT_PREVENT_ENUMERATION = False
    page = Client().post("/accounts/signup/", {**form, "username": "eva", "email": "alice@example.org"})
    assert page.status_code == 200 and "already" in page.content.decode(), "nothing can be mailed: the page says it"
