"""Usage records in the admin: read only, receipts, reports, exports."""

from __future__ import annotations

import csv
import io

import httpx
import pytest
from django.test import Client

from accounts.models import AuditEvent
from portal.lib import clock
from relay.models import Channel, UsageRecord
from relay.tokens.lifecycle import create_token
from tests.support.money import record
from tests.support.portal import People, Portal
from tests.support.server import Server
from tests.support.sessions import session_of

pytestmark = pytest.mark.shared


def test_records_cannot_be_changed(staff: Client, people: People) -> None:
    record = UsageRecord.objects.create(
        request_id="req_x",
        started_at=clock.now(),
        user=people.owner,
        model="m",
        endpoint="chat.completions",
        streamed=False,
        status=200,
        end_reason="completed",
        usage_source="reported",
        latency_ms=5,
    )
    event = AuditEvent.write("x", people.owner)
    for path in (f"relay/usagerecord/{record.pk}", f"accounts/auditevent/{event.pk}"):
        assert staff.get(f"/admin/{path}/change/").status_code == 200
        assert staff.post(f"/admin/{path}/change/", {}).status_code == 403
        assert staff.post(f"/admin/{path}/delete/", {"post": "yes"}).status_code == 403
    assert staff.get("/admin/relay/usagerecord/add/").status_code == 403


def test_usage_of_deleted_things_is_still_shown(staff: Client) -> None:
    channel = Channel.objects.create(name="gone", provider="demo")
    UsageRecord.objects.create(
        request_id="req_gone",
        started_at=clock.now(),
        channel=channel,
        model="m",
        endpoint="chat.completions",
        streamed=False,
        status=200,
        end_reason="completed",
        usage_source="reported",
        latency_ms=5,
    )
    channel.delete()
    assert staff.get("/admin/relay/usagerecord/").status_code == 200


def test_receipt_report_and_margin_for_staff(staff: Client, people: People) -> None:
    channel = Channel.objects.create(name="Main", provider="openai")
    found = record(
        people.owner, channel=channel, attempt_log=[{"channel": channel.pk, "key": 1, "ms": 5, "outcome": "ok"}]
    )
    page = staff.get(f"/admin/relay/usagerecord/{found.pk}/change/").content.decode()
    assert (
        "$0.002" in page and "$0.0005" in page and "$0.0015" in page and "the usage that the upstream reported" in page
    )
    assert "$0.0015" in staff.get("/admin/relay/usagerecord/").content.decode()
    for by in ("day", "model", "token", "channel", "user", "nonsense"):
        assert "$0.0015" in staff.get(f"/admin/relay/usagerecord/report/?by={by}").content.decode(), by
    assert (
        "No requests" in staff.get(f"/admin/relay/usagerecord/report/?by=model&user={people.other.pk}").content.decode()
    )
    assert (
        staff.get("/admin/relay/usagerecord/report/?days=99999999999&user=x&channel=99999999999999999999").status_code
        == 200
    )


def test_csv_is_streamed_to_staff_with_margin(live: Portal, server: Server) -> None:
    owner, boss = live.user(), live.user(is_staff=True, is_superuser=True)
    token = create_token(owner, "=cmd()", actor=None)[0]
    now = clock.now()
    values = {
        "started_at": now,
        "user": owner,
        "token": token,
        "model": "gpt",
        "endpoint": "chat.completions",
        "streamed": False,
        "status": 200,
        "end_reason": "completed",
    }
    UsageRecord.objects.bulk_create(
        UsageRecord(
            **values,
            request_id=f"req_csv_{number}",
            usage_source="reported",
            latency_ms=5,
            upstream_cost=500_000,
            billing="usage",
        )
        for number in range(2500)
    )
    with httpx.stream(
        "GET",
        f"{server.url}/admin/relay/usagerecord/export/?days=1&user={owner.pk}",
        cookies=session_of(boss),
        trust_env=False,
        timeout=30,
    ) as response:
        assert response.status_code == 200 and "content-length" not in response.headers
        text = b"".join(response.iter_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (
        len(rows) == 2500
        and {row["margin_usd"] for row in rows} == {"-0.0005"}
        and {row["user"] for row in rows} == {owner.username}
    )
    assert {row["token"] for row in rows} == {"'=cmd()"}, "no spreadsheet takes a name for a formula"
    refused = httpx.get(
        f"{server.url}/admin/relay/usagerecord/export/",
        cookies=session_of(owner),
        trust_env=False,
        follow_redirects=False,
        timeout=60,
    )
    assert refused.status_code in {302, 403}
