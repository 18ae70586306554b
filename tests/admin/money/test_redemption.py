"""Redemption codes in the admin."""

from __future__ import annotations

import csv
import io

import pytest
from django.test import Client

from portal.lib.money import NANO
from relay.models import RedemptionBatch
from tests.support.portal import People
from tests.support.sessions import clerk

pytestmark = pytest.mark.shared


def test_codes_are_made_shown_and_exported_by_those_who_may(staff: Client, people: People) -> None:
    response = staff.post(
        "/admin/relay/redemptionbatch/add/", {"name": "Spring", "usd": "5", "count": "3"}, follow=True
    )
    batch = RedemptionBatch.objects.get(name="Spring")
    assert (batch.amount, batch.count, batch.created_by) == (5 * NANO, 3, people.staff)
    shown = response.content.decode()
    codes = shown.split('id="codes"', 1)[1].split(">", 1)[1].split("</pre>", 1)[0].split()
    assert len(codes) == 3 and len(codes[0]) == 23 and "no-store" in response["cache-control"]
    rows = list(
        csv.DictReader(io.StringIO(staff.get(f"/admin/relay/redemptionbatch/{batch.pk}/export/").content.decode()))
    )
    assert (
        [row["code"] for row in rows] == codes
        and {row["state"] for row in rows} == {"open"}
        and {row["usd"] for row in rows} == {"5"}
    )
    assert codes[0] not in staff.get(f"/admin/relay/redemptionbatch/{batch.pk}/change/").content.decode()
    staff.post(f"/admin/relay/redemptionbatch/{batch.pk}/disable/")
    assert not batch.codes.filter(enabled=True).exists()
    reader = clerk("view_redemptionbatch")
    assert reader.get("/admin/relay/redemptionbatch/").status_code == 200
    for path in ("codes", "export"):
        assert reader.get(f"/admin/relay/redemptionbatch/{batch.pk}/{path}/").status_code == 403
    for wrong in ({"count": "0"}, {"count": "999999"}, {"usd": "-1"}, {"usd": "0"}):
        assert (
            staff.post(
                "/admin/relay/redemptionbatch/add/", {"name": "x", "usd": "5", "count": "3", **wrong}
            ).status_code
            == 200
        ), wrong
    assert RedemptionBatch.objects.count() == 1


def test_codes_that_are_over_are_not_made(staff: Client) -> None:
    form = {"name": "old", "usd": "5", "count": "2", "expires_at_0": "2020-01-01", "expires_at_1": "10:00"}
    page = staff.post("/admin/relay/redemptionbatch/add/", form)
    assert page.status_code == 200 and "This time is past" in page.content.decode()
    assert not RedemptionBatch.objects.exists()
    assert staff.post("/admin/relay/redemptionbatch/add/", {**form, "expires_at_0": "2099-01-01"}).status_code == 302
    batch = RedemptionBatch.objects.get()
    url = f"/admin/relay/redemptionbatch/{batch.pk}/change/"
    page = staff.post(url, {"name": "new", "expires_at_0": "2020-01-01", "expires_at_1": "10:00"})
    assert page.status_code == 200 and "This time is past" in page.content.decode()
    RedemptionBatch.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert staff.post(url, {"name": "new", "expires_at_0": "2020-01-01", "expires_at_1": "00:00"}).status_code == 302
    batch.refresh_from_db()
    assert batch.name == "new", "one that is over can be named"
