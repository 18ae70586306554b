"""Staff keys end with the password that their owner had: whoever knew it could have made some."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from django.core import mail
from django.test import Client

from accounts.models import AuditEvent, StaffKey, User
from tests.manage.scripts import Script, make_key
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared
PASSWORD = "a long password"
NEW = "quite another password 8"
TYPED = {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW}
CHANGE = "/accounts/password/change/"


@pytest.fixture
def erin(people: People, settings: Any) -> User:
    """Staff with a proved address."""
    settings.MAILS = True
    made: User = User.objects.create_superuser("erin", "erin@corp.example", PASSWORD)
    return made


def path_of(user: User, action: str) -> str:
    return f"/admin/accounts/user/{user.pk}/{action}/"


def own_page(erin: User, boss: Client) -> Any:
    browser = signed_in(erin)
    assert "Also revoke my 2 staff keys" in browser.get(CHANGE).content.decode()
    return browser.post(CHANGE, {**TYPED, "end_keys": "on"}, follow=True)


def mailed_link(erin: User, boss: Client) -> Any:
    boss.post(path_of(erin, "reset-mail"))
    visitor = Client()
    link = re.search(r"/accounts/password/reset/link/\S+", str(mail.outbox[0].body))
    assert link is not None
    visitor.get(link[0])
    return visitor.post("/accounts/password/reset/complete/", {"password1": NEW, "password2": NEW}, follow=True)


def set_by_staff(erin: User, boss: Client) -> Any:
    return boss.post(f"/admin/accounts/user/{erin.pk}/password/", {"password1": NEW, "password2": NEW}, follow=True)


def second_factors(erin: User, boss: Client) -> Any:
    TOTP.activate(erin, "JBSWY3DPEHPK3PXP")
    return boss.post(path_of(erin, "factors"), follow=True)


@pytest.mark.parametrize("how", [own_page, mailed_link, set_by_staff, second_factors])
def test_keys_end_and_people_are_told(people: People, erin: User, how: Callable[[User, Client], Any]) -> None:
    secrets, other = [make_key(erin) for _ in range(2)], Script(make_key(people.staff))
    make_key(erin, days=-1)
    page = how(erin, signed_in(people.staff)).content.decode()
    assert "2 staff keys of" in page and "revoked" in page
    assert {Script(one)("GET", "/models").status_code for one in secrets} == {401}
    assert AuditEvent.objects.filter(action="staffkey.revoke").count() == 2
    other.ok("GET", "/models")
    if how in (set_by_staff, second_factors):
        assert "staff keys were revoked" in str(mail.outbox[-1].body)


def test_who_changes_the_own_password_may_keep_the_keys(erin: User) -> None:
    browser, script = signed_in(erin), Script(make_key(erin))
    browser.post(CHANGE, TYPED)
    erin.refresh_from_db()
    assert erin.check_password(NEW) and script.ok("GET", "/models")


def test_a_password_that_is_refused_ends_no_keys(people: People, erin: User) -> None:
    script, boss = Script(make_key(erin)), signed_in(people.staff)
    signed_in(erin).post(CHANGE, {**TYPED, "oldpassword": "wrong", "end_keys": "on"})
    boss.post(f"/admin/accounts/user/{erin.pk}/password/", {"password1": NEW, "password2": "other"})
    script.ok("GET", "/models")


def test_who_has_no_keys_is_not_asked(people: People) -> None:
    assert "staff key" not in signed_in(people.owner).get(CHANGE).content.decode()


def test_the_audit_log_names_the_key_that_acted(people: People) -> None:
    secret = make_key(people.staff)
    Script(secret).ok("POST", "/models", {"name": "m-made"})
    key = StaffKey.objects.get()
    event = AuditEvent.objects.get(action="model.add")
    assert event.actor == people.staff and event.detail["staff_key"] == f"a script ({key.hint})"
    assert secret not in str(event.detail)
    boss = signed_in(people.staff)
    assert f"a script ({key.hint})" in boss.get("/admin/accounts/auditevent/").content.decode()
    assert f"a script ({key.hint})" in boss.get(f"/admin/accounts/auditevent/{event.pk}/change/").content.decode()
    boss.post(f"/admin/accounts/staffkey/{key.pk}/revoke/")
    assert "staff_key" not in AuditEvent.objects.get(action="staffkey.revoke").detail, "by hand"
