"""The status page."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from relay.models import Model
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("setting", "stranger", "user"), [("off", 404, 404), ("users", 302, 200), ("public", 200, 200)]
)
def test_the_status_page_is_for_whom_the_setting_says(
    people: People, settings: Any, setting: str, stranger: int, user: int
) -> None:
    with_config(settings, status_page=setting)
    Model.objects.create(name="closed-one")
    Model.objects.create(name="open-one", is_open=True)
    answer = Client().get("/status/")
    assert answer.status_code == stranger and signed_in(people.owner).get("/status/").status_code == user
    if stranger == 200:
        assert "open-one" in answer.content.decode() and "closed-one" not in answer.content.decode()
