"""The page of usage: receipts, exports, sums."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import httpx
import pytest
from django.test import Client

from portal.lib import clock
from relay.models import Model, ModelPrice, UsageRecord
from relay.tokens.lifecycle import create_token
from relay.usage.query import read_period
from tests.support.asserts import csv_rows
from tests.support.money import record, refused
from tests.support.portal import People, Portal
from tests.support.server import Server
from tests.support.sessions import session_of, signed_in

pytestmark = pytest.mark.shared


def test_csv_of_users_has_their_own_rows_and_no_upstream(live: Portal, server: Server) -> None:
    owner, other = live.user(), live.user()
    record(owner, request_id=live.name("req_mine"), cost=0, upstream_cost=0)
    record(other, request_id=live.name("req_theirs"), model="secret-model", cost=0, upstream_cost=0)
    text = httpx.get(f"{server.url}/usage/export.csv", cookies=session_of(owner), trust_env=False, timeout=60).text
    assert "req_mine" in text and "secret-model" not in text and "upstream" not in text and "margin" not in text
    assert httpx.get(f"{server.url}/usage/export.csv", trust_env=False, timeout=60).status_code == 302


def test_receipts_of_users_are_their_own(people: People) -> None:
    found = record(
        people.owner,
        upstream_model="vendor-internal-name",
        attempt_log=[{"channel": 1, "key": 7, "ms": 5, "outcome": "ok", "detail": "secret-detail"}],
    )
    path = f"/usage/{found.request_id}/"
    page = signed_in(people.owner).get(path).content.decode()
    assert (
        "$0.002" in page
        and "vendor-internal-name" not in page
        and "secret-detail" not in page
        and "margin" not in page.lower()
    )
    assert signed_in(people.other).get(path).status_code == 404
    assert signed_in(people.staff).get(path).status_code == 404, "staff read receipts in the admin"
    assert Client().get(path).status_code == 302


def test_receipts_say_what_a_price_is_for_and_which_tokens_were_cached(people: People) -> None:
    model = Model.objects.create(name="m")
    price = ModelPrice.objects.create(model=model, input=3, output=15, cached_input="0.3", per_search="0.01")
    found = record(people.owner, price=price, input_tokens=100, cached_input_tokens=60, cache_write_tokens=30)
    page = re.sub(r"\s+", " ", signed_in(people.owner).get(f"/usage/{found.request_id}/").content.decode())
    assert all(
        part in page for part in ("$3.00 in", "$0.30 cached", "$15.00 out", "per 1M tokens; $0.01 per web search")
    )
    assert "100, of it 60 cached, 30 written to the cache" in page


def test_usage_page_shows_cost_by_model_and_token(people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    record(people.owner, token=token)
    record(people.other, cost=7_000_000, request_id="req_other", model="others")
    page = signed_in(people.owner).get("/usage/").content.decode()
    assert "$0.002" in page and "laptop" in page and "others" not in page and "$0.007" not in page


def test_usage_is_paged_by_id(clients: tuple[Client, Client, Client], people: People) -> None:
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=f"req_{number:03}",
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
        for number in range(60)
    )
    first = clients[0].get("/usage/").content.decode()
    assert "req_059" in first and "req_009" not in first
    link = re.search(r'href="(\?[^"]*before=[^"]*)"', first)
    assert link is not None
    second = clients[0].get(f"/usage/{html.unescape(link[1])}").content.decode()
    assert "req_009" in second and "req_059" not in second


def test_refused_requests_are_in_the_list_of_their_owner(people: People) -> None:
    row = refused(people.owner, create_token(people.owner, "laptop", actor=None)[0])
    record(people.owner, request_id="req_served", model="m")
    path = f"/usage/{row.request_id}/"
    owner, other, staff = (signed_in(user) for user in (people.owner, people.other, people.staff))
    for query in ("", "?failed=1", f"?token={row.token_id}&failed=1", "?model=no-such-model"):
        page = owner.get(f"/usage/{query}").content.decode()
        assert path in page and "model_not_found" in page, query
    assert "req_served" not in owner.get("/usage/?failed=1").content.decode()
    assert path not in owner.get("/usage/?model=m").content.decode()
    assert path not in other.get("/usage/?failed=1").content.decode()
    counted = "and not in these figures"
    assert counted in owner.get("/usage/").content.decode() and counted not in other.get("/usage/").content.decode()
    page = owner.get(path).content.decode()
    assert "Copy the name from the list of models." in page and "The model does not exist here." in page
    assert other.get(path).status_code == staff.get(path).status_code == 404 and Client().get(path).status_code == 302
    assert "1 request was refused" in owner.get("/").content.decode()
    assert "refused in the last" not in other.get("/").content.decode()


def test_page_and_export_show_the_same_period_and_filters(people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    for days, name, model in ((0, "today", "a"), (40, "old", "a"), (40, "oldb", "b")):
        record(
            people.owner,
            token=token,
            request_id=f"req_{name}",
            model=model,
            started_at=clock.now() - timedelta(days=days),
        )
    client = signed_in(people.owner)
    day = (clock.now() - timedelta(days=40)).date()
    for asked, wanted in (
        ("", {"req_today"}),
        ("?days=90", {"req_today", "req_old", "req_oldb"}),
        (f"?since={day - timedelta(days=2)}&until={day + timedelta(days=2)}", {"req_old", "req_oldb"}),
        ("?days=90&model=b", {"req_oldb"}),
        ("?days=90&outcome=failed", set()),
        (f"?period=since%3D{day - timedelta(days=2)}", {"req_today", "req_old", "req_oldb"}),
    ):
        page = client.get(f"/usage/{asked}").content.decode()
        assert set(re.findall(r"req_\w+", page)) == wanted, asked
        link = re.search(r'href="(/usage/export\.csv[^"]*)"', page)
        assert link is not None
        assert {row["request_id"] for row in csv_rows(client.get(html.unescape(link[1])))} == wanted, asked
        assert f"<dt>Requests</dt><dd>{len(wanted)}</dd>" in page or "failed" in asked


def test_rows_cost_what_is_owed_and_figures_say_what_they_are_of(people: People) -> None:
    record(people.owner, cost=360_000, shortfall=80_000)
    browser = signed_in(people.owner)
    page = browser.get("/usage/").content.decode()
    assert "$0.00028" in page and "$0.00036" not in page, "what is not covered is not owed"
    said = "These figures are of all requests, whatever their outcome."
    assert said not in page and said in browser.get("/usage/?outcome=failed").content.decode()


def test_a_period_that_is_typed_the_wrong_way_round_is_the_days_between(people: People, staff: Client) -> None:
    wrong, right = {"since": "2026-03-09", "until": "2026-03-02"}, {"since": "2026-03-02", "until": "2026-03-09"}
    assert read_period(wrong) == read_period(right)
    future = read_period({"since": "2999-01-01"})
    assert future is not None and future.first == future.last
    for client, path in (
        (signed_in(people.owner), "/usage/"),
        (staff, "/admin/relay/usagerecord/"),
        (staff, "/admin/relay/usagerecord/report/"),
    ):
        label = read_period(right)
        assert label is not None and label.label in html.unescape(client.get(path, wrong).content.decode()), path
