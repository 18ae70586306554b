"""Help for those who cannot sign in: by whom, for whom, and what the owner and the audit log learn of it."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import Group, Permission
from django.core import mail
from django.test import Client

from accounts.models import Attempt, AuditEvent, Invitation, User
from accounts.sign_in import attempts
from portal.lib import clock
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared

PASSWORD = "a long password"
NEW = "another long password 7"
ACTIONS = ("sign-in", "reset-mail", "factors", "lift-limits")


def in_role(name: str, role: str) -> User:
    user = User.objects.create_user(name, f"{name}@corp.example", PASSWORD, is_staff=True)
    user.groups.set(Group.objects.filter(name=role))
    return user


@pytest.fixture
def alice(people: People, settings: Any) -> User:
    """A user with a proved address, who has lost the phone."""
    settings.MAILS = True
    user: User = people.owner
    user.email = "alice@corp.example"
    user.save()
    TOTP.activate(user, "JBSWY3DPEHPK3PXP")
    return user


def path_of(user: User, action: str) -> str:
    return f"/admin/accounts/user/{user.pk}/{action}/"


def link_in(text: str) -> str:
    found = re.search(r"/accounts/password/reset/link/\S+", text)
    assert found, text
    return found[0]


def enter(name: str, password: str, **more: Any) -> Any:
    return Client(**more).post("/accounts/login/", {"login": name, "password": password})


@pytest.mark.parametrize("role", ["Owner", "Support", "Operator", "Accountant", "plain staff", "user"])
def test_who_may_help_to_sign_in(people: People, alice: User, role: str) -> None:
    person = people.other if role == "user" else in_role("dora", role)
    browser = signed_in(person)
    may = role in {"Owner", "Support"}
    for action in ACTIONS:
        for method in ("get", "post"):
            answer = getattr(browser, method)(path_of(alice, action))
            assert (answer.status_code in {200, 302} and "/login/" not in answer.get("location", "")) == may, action
    assert Authenticator.objects.filter(user=alice).exists() != may
    assert len([one for one in mail.outbox if "/reset/link/" in str(one.body)]) == int(may)
    events = AuditEvent.objects.filter(target_type="user", target_id=str(alice.pk), actor=person)
    told = {"password-reset.send", "second-factor.reset", "sign-in.lift"} if may else set()
    assert set(events.values_list("action", flat=True)) == told


def test_nobody_helps_somebody_with_more_rights(people: People, alice: User, settings: Any) -> None:
    """Whatever hides the rights for now: that the person is disabled, or is no staff."""
    helper = in_role("dora", "Support")
    accountant, owner = in_role("anna", "Accountant"), in_role("olaf", "Owner")
    asleep = in_role("erik", "Operator")
    asleep.is_staff = asleep.is_active = False
    asleep.save()
    root = people.staff
    disabled = User.objects.create_user("old-root", "o@corp.example", is_superuser=True, is_active=False)
    colleague = in_role("dirk", "Support")
    browser = signed_in(helper)
    for above in (accountant, owner, asleep, root, disabled, helper):
        TOTP.activate(above, "JBSWY3DPEHPK3PXP")
        page = html.unescape(browser.get(path_of(above, "sign-in")).content.decode())
        assert ("rights that you do not have" in page) == (above != helper) and "/reset-mail/" not in page
        for action in ACTIONS[1:]:
            assert browser.post(path_of(above, action)).status_code == 403, (above, action)
        assert Authenticator.objects.filter(user=above).exists()
    for equal in (alice, colleague):
        assert browser.post(path_of(equal, "factors")).status_code == 302
    boss = signed_in(owner)
    assert boss.post(path_of(accountant, "factors")).status_code == 302
    assert boss.post(path_of(root, "factors")).status_code == 403, "an owner is no superuser"
    assert signed_in(root).post(path_of(owner, "factors")).status_code == 302


def test_a_mailed_link_sets_a_new_password_once(alice: User) -> None:
    browser = signed_in(in_role("dora", "Support"))
    assert "alice@corp.example" in browser.get(path_of(alice, "reset-mail")).content.decode()
    page = browser.post(path_of(alice, "reset-mail"), follow=True).content.decode()
    assert "was mailed" in page and "/reset/link/" not in page, "only the mailbox has the link"
    (sent,) = mail.outbox
    assert sent.to == ["alice@corp.example"]
    link = link_in(str(sent.body))
    visitor = Client()
    assert visitor.get(link)["location"] == "/accounts/password/reset/complete/"
    answer = visitor.post("/accounts/password/reset/complete/", {"password1": NEW, "password2": NEW})
    assert answer["location"].startswith("/accounts/2fa/authenticate/"), "the second factor is asked for all the same"
    alice.refresh_from_db()
    assert alice.check_password(NEW)
    assert Client().get(link).status_code == 410, "used"
    assert [one.to for one in mail.outbox[1:]] == [["alice@corp.example"]], "the owner is told"


@pytest.mark.parametrize("what", ["signed in", "disabled", "another address", "too old", "cut"])
def test_a_link_ends_when_something_else_happened(alice: User, what: str, settings: Any) -> None:
    signed_in(in_role("dora", "Support")).post(path_of(alice, "reset-mail"))
    link = link_in(str(mail.outbox[0].body))
    if what == "signed in":
        signed_in(alice)
    elif what == "disabled":
        alice.is_active = False
        alice.save()
    elif what == "another address":
        alice.email = "new@corp.example"
        alice.save()
    elif what == "too old":
        settings.PASSWORD_RESET_TIMEOUT = -1
    else:
        link = link[:-3] + "/"
    visitor = Client()
    assert visitor.get(link).status_code == 410
    assert visitor.get("/accounts/password/reset/complete/")["location"] == "/accounts/password/reset/"


def test_no_link_goes_to_an_address_that_is_not_proved(people: People, alice: User, settings: Any) -> None:
    """Of somebody who has not finished sign-up, of an account without one, of a disabled one, without a mail server."""
    browser = signed_in(in_role("dora", "Support"))
    unproved = User.objects.create_user("new", "new@corp.example", signed_up=True)
    EmailAddress.objects.create(user=unproved, email="new@corp.example", verified=False, primary=True)
    gone = User.objects.create_user("gone", "gone@corp.example", is_active=False)
    for user, word in ((unproved, "proved"), (people.other, "proved"), (gone, "disabled")):
        assert word in browser.post(path_of(user, "reset-mail"), follow=True).content.decode()
    settings.MAILS = False
    assert "mail server" in browser.post(path_of(alice, "reset-mail"), follow=True).content.decode()
    assert mail.outbox == [] and not AuditEvent.objects.filter(action="password-reset.send").exists()


def test_a_mail_server_that_is_down_is_said_and_nothing_is_noted(alice: User, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", 9, False
    browser = signed_in(in_role("dora", "Support"))
    assert "did not take" in browser.post(path_of(alice, "reset-mail"), follow=True).content.decode()
    assert not AuditEvent.objects.filter(action="password-reset.send").exists()


def test_limits_are_seen_and_lifted(alice: User) -> None:
    Authenticator.objects.all().delete()
    browser = signed_in(in_role("dora", "Support"))
    page = path_of(alice, "sign-in")
    assert "No limit" in browser.get(page).content.decode()
    for number in range(attempts.PASSWORDS.tries + 1):
        assert enter("alice", "wrong", REMOTE_ADDR=f"10.0.{number}.1").status_code in {200, 429}
    for _ in range(3):
        last = enter("alice", PASSWORD, REMOTE_ADDR="10.0.0.1")
    assert last.status_code == 429
    shown = browser.get(page).content.decode()
    assert "Too many wrong passwords" in shown and "Too many attempts refused" in shown
    assert AuditEvent.objects.get(action="sign-in.limited").target_id == str(alice.pk)
    assert browser.post(path_of(alice, "lift-limits")).status_code == 302
    assert "No limit" in browser.get(page).content.decode()
    assert enter("alice", PASSWORD, REMOTE_ADDR="10.0.0.1").status_code == 302
    assert not attempts.LIMITS.keys() - {"password", "code", "login-code", "reset", "code-mail"}


def test_limits_of_others_stay(people: People, alice: User) -> None:
    for _ in range(attempts.PASSWORDS.tries + 2):
        enter("bob", "wrong", REMOTE_ADDR="10.0.0.1")
    before = set(Attempt.objects.values_list("pk", "count"))
    signed_in(in_role("dora", "Support")).post(path_of(alice, "lift-limits"))
    assert set(Attempt.objects.values_list("pk", "count")) == before


def test_the_page_says_who_changed_what_about_signing_in(people: People, alice: User) -> None:
    boss = signed_in(people.staff)
    AuditEvent.write("user.change", people.staff, alice, changes={"notes": ["", "secret note"]})
    AuditEvent.write("user.change", people.staff, alice, "10.1.1.1", changes={"email": ["a@b.c", "evil@corp.example"]})
    AuditEvent.write("wallet.top-up", people.staff, alice, usd="5")
    AuditEvent.write("user.change", people.staff, people.other, changes={"email": ["b@b.c", "c@b.c"]})
    passwords = {"password1": NEW, "password2": NEW, "usable_password": "true"}
    assert boss.post(path_of(alice, "password"), passwords).status_code == 302
    page = html.unescape(signed_in(in_role("dora", "Support")).get(path_of(alice, "sign-in")).content.decode())
    assert "carol" in page and "e-mail address" in page and "10.1.1.1" in page
    assert "Password: changed" in page
    for hidden in ("secret note", "topped up", "c@b.c"):
        assert hidden not in page


def test_support_finds_the_page_on_the_page_of_a_user(alice: User) -> None:
    browser = signed_in(in_role("dora", "Support"))
    assert path_of(alice, "sign-in") in browser.get(path_of(alice, "change")).content.decode()
    for role in ("Operator", "Accountant"):
        page = signed_in(in_role(role.lower(), role)).get(path_of(alice, "change")).content.decode()
        assert path_of(alice, "sign-in") not in page


# -- invitations -------------------------------------------------------------------------------------------------------


def invitation(**values: Any) -> tuple[Invitation, str]:
    row = Invitation(note="Nina", **values)
    code = row.new_code()
    row.save()
    return row, code


def code_in(page: str) -> str:
    found = re.search(r"invitation=([\w-]{20,})", page)
    assert found
    return found[1]


def test_support_renews_and_sends_an_invitation(alice: User) -> None:
    browser = signed_in(in_role("dora", "Support"))
    row, old = invitation(email="nina@corp.example", expires_at=clock.now() - timedelta(days=3))
    assert "Nina" in browser.get("/admin/accounts/invitation/").content.decode()
    path = f"/admin/accounts/invitation/{row.pk}/renew/"
    assert browser.get(path).status_code == 200 and Invitation.find(old) == row, "it asks first"
    new = code_in(browser.post(path).content.decode())
    row.refresh_from_db()
    assert Invitation.find(old) is None and Invitation.find(new) == row and row.open()
    assert mail.outbox[-1].to == ["nina@corp.example"] and new in str(mail.outbox[-1].body)
    assert AuditEvent.objects.get(action="invitation.renew").actor_name == "dora"


def test_support_renews_nothing_that_gives_rights_or_is_used_up(people: People, alice: User) -> None:
    support, boss = signed_in(in_role("dora", "Support")), signed_in(people.staff)
    powerful, _code = invitation()
    powerful.groups.set(Group.objects.filter(name="Operator"))
    used, _code = invitation(uses=1, used=1)
    for row in (powerful, used):
        path, digest = f"/admin/accounts/invitation/{row.pk}/renew/", row.digest
        for ask in (support.get, support.post):
            assert ask(path).status_code == 302
            row.refresh_from_db()
            assert row.digest == digest
        assert boss.post(path).status_code == 200
        row.refresh_from_db()
        assert row.digest != digest and row.open()


def test_support_invites_one_person_by_address(alice: User) -> None:
    vip = Group.objects.create(name="VIP")
    support = signed_in(in_role("dora", "Support"))
    page = support.get("/admin/accounts/invitation/add/").content.decode()
    assert 'name="email"' in page and 'name="groups"' not in page and 'name="uses"' not in page
    more = {"groups": [vip.pk], "uses": 500, "expires_at_0": "2099-01-01", "expires_at_1": "00:00"}
    refused = support.post("/admin/accounts/invitation/add/", {"note": "Nina", **more})
    assert refused.status_code == 200 and not Invitation.objects.exists(), "an address is needed"
    support.post("/admin/accounts/invitation/add/", {"note": "Nina", "email": "nina@corp.example", **more})
    row = Invitation.objects.get()
    assert (row.uses, list(row.groups.all()), row.created_by and row.created_by.username) == (1, [], "dora")
    assert row.expires_at is not None and row.expires_at < clock.now() + timedelta(days=15)
    for change in ("change", "delete"):
        answer = support.post(f"/admin/accounts/invitation/{row.pk}/{change}/", {"note": "x", "uses": 9, "post": "yes"})
        assert answer.status_code == 403
    assert (
        in_role("plain", "").pk
        and signed_in(in_role("op", "Operator")).get("/admin/accounts/invitation/add/").status_code == 403
    )


def test_who_could_change_users_can_help_as_before(people: People) -> None:
    """The right is given by the migration: roles of one's own made before it keep what they could do."""
    assert Permission.objects.filter(codename="help_sign_in", group__name="Owner").exists()
    assert Permission.objects.filter(codename="help_sign_in", group__name="Support").exists()
    assert not Permission.objects.filter(codename="help_sign_in", group__name__in=("Operator", "Accountant")).exists()


def test_support_sees_attempts_that_failed(alice: User, people: People) -> None:
    support = signed_in(in_role("sue", "Support"))

    def page() -> str:
        return html.unescape(support.get(path_of(alice, "sign-in")).content.decode())

    assert "None is counted now." in page()
    for number in range(3):
        assert enter("alice@corp.example", f"wrong {number}").status_code == 200
    assert "Wrong passwords that are counted now: 3." in page()
    assert signed_in(people.other).get(path_of(alice, "sign-in")).status_code in {302, 403}
    assert signed_in(alice).get(path_of(alice, "sign-in")).status_code in {302, 403}


def test_without_a_mail_server_support_is_told_who_can_help(alice: User, settings: Any) -> None:
    settings.MAILS = False
    page = signed_in(in_role("sue", "Support")).get(path_of(alice, "sign-in")).content.decode()
    assert "AIRELAYS_EMAIL_HOST" in page and "can set a password" in page


def test_who_is_disabled_is_told_whom_to_ask(people: People) -> None:
    people.owner.is_active = False
    people.owner.save()
    answer = enter(people.owner.username, PASSWORD)
    page = Client().get(answer["location"]).content.decode()
    assert "This account is disabled" in page and "Ask the administrator of this portal" in page
