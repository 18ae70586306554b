"""Looking at the portal as a user."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group

from accounts.models import AuditEvent, User
from tests.support.portal import People
from tests.support.sessions import POSTS, SECRET_WORD, signed_in

pytestmark = pytest.mark.shared


def test_looking_as_a_user_reads_and_nothing_else(people: People, owned: dict[str, Any]) -> None:
    staff = signed_in(people.staff)
    assert signed_in(people.other).post(f"/accounts/view-as/{people.owner.pk}/").status_code == 403
    assert staff.get(f"/accounts/view-as/{people.owner.pk}/").status_code == 405
    assert staff.post(f"/accounts/view-as/{people.owner.pk}/").status_code == 302
    assert SECRET_WORD in staff.get("/tokens/").content.decode()
    for name, path in POSTS.items():
        assert staff.post(path.format(**owned), {"token": owned["token"]}).status_code == 403, name
    assert AuditEvent.objects.filter(action="user.view-as", actor=people.staff, target_id=str(people.owner.pk)).exists()
    people.owner.is_staff = True
    people.owner.save()
    helper = User.objects.create_user("dora", password="x", is_staff=True)
    helper.groups.add(Group.objects.get(name="Support"))
    assert signed_in(helper).post(f"/accounts/view-as/{people.owner.pk}/").status_code == 403
    assert signed_in(helper).post(f"/accounts/view-as/{people.other.pk}/").status_code == 302
    staff.post("/accounts/view-as/leave/")
    assert SECRET_WORD not in staff.get("/tokens/").content.decode()
