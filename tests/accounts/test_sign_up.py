"""Signing up: codes, typing errors, invitations, and what an address that is not proved holds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import Group
from django.core import mail
from django.core.cache import cache
from django.db import IntegrityError
from django.test import Client

from accounts.models import Invitation, User
from accounts.sign_in import sign_up
from portal.lib import clock
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared
PASSWORD = "a long password 7"


@pytest.fixture(autouse=True)
def mails(db: None, settings: Any) -> None:
    with_config(settings, signup="open")
    settings.MAILS = settings.ACCOUNT_PREVENT_ENUMERATION = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()


def start(browser: Client, name: str, email: str, **query: str) -> Any:
    form = {"username": name, "email": email, "password1": PASSWORD, "password2": PASSWORD}
    return browser.post("/accounts/signup/", form, query_params=query)


def code() -> str:
    found = re.search(r"^([A-Z0-9]{3,6}-?[A-Z0-9]{0,6})$", str(mail.outbox[-1].body), re.M)
    assert found, mail.outbox[-1].body
    return found[1]


def prove(browser: Client) -> Any:
    return browser.post("/accounts/confirm-email/", {"code": code()})


def is_inside(browser: Client) -> bool:
    return browser.get("/").status_code == 200


def invite(**values: Any) -> tuple[Invitation, str]:
    invitation = Invitation(note="Eve", **values)
    secret = invitation.new_code()
    invitation.save()
    return invitation, secret


def test_a_code_can_be_sent_again(mails: None) -> None:
    browser = Client()
    start(browser, "bob", "bob@corp.example")
    first = code()
    page = browser.get("/accounts/confirm-email/").content.decode()
    assert "Send another code" in page and "The address is wrong" in page
    browser.post("/accounts/confirm-email/", {"action": "resend"})
    assert len(mail.outbox) == 2 and code() != first
    prove(browser)
    assert is_inside(browser)


def test_an_address_with_a_typing_error_is_corrected_by_the_same_rules(settings: Any) -> None:
    with_config(settings, signup_domains=["corp.example"])
    browser = Client()
    start(browser, "bob", "bobb@corp.example")
    refused = browser.post("/accounts/confirm-email/", {"action": "change", "email": "bob@elsewhere.example"})
    assert "addresses at corp.example" in refused.content.decode()
    browser.post("/accounts/confirm-email/", {"action": "change", "email": "Bob@corp.example"})
    assert mail.outbox[-1].to == ["bob@corp.example"]
    prove(browser)
    assert is_inside(browser)
    assert list(EmailAddress.objects.filter(verified=True).values_list("email", flat=True)) == ["bob@corp.example"]


def test_who_comes_back_before_the_code_was_entered_gets_a_page_to_enter_it() -> None:
    start(Client(), "bob", "bob@corp.example")
    browser = Client()
    answer = browser.post("/accounts/login/", {"login": "bob", "password": PASSWORD})
    assert answer.status_code == 302 and answer["location"].startswith("/accounts/confirm-email/")
    prove(browser)
    assert is_inside(browser)


def test_many_codes_are_not_said_to_be_many_passwords(one_window: None) -> None:
    start(Client(), "bob", "bob@corp.example")
    pages = [Client().post("/accounts/login/", {"login": "bob", "password": PASSWORD}) for _ in range(7)]
    assert pages[-1].status_code == 429 and "Codes were sent" in pages[-1].content.decode()
    assert len(mail.outbox) <= 5


def test_an_invitation_is_used_when_the_address_is_proved(settings: Any) -> None:
    with_config(settings, signup="invitation")
    invitation, secret = invite()
    invitation.groups.add(group := Group.objects.create(name="Testers"))
    typo = Client()
    assert start(typo, "bob", "bob@crop.example", invitation=secret).status_code == 302
    invitation.refresh_from_db()
    assert invitation.used == 0
    browser = Client()
    start(browser, "rob", "bob@corp.example", invitation=secret)
    prove(browser)
    invitation.refresh_from_db()
    assert is_inside(browser) and invitation.used == 1 and group.user_set.get().username == "rob"


def test_of_two_with_one_invitation_the_slower_is_told_so(settings: Any) -> None:
    with_config(settings, signup="invitation")
    _invitation, secret = invite()
    slow, fast = Client(), Client()
    start(slow, "slow", "slow@corp.example", invitation=secret)
    slow_code = code()
    start(fast, "fast", "fast@corp.example", invitation=secret)
    prove(fast)
    answer = slow.post("/accounts/confirm-email/", {"code": slow_code})
    assert answer.status_code == 403 and "has been used" in answer.content.decode()
    assert is_inside(fast) and not is_inside(slow)
    assert (
        not User.objects.filter(username="slow").exists() and not EmailAddress.objects.filter(verified=False).exists()
    )


def test_an_invitation_that_is_taken_back_lets_nobody_in_who_is_on_the_way(settings: Any) -> None:
    with_config(settings, signup="invitation")
    invitation, secret = invite()
    browser = Client()
    start(browser, "eve", "eve@example.org", invitation=secret)
    invitation.delete()
    prove(browser)
    assert not is_inside(browser) and not User.objects.filter(username="eve").exists()
    assert not EmailAddress.objects.filter(email="eve@example.org").exists()


@pytest.mark.parametrize(
    ("signup", "values", "secret", "says"),
    [
        ("off", {}, True, "made by its administrator"),
        ("invitation", {}, False, "need an invitation"),
        ("invitation", {"used": 1}, True, "has been used"),
        ("invitation", {"expires_at": clock.now() - timedelta(days=7)}, True, "This invitation ended on"),
        ("invitation", None, True, "is not known here"),
    ],
)
def test_each_cause_has_its_words(settings: Any, signup: str, values: Any, secret: bool, says: str) -> None:
    with_config(settings, signup=signup)
    word = invite(**values)[1] if values is not None else "mistyped"
    path = f"/accounts/signup/?invitation={word}" if secret else "/accounts/signup/"
    assert says in Client().get(path).content.decode()
    assert says in Client().post(path, {"username": "eve"}).content.decode()


def test_an_invitation_that_is_over_is_not_made(people: People) -> None:
    form = {"note": "Eve", "uses": "1", "expires_at_0": "2020-01-01", "expires_at_1": "00:00"}
    answer = signed_in(people.staff).post("/admin/accounts/invitation/add/", form)
    assert "time is past" in answer.content.decode() and not Invitation.objects.exists()


def test_a_name_and_an_address_that_were_never_proved_are_free_again() -> None:
    start(Client(), "bob", "bob@corp.example")
    User.objects.update(date_joined=clock.now() - timedelta(minutes=20))
    browser = Client()
    assert start(browser, "bob", "bob@corp.example").status_code == 302
    prove(browser)
    assert is_inside(browser) and User.objects.get(username="bob").email == "bob@corp.example"
    old = User.objects.exclude(username="bob").get()
    assert not old.is_active and old.email == "" and not old.has_usable_password()


def test_who_proves_an_address_has_it_also_while_another_waits_for_the_code() -> None:
    squatter, owner = Client(), Client()
    start(squatter, "mallory", "lily@corp.example")
    assert start(owner, "lily", "lily@corp.example").status_code == 302
    prove(owner)
    assert is_inside(owner)
    squatter.post("/accounts/confirm-email/", {"code": code()})
    assert not is_inside(squatter)


def test_accounts_that_were_entered_are_never_given_up(people: People) -> None:
    browser = Client()
    start(browser, "bob2", "bob@corp.example")
    prove(browser)
    start(Client(), "late", "late@corp.example")
    User.objects.update(date_joined=clock.now() - timedelta(days=3))
    sign_up.release_abandoned()
    assert set(User.objects.filter(is_active=True).values_list("username", flat=True)) == {
        "alice", "bob", "bob2", "carol",
    }  # fmt: skip


def test_an_account_is_made_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_more: Any) -> None:
        raise IntegrityError("as of two who send the same name")

    monkeypatch.setattr("allauth.account.forms.setup_user_email", fail)
    answer = start(Client(), "bob", "bob@corp.example")
    assert answer.status_code == 302 and answer["location"] == "/accounts/signup/"
    assert not User.objects.filter(username="bob").exists()


def test_a_mail_server_that_is_down_is_said_so(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", 9, False
    answer = start(Client(), "bob", "bob@corp.example")
    assert answer.status_code == 503 and "No mail could be sent" in answer.content.decode()


# -- second factors and notices ----------------------------------------------------------------------------------------


def test_a_sign_in_goes_on_when_its_lost_factor_is_removed(people: People) -> None:
    TOTP.activate(people.owner, "JBSWY3DPEHPK3PXP")
    browser = Client()
    browser.post("/accounts/login/", {"login": "alice", "password": "a long password"})
    assert "authenticator app" in browser.get("/accounts/2fa/authenticate/").content.decode()
    signed_in(people.staff).post(f"/admin/accounts/user/{people.owner.pk}/factors/", {"yes": "1"})
    assert not Authenticator.objects.filter(user=people.owner).exists()
    assert browser.get("/accounts/login/", follow=True).status_code == 200 and is_inside(browser)


def test_what_the_person_has_is_asked_for_first(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    TOTP.activate(people.owner, "JBSWY3DPEHPK3PXP")
    browser = Client()
    browser.post("/accounts/login/", {"login": "alice", "password": "a long password"})
    page = browser.get("/accounts/2fa/authenticate/").content.decode()
    assert 'name="code"' in page and "Use your passkey" not in page
    Authenticator.objects.update(type="webauthn", data={"name": "key"})
    monkeypatch.setattr("allauth.mfa.webauthn.internal.auth.begin_authentication", lambda user: {})
    page = browser.get("/accounts/2fa/authenticate/").content.decode()
    assert 'name="code"' not in page and "Use your passkey" in page


def test_the_owner_of_an_account_is_told_of_every_change(people: People) -> None:
    user = people.owner
    user.email = "alice@example.org"
    user.save()
    browser, staff = Client(), signed_in(people.staff)
    browser.post("/accounts/login/", {"login": "alice", "password": "a long password"})
    form = {"oldpassword": "a long password", "password1": PASSWORD, "password2": PASSWORD}
    browser.post("/accounts/password/change/", form)
    assert mail.outbox[-1].to == ["alice@example.org"] and "password" in str(mail.outbox[-1].body).lower()
    TOTP.activate(user, "JBSWY3DPEHPK3PXP")
    staff.post(f"/admin/accounts/user/{user.pk}/factors/", {"yes": "1"})
    assert "second factors were removed" in str(mail.outbox[-1].body)
    form = {"password1": "another long password 8", "password2": "another long password 8", "usable_password": "true"}
    staff.post(f"/admin/accounts/user/{user.pk}/password/", form)
    assert "Your password was changed" in str(mail.outbox[-1].body)
    before = len(mail.outbox)
    page = staff.get(f"/admin/accounts/user/{user.pk}/change/")
    form = {name: "" if value is None else value for name, value in page.context["adminform"].form.initial.items()}
    empty = {f"{p}-{n}": "0" for p in ("model_permissions", "budgets") for n in ("TOTAL_FORMS", "INITIAL_FORMS")}
    form = {name: value for name, value in form.items() if name in {"username", "is_active", "notes"}} | empty
    staff.post(f"/admin/accounts/user/{user.pk}/change/", {**form, "email": "mallory@example.org"})
    user.refresh_from_db()
    assert user.email == "mallory@example.org" and len(mail.outbox) == before + 1
    assert mail.outbox[-1].to == ["alice@example.org"] and "address was changed" in str(mail.outbox[-1].body)
