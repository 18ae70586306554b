"""Users, groups and tokens in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.models import AuditEvent, Invitation, User
from accounts.models.fields import MomentField
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import Incident, LedgerAccount, Model, Token
from relay.models.token import digest_of
from relay.tokens.lifecycle import create_token
from tests.support.portal import People
from tests.support.sessions import NO_BUDGETS, signed_in
from tests.support.sessions import clerk as clerk_with

pytestmark = pytest.mark.shared


def test_staff_cannot_make_themselves_superusers(clerk: Client, people: People) -> None:
    user = User.objects.get(username="clerk")
    form = {"username": "clerk", "email": "", "is_active": "on", "is_staff": "on", "is_superuser": "on", "notes": ""}
    clerk.post(f"/admin/accounts/user/{user.pk}/change/", form)
    user.refresh_from_db()
    assert not user.is_superuser
    assert (
        clerk.post(
            f"/admin/accounts/user/{people.staff.pk}/password/",
            {"password1": "another long one", "password2": "another long one"},
        ).status_code
        == 403
    )
    people.staff.refresh_from_db()
    assert people.staff.check_password("a long password")


def test_staff_gain_no_rights_through_groups_or_other_staff(clerk: Client, people: People) -> None:
    from django.contrib.auth.models import Group

    powerful = Group.objects.create(name="powerful")
    powerful.permissions.set(Permission.objects.filter(codename="change_channel"))
    clerk_user, colleague = User.objects.get(username="clerk"), User.objects.create_user("colleague", is_staff=True)
    form = {"email": "new@example.com", "is_active": "on", "groups": [powerful.pk], "notes": ""}
    clerk.post(f"/admin/accounts/user/{clerk_user.pk}/change/", {**form, "username": "clerk"})
    clerk_user.refresh_from_db()
    assert clerk_user.email == "new@example.com" and not clerk_user.groups.exists()
    assert (
        clerk.post(f"/admin/accounts/user/{colleague.pk}/change/", {**form, "username": "colleague"}).status_code == 403
    )
    assert (
        clerk.post(
            f"/admin/accounts/user/{colleague.pk}/password/",
            {"password1": "another long one", "password2": "another long one"},
        ).status_code
        == 403
    )
    clerk.post(f"/admin/accounts/user/{people.other.pk}/change/", {**form, "username": "bob", "email": ""})
    assert not people.other.groups.exists(), "a group that carries rights is for owners to give"
    plain = Group.objects.create(name="plain")
    bob = {**form, "username": "bob", "email": "", "groups": [plain.pk]}
    clerk.post(f"/admin/accounts/user/{people.other.pk}/change/", bob)
    assert list(people.other.groups.all()) == [plain], "for users, groups are classes that staff manage"


def test_pages_of_users_show_nothing_of_their_passwords(staff: Client, clerk: Client, people: People) -> None:
    """Neither of the salt nor of the hash, not even how they begin; what the hash was made with may be known."""
    people.owner.set_password("a long password")
    people.owner.save()
    algorithm, *parts = people.owner.password.split("$")
    without = User.objects.create(username="no-password", password="!")
    for person in (staff, clerk):
        page = person.get(f"/admin/accounts/user/{people.owner.pk}/change/").content.decode()
        assert f"({algorithm})" in page and "****" not in page
        assert not [part for part in parts if len(part) > 5 and part in page]
        assert "No password set." in person.get(f"/admin/accounts/user/{without.pk}/change/").content.decode()


def test_token_made_for_a_user_is_shown_once(staff: Client, people: People) -> None:
    form = {
        "user": people.owner.pk,
        "name": "gift",
        "enabled": "on",
        "expires_at_0": "",
        "expires_at_1": "",
        "allowed_ips": "",
        "notes": "",
        **NO_BUDGETS,
    }
    response = staff.post("/admin/relay/token/add/", form)
    secret = response.content.decode().split('id="secret"', 1)[1].split(">", 1)[1].split("<", 1)[0]
    token = Token.objects.get(name="gift")
    assert token.digest == digest_of(secret) and "no-store" in response["cache-control"]
    assert secret not in staff.get(f"/admin/relay/token/{token.pk}/change/").content.decode()
    assert AuditEvent.objects.filter(action="token.create", target_id=str(token.pk)).exists()


def test_nobody_gets_a_token_of_somebody_with_more_rights(people: People) -> None:
    """Staff's tokens read everybody's receipts on /v1, for example."""
    token, secret = create_token(people.staff, "t", actor=None)
    rights = ("view_token", "add_token", "change_token", "view_channel", "view_user")
    person = clerk_with(*rights)
    answer = person.post(f"/admin/relay/token/{token.pk}/rotate/", follow=True).content.decode()
    token.refresh_from_db()
    assert token.digest == digest_of(secret) and "rights that you do not have" in answer
    form = {"user": people.staff.pk, "name": "mine", "purpose": "chat", "enabled": "on", **NO_BUDGETS}
    answer = person.post("/admin/relay/token/add/", form).content.decode()
    assert "rights that you do not have" in answer and not Token.objects.filter(name="mine").exists()
    person.post("/admin/setup/token/", {"user": people.staff.pk, "name": "guided"})
    assert not Token.objects.filter(name="guided").exists()
    page = person.post(f"/admin/accounts/user/{people.staff.pk}/geekai/", follow=True).content.decode()
    assert "rights that you do not have" in page and people.staff.tokens.count() == 1
    mine, _secret = create_token(people.owner, "plain", actor=None)
    before = mine.digest
    person.post(f"/admin/relay/token/{mine.pk}/rotate/")
    mine.refresh_from_db()
    assert mine.digest != before, "of others they do"


def test_a_token_is_found_by_whatever_its_owner_reads_out(staff: Client, people: People) -> None:
    User.objects.filter(pk=people.owner.pk).update(email="alice@example.org")
    token, secret = create_token(people.owner, "laptop", actor=None)
    other, _ = create_token(people.other, "desk", actor=None)
    first, last = secret[:7], secret[-4:]
    typed = [first, first[3:], last, secret[:12], secret[3:12], f"{first}…{last}", f"{first}...{last}", token.hint]
    for text in [*typed, f"sk-****{last}", "lapt", "alice@example.org", "alice"]:
        page = staff.get("/admin/relay/token/", {"q": text}).content.decode()
        assert f"/{token.pk}/change/" in page, text
    assert f"/{other.pk}/change/" not in staff.get("/admin/relay/token/", {"q": f"{first}…{last}"}).content.decode()
    moved = staff.get("/admin/relay/token/", {"q": secret})
    assert moved.status_code == 302 and secret not in moved["location"]
    page = staff.get(moved["location"]).content.decode()
    assert f"/{token.pk}/change/" in page and "first and last letters only" in page and secret not in page


def test_token_is_rotated_and_revoked_after_being_asked(staff: Client, people: People) -> None:
    token, secret = create_token(people.owner, "t", actor=None)
    url = f"/admin/relay/token/{token.pk}/rotate/"
    staff.get(url)
    token.refresh_from_db()
    assert token.digest == digest_of(secret), "a GET asks, it does not act"
    page = staff.post(url).content.decode()
    token.refresh_from_db()
    assert token.digest != digest_of(secret) and token.hint[:7] in page
    many = staff.post("/admin/relay/token/", {"action": "revoke_selected", "_selected_action": token.pk})
    token.refresh_from_db()
    assert not token.revoked_at and "stop working for good" in many.content.decode()
    staff.post("/admin/relay/token/", {"action": "revoke_selected", "_selected_action": token.pk, "confirmed": "1"})
    token.refresh_from_db()
    assert token.revoked_at
    assert staff.post(f"/admin/relay/token/{token.pk}/rotate/").status_code == 302
    token.refresh_from_db()
    assert token.revoked_at and token.sealed == ""


def test_disabling_tokens_in_the_list(staff: Client, people: People) -> None:
    token, _ = create_token(people.owner, "t", actor=None)
    for action, expected in (("disable", False), ("enable", True)):
        staff.post("/admin/relay/token/", {"action": action, "_selected_action": token.pk})
        token.refresh_from_db()
        assert token.enabled is expected


def test_permission_is_for_a_user_or_a_group(staff: Client, people: People) -> None:
    model = Model.objects.create(name="m")
    form = {"model": model.pk, "user": "", "group": "", "expires_at_0": "", "expires_at_1": ""}
    assert "Choose a user or a group" in staff.post("/admin/relay/modelpermission/add/", form).content.decode()
    assert staff.post("/admin/relay/modelpermission/add/", {**form, "user": people.owner.pk}).status_code == 302


def test_new_users_join_the_default_groups(db: None) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import GroupSettings

    group = Group.objects.create(name="everyone")
    GroupSettings.objects.create(group=group, is_default=True)
    assert list(User.objects.create_user("dora").groups.all()) == [group]


def test_quota_limits_and_budgets_of_a_token(staff: Client, people: People) -> None:
    budgets = {"budgets-TOTAL_FORMS": 1, "budgets-INITIAL_FORMS": 0, "budgets-0-period": "week", "budgets-0-limit": "3"}
    form = {
        "user": people.owner.pk,
        "name": "gift",
        "enabled": "on",
        "allowed_ips": "",
        "notes": "",
        "quota": "2.5",
        "max_rpm": "10",
        **budgets,
    }
    assert staff.post("/admin/relay/token/add/", form).status_code == 200
    token = Token.objects.get(name="gift")
    assert token.max_rpm == 10
    kinds = {(account.kind, account.period): account.granted for account in LedgerAccount.objects.filter(token=token)}
    assert kinds == {("quota", ""): 2_500_000_000, ("budget", "week"): 3 * NANO}
    page = staff.get(f"/admin/relay/token/{token.pk}/change/").content.decode()
    assert 'value="2.5"' in page
    assert staff.post(f"/admin/relay/token/{token.pk}/change/", {**form, "quota": "", **NO_BUDGETS}).status_code == 302
    assert not LedgerAccount.objects.get(token=token, kind="quota").limited
    assert AuditEvent.objects.filter(action="token.quota").count() == 2


def test_a_token_is_given_no_end_that_is_past(staff: Client, people: People) -> None:
    form = {"user": people.owner.pk, "name": "late", "purpose": "", "enabled": "on", "allowed_ips": "", "notes": ""}
    form |= {
        "expires_at_0": "2020-01-01",
        "expires_at_1": "00:00",
        "budgets-TOTAL_FORMS": 0,
        "budgets-INITIAL_FORMS": 0,
    }
    page = staff.post("/admin/relay/token/add/", form)
    assert page.status_code == 200 and "This time is past." in page.content.decode()
    assert not people.owner.tokens.exists()
    staff.post("/admin/relay/token/add/", {**form, "expires_at_0": "2099-01-01"})
    assert people.owner.tokens.exists()


def test_a_day_without_a_time_is_meant_to_its_end_or_from_its_beginning(staff: Client, people: People) -> None:
    """In every form with a day and a time, and in the one box of the pages of users."""
    fields = [
        (model, field) for model in apps.get_models() for field in model._meta.fields if isinstance(field, MomentField)
    ]
    assert len(fields) >= 7
    request = RequestFactory().get("/")
    for table, field in fields:
        page = admin.site._registry.get(table)
        if page is None:
            continue
        box = page.formfield_for_dbfield(field, request)
        assert box is not None
        typed = box.clean(["2099-01-31", ""])
        wanted = "00:00:00" if field.name in {"started_at", "valid_from"} else "23:59:59"
        assert timezone.localtime(typed).strftime("%Y-%m-%d %H:%M:%S") == f"2099-01-31 {wanted}", field
    model = Model.objects.create(name="m")
    form = {"model": model.pk, "user": people.owner.pk, "expires_at_0": "2099-01-31", "expires_at_1": ""}
    assert staff.post("/admin/relay/modelpermission/add/", form).status_code == 302
    form = {"name": "phone", "validity": "", "until": "2099-01-31", "allowed_ips": ""}
    assert signed_in(people.owner).post("/tokens/new/", form).status_code == 200
    ends = [people.owner.model_permissions.get().expires_at, people.owner.tokens.get().expires_at]
    assert [timezone.localtime(end).strftime("%d %H:%M:%S") for end in ends] == ["31 23:59:59"] * 2
    for nonsense in ("31", "2099-02-30", "tomorrow"):
        assert signed_in(people.owner).post("/tokens/new/", {**form, "until": nonsense}).status_code == 422


def test_an_incident_does_not_end_before_it_begins(staff: Client) -> None:
    form = {"title": "t", "text": "", "severity": "outage", "started_at_0": "2026-11-29", "started_at_1": "10:00"}
    page = staff.post("/admin/relay/incident/add/", {**form, "resolved_at_0": "2026-11-01", "resolved_at_1": ""})
    assert "It cannot be over before it began." in page.content.decode() and not Incident.objects.exists()
    staff.post("/admin/relay/incident/add/", {**form, "resolved_at_0": "2026-11-29", "resolved_at_1": ""})
    assert Incident.objects.exists()


def test_nobody_disables_themselves_by_the_list(staff: Client, people: People) -> None:
    form: dict[str, Any] = {"action": "disable_users", "_selected_action": [people.staff.pk]}
    page = staff.post("/admin/accounts/user/", form, follow=True).content.decode()
    assert "You cannot disable yourself." in page and "0 user(s)" not in page
    form["_selected_action"].append(people.other.pk)
    page = staff.post("/admin/accounts/user/", form, follow=True).content.decode()
    assert "You cannot disable yourself." in page and "1 user(s) disabled" in page
    people.staff.refresh_from_db()
    assert people.staff.is_active


def test_an_address_that_has_an_account_is_not_invited(staff: Client, people: People) -> None:
    people.owner.email = "alice@example.org"
    people.owner.save()
    form = {"note": "n", "email": "ALICE@example.org", "uses": "1", "expires_at_0": "", "expires_at_1": ""}
    helper = clerk_with("help_sign_in", "view_invitation")
    for client in (staff, helper):
        page = client.post("/admin/accounts/invitation/add/", form)
        assert "There is an account with this address already." in page.content.decode()
    assert signed_in(people.other).post("/admin/accounts/invitation/add/", form).status_code in {302, 403}
    assert not Invitation.objects.exists()
    for client in (staff, helper):
        client.post("/admin/accounts/invitation/add/", {**form, "email": "new@example.org"})
    assert Invitation.objects.count() == 2
    row = Invitation.objects.create(note="old", email="alice@example.org")
    page = staff.post(f"/admin/accounts/invitation/{row.pk}/change/", {**form, "email": row.email, "note": "kept"})
    assert page.status_code == 302, "one that was made before can be changed in other ways"


def test_balance_stands_beside_top_ups_and_deductions(staff: Client, people: People) -> None:
    movements.top_up(people.owner, 12_500_000_000, actor=None, reason="x")
    path = f"/admin/accounts/user/{people.owner.pk}/change/"
    page = staff.get(path).content.decode()
    assert "Top up" in page and "$12.50" in page and "Held by running requests" in page
    movements.set_unlimited(people.owner, True)
    assert "unlimited" in staff.get(path).content.decode()
    reader = clerk_with("view_user")
    seen = reader.get(path).content.decode()
    assert "alice" in seen and "Held by running requests" not in seen, "who may not see money"


def test_the_last_superuser_keeps_the_way_in(staff: Client, people: People) -> None:
    url = f"/admin/accounts/user/{people.staff.pk}/change/"
    form = {"username": "carol", **NO_BUDGETS, "model_permissions-TOTAL_FORMS": 0, "model_permissions-INITIAL_FORMS": 0}
    rights = {"is_active": "on", "is_staff": "on", "is_superuser": "on"}
    for lost in rights:
        page = staff.post(url, {**form, **{name: on for name, on in rights.items() if name != lost}})
        assert page.status_code == 200 and "the only superuser who can sign in" in page.content.decode(), lost
    other = User.objects.create_superuser("dora", password="a long password")
    other.is_staff = False
    other.save()
    assert staff.post(url, {**form, "is_active": "on", "is_staff": "on"}).status_code == 200, "dora cannot enter"
    other.is_staff = True
    other.save()
    assert staff.post(url, {**form, "is_active": "on", "is_staff": "on"}).status_code == 302
    people.staff.refresh_from_db()
    assert not people.staff.is_superuser


def test_an_address_belongs_to_one_account_in_any_letter_case(staff: Client, people: People) -> None:
    User.objects.filter(pk=people.owner.pk).update(email="anna@example.org")
    values = {
        "username": "anna2",
        "password1": "a long passphrase",
        "password2": "a long passphrase",
    }
    for email, taken in (("ANNA@example.org", True), ("anna@example.org", True), ("anna2@example.org", False)):
        page = staff.post("/admin/accounts/user/add/", {**values, "email": email}).content.decode()
        assert ("Another account has this address" in page) == taken, email
    page = f"/admin/accounts/user/{people.other.pk}/change/"
    assert "Another account has" in staff.post(page, {"username": "bob", "email": "Anna@Example.org"}).content.decode()
    assert not User.objects.filter(email__iexact="anna@example.org").exclude(pk=people.owner.pk).exists()
