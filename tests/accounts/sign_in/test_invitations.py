"""Invitations by mail: what they say, and that following the link proves the address."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.cache import cache
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection
from django.test import Client
from django.urls import resolve

from accounts.models import Invitation, User
from portal.lib import clock
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared
PASSWORD = "a long password 7"
ADDRESS = "ada@corp.example"


class BrokenBackend(BaseEmailBackend):
    def send_messages(self, email_messages: Any) -> int:
        assert not connection.in_atomic_block or len(connection.savepoint_ids) == 0, "the test's own transaction alone"
        raise ConnectionRefusedError("no mail server")


@pytest.fixture(autouse=True)
def mails(db: None, settings: Any) -> None:
    resolve("/")  # whether there are pages that mail a code is decided by the settings of the suite
    with_config(settings, signup="invitation", public_url="https://ai.example.org:8443")
    settings.MAILS = settings.ACCOUNT_PREVENT_ENUMERATION = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()


def invite(people: People, **form: Any) -> str:
    """The page that shows the link to the administrator."""
    data = {"note": "for Ada", "email": ADDRESS, "uses": 1, **form}
    answer = signed_in(people.staff).post("/admin/accounts/invitation/add/", data)
    assert answer.status_code == 200
    return html.unescape(answer.content.decode())


def path_in(text: str) -> str:
    found = re.search(r"https://ai\.example\.org:8443(/accounts/signup/\?\S+?)[\s<]", text)
    assert found, text
    return found[1]


def sign_up(browser: Client, name: str = "ada", email: str = ADDRESS) -> Any:
    form = {"username": name, "email": email, "password1": PASSWORD, "password2": PASSWORD}
    return browser.post("/accounts/signup/", form)


def test_mail_says_who_invites_where_and_until_when(people: People) -> None:
    people.staff.first_name, people.staff.last_name = "Grace\nX: y", "Hopper"
    people.staff.save()
    ends = (clock.now() + timedelta(days=3)).strftime("%Y-%m-%d")
    page = invite(people, expires_at_0=ends, expires_at_1="12:00:00")
    assert "It was mailed to" in page
    sent = mail.outbox[0]
    assert sent.subject == "[AIRelays] Grace X: y Hopper invites you to AIRelays" and sent.to == [ADDRESS]
    text = str(sent.body)
    for part in ("Grace X: y Hopper invites you", "at ai.example.org:8443", f"for {ADDRESS}", "until ", "ignore it"):
        assert part in text, part
    assert path_in(text) != path_in(page), "only the mailed link proves the address"


def test_mailed_link_fills_the_address_in_and_proves_it(people: People) -> None:
    invite(people)
    squatter = User.objects.create(username="squatter", email=ADDRESS, signed_up=True)
    EmailAddress.objects.create(user=squatter, email=ADDRESS, primary=True)
    browser = Client()
    page = browser.get(path_in(str(mail.outbox[0].body))).content.decode()
    field = page.split('name="email"', 1)[1].split(">", 1)[0]
    assert f'value="{ADDRESS}"' in field and "readonly" in field
    mail.outbox.clear()
    assert "for another e-mail address" in sign_up(browser, email="eve@corp.example").content.decode()
    assert sign_up(browser).status_code == 302
    assert browser.get("/").status_code == 200 and not mail.outbox, "no code is asked for"
    row = EmailAddress.objects.get(email=ADDRESS)
    assert row.verified and row.user.username == "ada" and Invitation.objects.get().used == 1
    squatter.refresh_from_db()
    assert not squatter.is_active


def test_link_that_the_administrator_has_seen_proves_nothing(people: People) -> None:
    browser = Client()
    browser.get(path_in(invite(people)))
    assert sign_up(browser).status_code == 302
    assert browser.get("/").status_code == 302 and not EmailAddress.objects.get(email=ADDRESS).verified
    assert Invitation.objects.get().used == 0


@pytest.mark.parametrize("what", ["another invitation", "another address", "a forged proof", "no longer open"])
def test_proof_holds_for_its_invitation_and_its_address_alone(people: People, what: str) -> None:
    shown = invite(people)
    mailed = path_in(str(mail.outbox[0].body))
    proof = mailed.split("proof=", 1)[1]
    invitation = Invitation.objects.get()
    if what == "another invitation":
        mailed = f"{path_in(invite(people, email='eve@corp.example'))}&proof={proof}"
    elif what == "another address":
        Invitation.objects.update(email="eve@corp.example")
    elif what == "a forged proof":
        mailed = f"{path_in(shown)}&proof=x{proof}"
    else:
        Invitation.objects.update(used=1)
    browser = Client()
    browser.get(mailed)
    email = ADDRESS if what in {"a forged proof", "no longer open"} else "eve@corp.example"
    sign_up(browser, email=email)
    assert browser.get("/").status_code == 302 and not EmailAddress.objects.filter(email=email, verified=True).exists()
    invitation.refresh_from_db()
    assert invitation.used == (what == "no longer open")


def test_mail_that_cannot_be_sent_is_said(people: People, settings: Any) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.BrokenBackend"
    assert "did not take the mail" in invite(people)
    settings.MAILS = False
    assert "cannot send mail" in invite(people)
    assert "cannot send mail" not in invite(people, email="")
    assert Invitation.objects.count() == 3


def test_mails_with_codes_name_the_product_and_the_portal(people: People, settings: Any) -> None:
    with_config(settings, signup="open")
    sign_up(Client(), "rob", "rob@corp.example")
    sent = mail.outbox[0]
    assert sent.subject.startswith("[AIRelays] ") and "Hello from AIRelays!" in sent.body
    assert "ai.example.org:8443" in sent.body and "testserver" not in sent.body
