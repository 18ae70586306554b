"""The ledger's page: movements by people, periods, sums, search and export, for those who may view entries."""

from __future__ import annotations

import html
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib import clock, money
from portal.lib.money import LARGEST, NANO
from relay.billing.ledger import movements
from relay.models import LedgerEntry, Token
from relay.tokens.lifecycle import create_token
from relay.usage import entries
from relay.usage.entries import EntryQuery
from tests.support.asserts import csv_rows
from tests.support.money import record
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

pytestmark = pytest.mark.shared
URL = "/admin/relay/ledgerentry/"
NOVEMBER, OCTOBER = date(2025, 11, 30), date(2025, 10, 31)


def entry(user: User, day: date, kind: str = "top_up", amount: int = NANO, **more: Any) -> LedgerEntry:
    sides = {"deduct": ("wallet", "funding"), "usage": ("wallet", "revenue"), "redeem": ("codes", "wallet")}
    debit, credit = sides.get(kind, ("funding", "wallet"))
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    values = {"at": at, "day": day.toordinal(), "debit": debit, "credit": credit, "user": user}
    return LedgerEntry.objects.create(kind=kind, amount=amount, **values, **more)


def token_of(user: User, name: str = "laptop") -> Token:
    return create_token(user, name, actor=None)[0]


def text_of(client: Client, query: str = "", **parameters: Any) -> str:
    answer = client.get(f"{URL}{query}", parameters) if parameters else client.get(f"{URL}{query}")
    assert answer.status_code == 200
    return html.unescape(answer.content.decode())


def sums_of(page: str) -> dict[str, tuple[str, str]]:
    table = page.partition('id="sums"')[2].partition("</table>")[0]
    row = r'<th scope="row">\s*(.*?)\s*<span[^>]*>\s*(\d+) entr\w+\s*</span>\s*</th>\s*<td class="n">(.*?)</td>'
    rows = re.findall(row, table)
    return {kind: (count, amount) for kind, count, amount in rows}


def test_a_month_is_summed_up_by_kind_without_the_lines_of_requests(staff: Client, people: People) -> None:
    token = token_of(people.owner)
    entry(people.owner, OCTOBER, amount=7 * NANO, reason="the month before")
    entry(people.owner, date(2025, 11, 1), amount=NANO + 1, reason="number one")
    entry(people.other, NOVEMBER, amount=2 * NANO, reason="last")
    entry(people.owner, NOVEMBER, "deduct", 9_998_608_000, reason="closed")
    entry(people.owner, NOVEMBER, "redeem", 5 * NANO, reason="Code AB…CD")
    entry(people.owner, NOVEMBER, "usage", 464_000, token=token, request_id="req_" + "a" * 32)
    november = {"Top-up": ("2", "$3.000000001"), "Deduction": ("1", "$9.998608"), "Code redeemed": ("1", "$5.00")}
    page = text_of(staff, since="2025-11-01", until="2025-11-30")
    assert (
        sums_of(page) == november and "$9.998608" in page and "the month before" not in page and "$0.000464" not in page
    )
    assert sums_of(text_of(staff, until="2025-11-01", since="2025-11-30")) == november, "typed the wrong way round"
    assert sums_of(text_of(staff, month="2025-11")) == november
    assert sums_of(text_of(staff, month="2025-11", kind="top_up")) == {"Top-up": ("2", "$3.000000001")}
    assert sums_of(text_of(staff, month="2025-11", user_name="bob")) == {"Top-up": ("1", "$2.00")}
    assert sums_of(text_of(staff)) == {**november, "Top-up": ("3", "$10.000000001")}
    mine = text_of(staff, month="2025-11", kind="all", user=people.owner.pk)
    assert sums_of(mine)["Usage"] == ("1", "$0.000464")
    everybody = text_of(staff, month="2025-11", kind="all")
    assert not sums_of(everybody) and "Choose a user, too" in everybody and "$0.000464" in everybody
    assert "$0.000464" in text_of(staff, kind="requests") and "number one" not in text_of(staff, kind="requests")
    assert "There is no user “nobody”" in text_of(staff, user_name="nobody")
    assert "No entry is like that." in text_of(staff, month="2020-01")


def test_links_and_the_export_keep_what_is_chosen(staff: Client, people: People) -> None:
    token = token_of(people.owner, "=laptop")
    kept = entry(people.owner, NOVEMBER, amount=NANO + 1, reason="=HYPERLINK(0)", actor=people.staff)
    entry(people.owner, OCTOBER, reason="before")
    line = entry(people.owner, NOVEMBER, "usage", 5, token=token, request_id="req_" + "b" * 32)
    query = f"?since=2025-11-01&until=2025-11-30&user={people.owner.pk}&kind=top_up&q=HYPER"
    page = text_of(staff, query)
    export = re.search(rf'href="{URL}export/(\?[^"]+)"', page)
    assert export and {"since=2025-11-01", "until=2025-11-30", "kind=top_up", "q=HYPER"} <= set(
        export[1][1:].split("&")
    )
    answer = staff.get(f"{URL}export/{export[1]}")
    assert answer.streaming and 'filename="ledger-2025-11-01-2025-11-30.csv"' in answer["Content-Disposition"]
    (row,) = csv_rows(answer)
    assert (row["id"], row["kind"], row["amount_usd"]) == (str(kept.pk), "top_up", "1.000000001")
    assert (row["user"], row["actor"], row["reason"]) == ("alice", "carol", "'=HYPERLINK(0)"), "no formula"
    assert (row["day"], row["from"], row["to"]) == ("2025-11-30", "funding", "wallet")
    rows = csv_rows(staff.get(f"{URL}export/?kind=requests&month=2025-11"))
    assert [(one["id"], one["token"][:1], one["request_id"]) for one in rows] == [(str(line.pk), "'", line.request_id)]
    event = AuditEvent.objects.filter(action="ledger.export").order_by("pk")[0]
    assert event.actor == people.staff and "kind=top_up" in event.detail["query"]


def test_only_those_who_may_view_entries_see_and_export_them(people: People) -> None:
    entry(people.owner, NOVEMBER, reason="secret reason")
    for client in (signed_in(people.owner), signed_in(people.other)):
        for path in ("", "export/", "?q=secret"):
            answer = client.get(f"{URL}{path}")
            assert answer.status_code in {302, 403} and "secret reason" not in str(answer.content)
    accountant = clerk("view_user", "view_usagerecord", "view_ledgeraccount")
    for path in ("", "export/"):
        assert accountant.get(f"{URL}{path}").status_code == 403
    assert not AuditEvent.objects.filter(action="ledger.export").exists()
    User.objects.get(username="clerk").user_permissions.set(Permission.objects.filter(codename="view_ledgerentry"))
    assert "secret reason" in text_of(accountant)
    assert [row["reason"] for row in csv_rows(accountant.get(f"{URL}export/"))] == ["secret reason"]
    assert "usagerecord" not in text_of(accountant, kind="all"), "no links to pages that are closed"


def test_the_search_finds_reasons_people_tokens_and_ends_of_ids(staff: Client, people: People) -> None:
    token = token_of(people.owner, "laptop")
    usage = record(people.owner, request_id="req_" + "0" * 24 + "8e56ddb4", payer="wallet", cost=464)
    day = usage.started_at.date()
    line = entry(people.owner, day, "usage", 464, token=token, request_id=usage.request_id)
    refund = entry(people.owner, day, reason=f"Refund of {usage.request_id}", actor=people.staff)
    other = entry(people.other, day, reason="Invoice 7")

    def found(text: str, **more: Any) -> set[int]:
        page = text_of(staff, q=text, **more)
        return {int(pk) for pk in re.findall(rf"{URL}(\d+)/change/", page)}

    assert found("refund of") == {refund.pk} and found("invoice") == {other.pk}
    assert found("carol") == {refund.pk}, "who moved it"
    assert found("bob") == {other.pk}
    for text in (usage.request_id, "…8e56ddb4", "8e56ddb4", f"x-request-id: {usage.request_id}"):
        assert found(text) == {line.pk, refund.pk}, text
    assert found("laptop") == {line.pk} and found("LAPTOP", kind="all") == {line.pk}
    assert found("8e56ddb4", kind="usage") == {line.pk}
    assert found("no such thing") == found("%") == set()
    assert "Searched are reasons" in text_of(staff)


def test_pages_and_exports_have_every_entry_once(
    staff: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of(people.owner)
    days = [NOVEMBER - timedelta(days=number % 3) for number in range(40)]
    wanted = [entry(people.owner, day, reason=f"no {number % 4}").pk for number, day in enumerate(days)]
    lines = [entry(people.owner, day, "usage", 5, token=token).pk for day in days]
    monkeypatch.setattr(entries, "SCAN_SIZE", 7)
    monkeypatch.setattr(entries, "_CHUNK", 3)
    for parameters, ids in (
        ({}, wanted),
        ({"kind": "all"}, wanted + lines),
        ({"kind": "all", "user": str(people.owner.pk)}, wanted + lines),
        ({"kind": "usage"}, lines),
        ({"kind": "usage", "since": "2025-11-30"}, lines[::3]),
        ({"q": "no 1"}, wanted[1::4]),
    ):
        query = EntryQuery.read(parameters)
        found, before = [], ""
        for _ in range(60):
            page = query.page(before, 6)
            found += [row.pk for row in page.rows]
            before = page.before
            if not before:
                break
        assert sorted(found) == sorted(ids), parameters
        assert sorted(row.pk for chunk in query.chunks() for row in chunk) == sorted(ids), parameters
    assert EntryQuery.read({}).page("nonsense-1", 50).rows and EntryQuery.read({}).page("9" * 30, 50).rows


def test_sums_are_exact_bounded_and_one_query(
    people: People, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    for number in range(4):
        entry(people.owner, NOVEMBER, amount=LARGEST - number)
    query = EntryQuery.read({"month": "2025-11"})
    with django_assert_num_queries(1):
        (found,) = query.sums() or []
    assert (found.entries, found.amount) == (4, 4 * LARGEST - 6)
    assert [(one.entries, one.amount) for one in EntryQuery.read({"q": "x", "month": "2025-11"}).sums() or ()] == []
    monkeypatch.setattr(entries, "MOST_SUMMED", 4)
    assert query.sums()
    monkeypatch.setattr(entries, "MOST_SUMMED", 3)
    assert query.sums() is None and EntryQuery.read({"month": "2025-10"}).sums() == []


def test_too_many_entries_are_not_summed_up_and_the_page_says_so(
    staff: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(people.owner, NOVEMBER)
    entry(people.owner, NOVEMBER)
    for module in (entries, __import__("relay.admin.money.ledger", fromlist=["x"])):
        monkeypatch.setattr(module, "MOST_SUMMED", 1)
    page = text_of(staff)
    assert not sums_of(page) and "more than 1 entries" in page and "Choose a shorter period." in page


def test_pages_about_money_lead_to_the_movements(staff: Client, people: People) -> None:
    token = token_of(people.owner)
    answer = staff.get(f"/admin/accounts/user/{people.owner.pk}/movements/")
    assert answer.status_code == 302 and answer["Location"] == f"{URL}?user={people.owner.pk}"
    accounts = {"wallet": f"user={people.owner.pk}", "quota": f"token={token.pk}&kind=all"}
    for account in people.owner.ledger_accounts.all():
        answer = staff.get(f"/admin/relay/ledgeraccount/{account.pk}/movements/")
        assert answer["Location"] == f"{URL}?{accounts[account.kind]}"
    report = html.unescape(staff.get("/admin/relay/usagerecord/report/?month=2025-11&by=model").content.decode())
    assert f'href="{URL}?month=2025-11"' in report
    limited = clerk("view_user", "view_usagerecord", "view_earnings", "view_ledgeraccount")
    assert limited.get(f"/admin/accounts/user/{people.owner.pk}/movements/").status_code == 403
    assert URL not in limited.get("/admin/relay/usagerecord/report/").content.decode()


def test_movements_that_a_user_sees_add_up(people: People) -> None:
    for kind, amount in (("top_up", 10 * NANO), ("top_up", 464_000), ("deduct", 9_998_608_000)):
        entry(people.owner, NOVEMBER, kind, amount, reason="x")
    page = signed_in(people.owner).get("/balance/").content.decode()
    shown = re.findall(r'<td class="num">([−+])\$([\d.]+)</td>', page)
    assert sorted(shown) == [("+", "0.000464"), ("+", "10.00"), ("−", "9.998608")]


def test_what_a_request_cost_is_given_back_once(staff: Client, people: People) -> None:
    usage = record(people.owner, cost=1_856_000, payer="wallet", status=502, end_reason="upstream_error")
    url = f"/admin/relay/usagerecord/{usage.pk}/change/"

    def link(client: Client) -> str:
        found = re.search(r'href="([^"]+top-up[^"]+)"[^>]*>\s*Give back', client.get(url).content.decode())
        return html.unescape(found[1]) if found else ""

    support = clerk("view_usagerecord", "view_ledgeraccount", "view_ledgerentry")
    assert not link(support), "only who may top up"
    target = link(staff)
    form = staff.get(target).content.decode()
    assert 'value="0.001856"' in form and f'value="Refund of {usage.request_id}"' in form
    assert not LedgerEntry.objects.filter(user=people.owner).exists(), "nothing moves before it is sent"
    assert signed_in(people.owner).get(target).status_code in {302, 403}
    answer = staff.post(target.partition("?")[0], {"amount": "0.001", "reason": f"Refund of {usage.request_id}"})
    assert answer.status_code == 302 and "amount=0.000856&" in link(staff), "what is left of it"
    movements.top_up(people.owner, 856_000, actor=None, reason=f"Rest of {usage.request_id}")
    assert not link(staff)
    for client in (staff, support):
        page = html.unescape(client.get(url).content.decode())
        assert f"Refund of {usage.request_id}" in page and money.exact(NANO // 1000) in page
    assert (
        f"Refund of {usage.request_id}" in signed_in(people.owner).get(f"/usage/{usage.request_id}/").content.decode()
    )
    house = record(people.owner, payer="house", cost=5)
    page = staff.get(f"/admin/relay/usagerecord/{house.pk}/change/").content.decode()
    assert "Give back" not in page, "the portal paid"


def test_the_days_of_another_zone_are_named(staff: Client, people: People) -> None:
    assert "portal's time zone" not in text_of(staff, days="7")
    User.objects.filter(pk=people.staff.pk).update(time_zone="Asia/Shanghai")
    assert "Days in the portal's time zone, UTC." in text_of(staff, days="7")
    assert clock.now()
