"""The front page of the admin."""

from __future__ import annotations

import pytest
from django.test import Client

from relay.models import Channel, Model

pytestmark = pytest.mark.shared


def test_front_page_says_what_needs_a_person(staff: Client) -> None:
    Channel.objects.create(name="No key", provider="openai")
    Model.objects.create(name="orphan")
    page = staff.get("/admin/").content.decode()
    assert "Channel “No key” serves nothing: It has no enabled key." in page and "“orphan”: no price" in page
