"""Roles and who hands them out."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group

from accounts.models import User
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_roles_are_handed_out_by_owners_only(people: People) -> None:
    """Staff who may edit users cannot give a role to anybody, not even to one who is not staff yet."""
    from django.contrib.auth.models import Permission

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
