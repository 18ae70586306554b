"""Redemption codes in the admin."""

from __future__ import annotations

import csv
import io
import re

import pytest
from django.test import Client

from accounts.models import AuditEvent
from portal.lib.money import NANO
from relay.billing.redemption import create_codes
from relay.models import RedemptionBatch
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

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


def test_one_code_is_found_by_typing_it_and_disabled_alone(staff: Client, people: People) -> None:
    batch, codes = create_codes("Spring", 5 * NANO, 3, actor=people.staff)
    url = "/admin/relay/redemptionbatch/"
    owner, reader = signed_in(people.owner), clerk("view_redemptionbatch")
    assert owner.post(f"{url}find/", {"code": codes[0]}).status_code in {302, 403}
    for client in (staff, reader):
        for typed in (codes[0], codes[0].lower().replace("-", " ")):
            for answer in (client.post(f"{url}find/", {"code": typed}), client.get(url, {"q": typed})):
                page = answer.content.decode()
                assert answer.status_code == 200 and "Spring" in page and "$5.00" in page
                assert find_hint(codes[0]) in page and "no-store" in answer["Cache-Control"]
                assert not any(find_hint(other) in page for other in codes[1:]), "no other"
    for wrong in ("A" * 20, codes[0][:-1], "", "é%_", "x" * 5000, codes[0] + codes[1]):
        answer = reader.post(f"{url}find/", {"code": wrong})
        assert answer.status_code == 422 and "This is not a code of this portal." in answer.content.decode()
        assert "Spring" not in answer.content.decode()
    assert "This is not a code" in staff.get(url, {"q": "A" * 20}).content.decode()
    assert "Spring" in staff.get(url, {"q": codes[0][:5]}).content.decode(), "a beginning finds the batch"

    assert "Disable this code" not in reader.post(f"{url}find/", {"code": codes[0]}).content.decode()
    page = staff.post(f"{url}find/", {"code": codes[0]}).content.decode()
    signed = re.search(r'name="disable" value="([^"]+)"', page)
    assert signed and codes[0] not in signed[1]
    assert reader.post(f"{url}find/", {"disable": signed[1]}).status_code == 403
    assert staff.post(f"{url}find/", {"disable": str(batch.codes.all()[0].pk)}).status_code == 422
    assert batch.codes.filter(enabled=True).count() == 3
    assert "is disabled" in staff.post(f"{url}find/", {"disable": signed[1]}).content.decode()
    assert [code.hint for code in batch.codes.filter(enabled=False)] == [find_hint(codes[0])]
    event = AuditEvent.objects.get(action="code.disable")
    assert (event.actor, event.target_name) == (people.staff, find_hint(codes[0])) and codes[0] not in str(event.detail)
    assert "was not open any more" in staff.post(f"{url}find/", {"disable": signed[1]}).content.decode()
    assert AuditEvent.objects.filter(action="code.disable").count() == 1
    assert owner.post("/balance/", {"code": codes[0]}).status_code == 422
    assert owner.post("/balance/", {"code": codes[1]}).status_code == 302, "the others are as they were"
    assert "alice" in staff.post(f"{url}find/", {"code": codes[1]}).content.decode()


def find_hint(code: str) -> str:
    return f"{code[:5]}…{code[-2:]}"
