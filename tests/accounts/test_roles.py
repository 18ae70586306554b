"""Roles and who hands them out."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.core.management.sql import emit_post_migrate_signal
from django.db import connection
from django.test import Client

from accounts.models import Role, User
from relay.roles import ROLES, give_rights, rights_of
from tests.support.pages.filled import filled
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_roles_are_handed_out_by_owners_only(people: People) -> None:
    """Staff who may edit users cannot give a role to anybody, not even to one who is not staff yet."""
    helper = User.objects.create_user("dora", password="x", is_staff=True)
    helper.user_permissions.add(*Permission.objects.filter(codename__in=("change_user", "view_user")))
    owner_role = Group.objects.get(name="Owner")
    path = f"/admin/accounts/user/{people.owner.pk}/change/"
    form = {
        "username": "alice",
        "is_active": "on",
        "groups": [owner_role.pk],
        "language": "",
        "time_zone": "",
        "notes": "changed",
    }
    signed_in(helper).post(path, form)
    assert not people.owner.groups.filter(name="Owner").exists()
    boss = User.objects.create_user("olaf", password="x", is_staff=True)
    boss.groups.add(owner_role)
    answer = signed_in(boss).get(path).content.decode()
    assert 'name="is_staff"' in answer and 'name="is_superuser"' not in answer
    assert signed_in(boss).get(f"/admin/accounts/user/{people.staff.pk}/password/").status_code == 403, (
        "nor the password of a superuser"
    )


def _old_installation(*, upgraded: bool) -> None:
    """As it was before roles were noted: begun before or after sign-in providers had permissions."""
    owner = Group.objects.get(name="Owner")
    Role.objects.all().delete()
    if not upgraded:
        owner.permissions.remove(*Permission.objects.filter(content_type__app_label__in=("socialaccount", "account")))
    note = import_module("accounts.migrations.0008_roles").note
    note(apps, SimpleNamespace(connection=connection))
    give_rights()


@pytest.mark.parametrize("history", ["new", "old, begun without", "old, begun with"])
def test_a_role_has_the_same_rights_whenever_the_portal_was_set_up(db: None, history: str) -> None:
    if history != "new":
        _old_installation(upgraded=history == "old, begun with")
    for key in ("owner", *ROLES):
        held = set(Role.objects.get(key=key).group.permissions.all())
        assert set(rights_of(key)) - held == set(), key
    person = User.objects.create_user("dora", is_staff=True)
    person.groups.add(Group.objects.get(name="Owner"))
    assert signed_in(person).get("/admin/socialaccount/socialapp/").status_code == 200


def test_a_right_is_given_to_a_role_once(db: None) -> None:
    """What is taken away from it stays away; what is new comes, and the group may be called anything."""
    role = Role.objects.get(key="owner")
    Group.objects.filter(pk=role.group_id).update(name="Chefs")
    taken = Permission.objects.get(codename="delete_channel")
    role.group.permissions.remove(taken)
    new = Permission.objects.create(codename="add_something", name="x", content_type=taken.content_type)
    give_rights()
    held = set(role.group.permissions.all())
    assert new in held and taken not in held
    _old = import_module("accounts.migrations.0008_roles")
    Role.objects.all().delete()
    Group.objects.filter(name="Chefs").update(name="Owner")
    _old.note(apps, SimpleNamespace(connection=connection))
    give_rights()
    assert taken not in set(Group.objects.get(name="Owner").permissions.all()), "nor by what old installations lack"


def test_who_is_given_a_role_is_staff(people: People, staff: Client) -> None:
    """The rights of a role count for staff only: one switch sets the other, and none is cleared alone."""
    path = f"/admin/accounts/user/{people.owner.pk}/change/"
    operator = Group.objects.get(name="Operator")

    def save(**changes: Any) -> str:
        form = filled(staff.get(path).content.decode(), **changes)
        answer = staff.post(path, form, follow=True).content.decode()
        people.owner.refresh_from_db()
        return answer

    assert "alice is staff now" in save(groups=[operator.pk]) and people.owner.is_staff
    assert "take this user out of it" in save(is_staff=None) and people.owner.is_staff
    save(groups=[], is_staff=None)
    assert not people.owner.is_staff and not people.owner.groups.exists()
    plain = Group.objects.create(name="Customers")
    save(groups=[plain.pk])
    assert not people.owner.is_staff, "a group without rights is no role"
    assert "alice is staff now" in save(is_superuser="on") and people.owner.is_staff
    save(is_superuser=None)
    people.owner.groups.add(operator)
    User.objects.filter(pk=people.owner.pk).update(is_staff=False)
    assert "is not staff, so the rights of Operator do not count" in staff.get(path).content.decode()
    save(notes="seen")
    assert not people.owner.is_staff, "nobody is made staff by another change"


def test_an_invitation_into_a_role_says_that_it_makes_no_staff(people: People, staff: Client) -> None:
    page = "/admin/accounts/invitation/add/"
    for name, said in (("Operator", True), ("Customers", False)):
        group, _made = Group.objects.get_or_create(name=name)
        form = filled(staff.get(page).content.decode(), note="x", uses=1, groups=[group.pk])
        assert ("is not staff" in staff.post(page, form, follow=True).content.decode()) is said


def test_roles_have_their_rights_after_a_flush(db: None) -> None:
    """`manage.py flush` announces no state of the migrations."""
    role = Role.objects.get(key="support")
    role.given.clear()
    emit_post_migrate_signal(0, False, "default")
    assert set(role.given.all()) == set(rights_of("support"))
