"""The front page of the admin."""

from __future__ import annotations

from html import unescape

import pytest
from django.test import Client

from relay.error_texts import explained
from relay.models import Channel, Model, RefusedRequest
from tests.support.money import refused
from tests.support.portal import People

pytestmark = pytest.mark.shared


def test_front_page_says_what_needs_a_person(staff: Client) -> None:
    Channel.objects.create(name="No key", provider="openai")
    Model.objects.create(name="orphan")
    page = staff.get("/admin/").content.decode()
    assert "Channel “No key” serves nothing: It has no enabled key." in page and "“orphan”: no price" in page


def test_front_page_counts_refused_requests_and_says_what_to_do(staff: Client, people: People) -> None:
    RefusedRequest.objects.all().delete()
    refused(people.owner, error_code="insufficient_quota", status=429, requests=41)
    page = staff.get("/admin/").content.decode()
    assert "?days=1&amp;outcome=refused&amp;code=insufficient_quota" in page and ">41<" in page
    entry = explained("insufficient_quota")
    assert entry is not None and entry.remedy in unescape(page)
