"""The page of staff keys: made by their owners, shown once, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import AuditEvent, StaffKey, User
from accounts.models.staff_key import MOST_DAYS, PREFIX
from portal.lib import clock
from tests.manage.scripts import Script, make_key
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

pytestmark = pytest.mark.shared
ADD = "/admin/accounts/staffkey/add/"


def form(days: float = 30, **more: Any) -> dict[str, Any]:
    at = clock.now() + timedelta(days=days)
    return {
        "name": "nightly",
        "scopes": ["channels:read"],
        "expires_at_0": at.strftime("%Y-%m-%d"),
        "expires_at_1": at.strftime("%H:%M:%S"),
        **more,
    }


def test_a_key_is_shown_once_and_stored_as_a_digest(people: People) -> None:
    browser = signed_in(people.staff)
    page = browser.post(ADD, form())
    key = StaffKey.objects.get()
    secret = page.context["secret"]
    assert secret.startswith(PREFIX) and "no-store" in page["Cache-Control"] and key.user == people.staff
    assert secret not in str(StaffKey.objects.values().get())
    shown = page.content.decode()
    assert "http://testserver/api/v1/users" in shown and "http://testserver/api/v1/openapi.json" in shown
    Script(secret).ok("GET", "/channels")
    for url in ("/admin/accounts/staffkey/", f"/admin/accounts/staffkey/{key.pk}/change/"):
        shown = browser.get(url).content.decode()
        assert secret not in shown and key.hint in shown
    assert secret not in "".join(str(one.detail) for one in AuditEvent.objects.all())
    assert AuditEvent.objects.filter(action="staffkey.add", actor=people.staff).exists()


def test_whoever_makes_a_key_owns_it_and_sees_no_others(people: People) -> None:
    boss_key = make_key(people.staff)
    browser = clerk("add_staffkey", "view_staffkey", "change_staffkey")
    person = User.objects.get(username="clerk")
    browser.post(ADD, form(user=people.staff.pk))
    mine = StaffKey.objects.get(user=person)
    theirs = StaffKey.objects.get(user=people.staff)
    assert f"/{theirs.pk}/" not in browser.get("/admin/accounts/staffkey/").content.decode()
    assert browser.get(f"/admin/accounts/staffkey/{theirs.pk}/change/").status_code == 302
    assert browser.post(f"/admin/accounts/staffkey/{theirs.pk}/revoke/").status_code == 404
    Script(boss_key).ok("GET", "/channels")
    boss = signed_in(people.staff)
    boss.post(f"/admin/accounts/staffkey/{mine.pk}/revoke/")
    mine.refresh_from_db()
    assert mine.revoked_at is not None and AuditEvent.objects.filter(action="staffkey.revoke").count() == 1


def test_staff_without_the_right_make_none(people: People) -> None:
    browser = clerk("view_channel")
    assert browser.post(ADD, form()).status_code == 403 and not StaffKey.objects.exists()
    assert Client().post(ADD, form()).status_code == 302 and not StaffKey.objects.exists()


@pytest.mark.parametrize(
    "wrong", [{"days": -1}, {"days": MOST_DAYS + 2}, {"scopes": []}, {"scopes": ["everything:write"]}, {"name": ""}]
)
def test_what_makes_no_sense_is_refused(people: People, wrong: dict[str, Any]) -> None:
    page = signed_in(people.staff).post(ADD, form(**wrong))
    assert page.status_code == 200 and page.context["adminform"].form.errors
    assert not StaffKey.objects.exists()


def test_a_key_stays_as_it_was_made(people: People) -> None:
    make_key(people.staff, "channels:read")
    key = StaffKey.objects.get()
    signed_in(people.staff).post(f"/admin/accounts/staffkey/{key.pk}/change/", form(scopes=["users:write"]))
    key.refresh_from_db()
    assert key.scopes == ["channels:read"] and key.name == "a script"


def test_many_are_revoked_after_a_question(people: People) -> None:
    secret = make_key(people.staff)
    key, browser = StaffKey.objects.get(), signed_in(people.staff)
    chosen = {"action": "revoke_selected", "_selected_action": [key.pk]}
    asked = browser.post("/admin/accounts/staffkey/", chosen)
    assert asked.status_code == 200 and Script(secret)("GET", "/channels").status_code == 200
    browser.post("/admin/accounts/staffkey/", {**chosen, "confirmed": "1"})
    assert Script(secret)("GET", "/channels").status_code == 401


def test_rights_that_a_key_does_not_have_are_not_given_by_it(people: People) -> None:
    """All scopes, and an owner who may do one thing."""
    person = User.objects.create_user("dora", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename="view_channel"))
    script = Script(make_key(person))
    assert script("GET", "/channels").status_code == 200
    assert {script("GET", path).status_code for path in ("/users", "/tokens", "/prices", "/usage", "/groups")} == {403}
