"""Tokens that are made together."""

from __future__ import annotations

import re

import pytest

from relay.models import Token
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_the_geekai_bundle_makes_three_tokens_and_shows_them_once(people: People) -> None:
    staff = signed_in(people.staff)
    answer = staff.post(f"/admin/accounts/user/{people.owner.pk}/geekai/", follow=True)
    page = answer.content.decode()
    tokens = list(Token.objects.filter(user=people.owner).order_by("pk"))
    assert [token.purpose for token in tokens] == ["chat", "images", "tasks"] and len(
        set(re.findall(r"sk-\w{48}", page))
    ) == 3
    assert "no-store" in answer["cache-control"] and "http://testserver<" in page
