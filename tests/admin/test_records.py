"""Usage records in the admin: read only, receipts, reports, exports."""

from __future__ import annotations

import csv
import html
import io
import re
from datetime import date, timedelta

import httpx
import pytest
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib import clock
from relay.models import Channel, Model, UsageRecord
from relay.tokens.lifecycle import create_token
from relay.usage import rollup
from relay.usage.receipts import receipt
from tests.support.asserts import csv_rows
from tests.support.money import record, refused
from tests.support.portal import People, Portal
from tests.support.server import Server
from tests.support.sessions import clerk, session_of, signed_in

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


def test_pages_and_exports_outlive_everything_that_a_record_refers_to(staff: Client) -> None:
    gone = dict.fromkeys(("user_id", "token_id", "channel_id", "api_key_id", "price_id"), 999_999)
    found = record(None, **gone)  # type: ignore[arg-type]  # its id says who it was
    refusal = refused(None, user_id=999_999, token_id=999_999)  # type: ignore[arg-type]  # as above
    page = staff.get(f"/admin/relay/usagerecord/{found.pk}/change/")
    assert page.status_code == 200 and "#999999, which was deleted" in page.content.decode()
    assert receipt(UsageRecord.objects.get(), staff=True)["price"] == {"id": 999_999, "deleted": True, "usd": {}}
    for path in ("", "export/", "report/", "report/?by=user", "report/?by=token", "report/?by=channel"):
        answer = staff.get(f"/admin/relay/usagerecord/{path}")
        assert answer.status_code == 200, path
        if path == "export/":
            assert {found.request_id, refusal.request_id} <= {row["request_id"] for row in csv_rows(answer)}
    assert staff.get(f"/admin/relay/usagerecord/?q={refusal.request_id}", follow=True).status_code == 200


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


def _links(page: str, within: str = "") -> list[str]:
    return [html.unescape(link) for link in re.findall(r'href="([^"]*\?[^"]*)"', page) if within in link]


def _exported(staff: Client, url: str) -> list[dict[str, str]]:
    return csv_rows(staff.get(url))


@pytest.fixture
def three_months(people: People) -> list[date]:
    """A record of Alice and one of Bob in each of the last three months, dearer the older; their first days."""
    UsageRecord.objects.all().delete()
    rollup.rebuild()
    today = clock.now().date()
    firsts = [today.replace(day=1)]
    while len(firsts) < 3:
        firsts.append((firsts[-1] - timedelta(days=1)).replace(day=1))
    for number, first in enumerate(firsts):
        for user in (people.owner, people.other):
            at = clock.now().replace(year=first.year, month=first.month, day=1, hour=12)
            cost = 1_000_000_000 * (number + 1)
            record(user, request_id=f"req_{number}_{user}", started_at=at, cost=cost, channel=None)
    return firsts


def test_a_period_is_kept_by_every_tab_link_and_export(staff: Client, people: People, three_months: list[date]) -> None:
    report, month = "/admin/relay/usagerecord/report/", three_months[1]
    asked = {
        f"month={month:%Y-%m}": ("$4.00", 2),
        f"month={month.year * 12 + month.month - 1}": ("$4.00", 2),
        f"since={month}&until={month}&user={people.owner.pk}": ("$2.00", 1),
        "days=365": ("$12.00", 6),
    }
    for parameters, (total, count) in asked.items():
        for by in ("day", "model", "token", "channel", "user"):
            page = staff.get(f"{report}?by={by}&{parameters}").content.decode()
            foot = page[page.index("<tfoot") :]
            assert total in foot, (parameters, by)
            kept = re.search(r"<h2[^>]*>([^<]*)</h2>", page)
            tabs = [link for link in _links(page) if link.startswith("?by=") and "csv" not in link]
            for link in tabs[:5]:
                other = staff.get(report + link).content.decode()
                assert total in other[other.index("<tfoot") :], (parameters, by, link)
                assert kept is not None and kept[0] in other
            (table,) = _links(page, "csv=1")
            assert sum(float(row["charged_usd"]) for row in _exported(staff, report + table)) == float(total[1:])
            (requests,) = _links(page, "/export/")
            assert len(_exported(staff, requests)) == count, (parameters, by)
            (listed,) = _links(page, "/usagerecord/?")
            assert staff.get(listed).content.decode().count('title="req_') == count


def test_the_list_is_exported_as_it_is_filtered(staff: Client, people: People, three_months: list[date]) -> None:
    url, old = "/admin/relay/usagerecord/", three_months[2]
    for asked, wanted in (
        ("", 6),
        (f"?user_name=alice&since={old}&until={old}", 1),
        (f"?until={old + timedelta(days=5)}", 2),
        (f"?channel=&outcome=failed&since={old}", 0),
        ("?user_name=nobody", 0),
        ("?model=gpt&days=x&channel=x", 6),
    ):
        page = staff.get(url + asked).content.decode()
        assert page.count('title="req_') == wanted, asked
        (link,) = [href for href in re.findall(r'href="([^"]*/export/[^"]*)"', page)]
        assert len(_exported(staff, html.unescape(link))) == wanted, asked
    page = staff.get(f"{url}?user_name=alice&since={old}&until={old}").content.decode()
    (link,) = _links(page, "/report/")
    assert "$3.00" in staff.get(link).content.decode()


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


def test_refused_requests_are_found_like_others(staff: Client, people: People) -> None:
    row = refused(people.owner, create_token(people.owner, "laptop", actor=None)[0])
    theirs = refused(people.other, error_code="insufficient_quota", model="gpt", status=429, requests=7)
    served = record(people.owner, model="gpt")
    path, other, served_path = f"/admin/refused/{row.request_id}/", theirs.request_id, f"/{served.pk}/change/"
    for query, mine, others, records in (
        ("", True, True, True),
        ("?outcome=failed", True, True, False),
        ("?outcome=refused", True, True, False),
        ("?outcome=completed", False, False, True),
        ("?outcome=refused&code=insufficient_quota", False, True, False),
        (f"?user={people.owner.pk}", True, False, True),
        (f"?user_name={people.owner.username}&outcome=failed", True, False, False),
        ("?user_name=nobody", False, False, False),
        (f"?token={row.token_id}", True, False, False),
        ("?model=gpt", False, True, True),
        ("?channel=1", False, False, False),
        ("?since=2020-01-01&until=2020-02-01", False, False, False),
        (f"?since={clock.now():%Y-%m-%d}&until={clock.now():%Y-%m-%d}", True, True, True),
    ):
        page = staff.get(f"/admin/relay/usagerecord/{query}").content.decode()
        assert (path in page, other in page, served_path in page) == (mine, others, records), query
    assert "7 requests" in staff.get("/admin/relay/usagerecord/?outcome=refused").content.decode()
    assert staff.get(f"/admin/relay/usagerecord/?q={row.request_id}").headers["location"] == path
    page = staff.get(path).content.decode()
    assert "The model does not exist here." in page and "Copy the name from the list of models." in page
    page = staff.get(f"/admin/refused/{other}/").content.decode()
    assert f"/admin/accounts/user/{people.other.pk}/change/" in page, "where the balance is topped up"
    assert staff.get("/admin/refused/req_none/").status_code == 404


def test_refused_requests_are_shown_to_staff_with_the_right_only(people: People) -> None:
    row = refused(people.owner)
    path, may = f"/admin/refused/{row.request_id}/", clerk("view_usagerecord")
    page = may.get(path)
    assert page.status_code == 200
    assert f"/admin/accounts/user/{people.owner.pk}/" not in page.content.decode(), (
        "no link that its reader may not follow"
    )
    User.objects.get(username="clerk").user_permissions.clear()
    assert may.get(path).status_code == 403
    assert signed_in(people.owner).get(path).status_code in {302, 403} and Client().get(path).status_code == 302


def test_users_are_found_by_address_by_those_who_may_see_it(staff: Client, people: People) -> None:
    people.owner.email = "Alice@Example.org"
    people.owner.save()
    record(people.owner, model="of-alice")
    path, address = "/admin/relay/usagerecord/", "alice@example.ORG"
    for typed in (address, "alice", "ALICE"):
        assert "of-alice" in staff.get(path, {"user_name": typed}).content.decode(), typed
    blind = clerk("view_usagerecord")
    assert "of-alice" in blind.get(path, {"user_name": "alice"}).content.decode()
    page = html.unescape(blind.get(path, {"user_name": address}).content.decode())
    assert "of-alice" not in page and f"There is no user “{address}”." in page and "#0" not in page
    assert signed_in(people.other).get(path, {"user_name": address}).status_code in {302, 403}
    page = html.unescape(staff.get(path, {"user_name": "nobody", "model": "gpt"}).content.decode())
    assert "There is no user “nobody”." in page and "#0" not in page and "user_name=nobody" in page
    report = html.unescape(staff.get(f"{path}report/", {"user_name": "nobody"}).content.decode())
    assert "There is no user “nobody”." in report and 'name="user_name" value="nobody"' in report
    people.other.email = "alice@example.org"
    people.other.save()
    found = User.objects.named(address)
    assert found is None, "two with one address are nobody"


def test_explain_finds_users_by_address(staff: Client, people: People) -> None:
    people.owner.email = "alice@example.org"
    people.owner.save()
    Model.objects.create(name="gpt")
    asked = {"user": "alice@example.org", "model": "gpt"}
    assert "There is no user" not in staff.get("/admin/explain/", asked).content.decode()
    assert staff.post("/admin/explain/", asked).status_code == 200
