"""The pages of upstreams' bills and of billing keys: who sees them, what they show, what they keep to themselves."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib import clock
from portal.lib.money import NANO
from relay.models import BillingKey, Channel, UpstreamBill
from tests.support.asserts import csv_rows
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared
SECRET = "sk-admin-0123456789abcdefghij"


@pytest.fixture
def bill(people: People) -> UpstreamBill:
    channel = Channel.objects.create(name="=Mine", provider="openai")
    values = {"begins_at": clock.now(), "ends_at": clock.now(), "compared_at": clock.now(), "complete": True}
    found: UpstreamBill = UpstreamBill.objects.create(
        channel=channel,
        source="report",
        day=date(2026, 11, 19),
        reported=1234 * NANO,
        recorded=1000 * NANO,
        drifts=True,
        **values,
    )
    return found


def staff(*rights: str, roles: tuple[str, ...] = ()) -> Client:
    user = User.objects.create_user(f"staff-{User.objects.count()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    user.groups.set(Group.objects.filter(name__in=roles))
    return signed_in(user)


def added(browser: Client, channel: Channel, **values: Any) -> Any:
    return browser.post(
        "/admin/relay/billingkey/add/", {"channel": channel.pk, "secret": SECRET, "scope": "", **values}
    )


def test_accountants_see_bills_and_others_do_not(people: People, bill: UpstreamBill) -> None:
    paths = ["/admin/relay/upstreambill/", f"/admin/relay/upstreambill/{bill.pk}/change/", "/admin/relay/billingkey/"]
    for browser, status in (
        (staff(roles=("Accountant",)), 200),
        (signed_in(people.staff), 200),
        (staff(roles=("Operator",)), 403),
        (staff("view_upstreambill", "view_billingkey"), 403),  # without the right to see what upstreams cost
        (staff("view_earnings"), 403),
        (signed_in(people.owner), 302),
        (signed_in(people.other), 302),
    ):
        assert [browser.get(path).status_code for path in paths] == [status] * 3
    text = signed_in(people.staff).get(paths[0]).content.decode()
    assert "$1,234.00" in text and "+$234.00 (+23.4\u00a0%)" in text and "differs" in text


def test_states_of_days(people: People, bill: UpstreamBill) -> None:
    browser = signed_in(people.staff)
    for values, word in (
        ({"drifts": False}, "agrees"),
        ({"complete": False}, "so far"),
        ({"reported": None}, "unknown: money was added"),
        ({"currency": "CNY", "reported": 5 * NANO}, "5 CNY"),
        ({"recorded": 0, "reported": 0}, "$0.00"),
    ):
        UpstreamBill.objects.filter(pk=bill.pk).update(**values)
        assert word in browser.get("/admin/relay/upstreambill/").content.decode()
        assert "(&#x27;" not in browser.get(f"/admin/relay/upstreambill/{bill.pk}/change/").content.decode()


def test_an_export_has_no_formula_and_needs_the_right(people: People, bill: UpstreamBill) -> None:
    form = {"action": "export", "_selected_action": [bill.pk]}
    found = signed_in(people.staff).post("/admin/relay/upstreambill/", form)
    assert found["content-type"].startswith("text/csv") and [list(row.values()) for row in csv_rows(found)] == [
        ["2026-11-19", "'=Mine", "report", "1234", "USD", "1000", "0", "0", "True"]
    ]
    assert staff("view_upstreambill").post("/admin/relay/upstreambill/", form).status_code == 403


def test_an_export_has_all_days_however_many(
    people: People, bill: UpstreamBill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admin.money.bills._CHUNK", 3)
    days = [date(2026, 10, number) for number in range(1, 12) for _ in range(2)]
    others = [Channel.objects.create(name=f"Other {number}", provider="openai") for number in range(2)]
    for number, day in enumerate(days):
        UpstreamBill.objects.create(
            channel=others[number % 2], source="report", day=day, recorded=number, begins_at=bill.begins_at,
            ends_at=bill.ends_at, compared_at=bill.compared_at,
        )  # fmt: skip
    form = {"action": "export", "_selected_action": [bill.pk], "select_across": "1"}
    rows = csv_rows(signed_in(people.staff).post("/admin/relay/upstreambill/", form))
    told = [(row["day"], row["channel"]) for row in rows]
    assert len(told) == len(set(told)) == len(days) + 1 and told == sorted(told, reverse=True)


def test_a_channel_is_on_one_bill_alone(people: People) -> None:
    browser = signed_in(people.staff)
    one, two, both = (Channel.objects.create(name=name, provider="openai") for name in ("One", "Two", "Both"))
    assert added(browser, one, also=[both.pk]).status_code == 302
    words = "“Both” is on the bill of the billing key of “One” already"
    assert words in added(browser, two, also=[both.pk]).content.decode()
    assert words in added(browser, both).content.decode()
    assert "“One” is on the bill of" in added(browser, two, also=[one.pk]).content.decode()
    assert added(browser, two).status_code == 302
    row = BillingKey.objects.get(channel=one)
    page = f"/admin/relay/billingkey/{row.pk}/change/"
    form = {"channel": one.pk, "secret": "", "scope": "", "also": [both.pk]}
    assert browser.post(page, form).status_code == 302, "its own"
    assert "“Two” is on the bill of" in browser.post(page, {**form, "also": [both.pk, two.pk]}).content.decode()


def test_a_billing_key_is_stored_encrypted_and_never_shown(people: People) -> None:
    browser = signed_in(people.staff)
    channel = Channel.objects.create(name="Official", provider="openai")
    assert added(browser, channel, scope="proj_1").status_code == 302
    row = BillingKey.objects.get()
    assert row.secret_for(channel) == SECRET and SECRET not in row.sealed and row.scope == "proj_1"
    page = f"/admin/relay/billingkey/{row.pk}/change/"
    for path in ("/admin/relay/billingkey/", page, f"/admin/relay/billingkey/{row.pk}/history/"):
        assert SECRET not in browser.get(path).content.decode()
    assert browser.post(page, {"channel": channel.pk, "secret": "", "scope": "proj_2"}).status_code == 302
    row.refresh_from_db()
    assert row.secret_for(channel) == SECRET and row.scope == "proj_2", "an empty field keeps the key"
    assert SECRET not in str(list(AuditEvent.objects.values_list("detail", flat=True)))


def test_a_billing_key_needs_a_secret_and_a_vendor_with_reports(people: People) -> None:
    browser = signed_in(people.staff)
    official = Channel.objects.create(name="Official", provider="openai")
    relay = Channel.objects.create(name="A relay", provider="relay", base_url="https://relay.example.org/v1")
    assert "Enter the key." in added(browser, official, secret="").content.decode()
    assert "balances are compared without a key" in added(browser, relay).content.decode()
    assert added(browser, official, secret="two words").status_code == 200 and not BillingKey.objects.exists()


def test_a_key_does_not_follow_to_another_channel(people: People) -> None:
    browser = signed_in(people.staff)
    one = Channel.objects.create(name="One", provider="openai")
    two = Channel.objects.create(name="Two", provider="openai", base_url="https://elsewhere.example.org/v1")
    added(browser, one)
    row = BillingKey.objects.get()
    page = f"/admin/relay/billingkey/{row.pk}/change/"
    found = browser.post(page, {"channel": two.pk, "secret": "", "scope": ""})
    assert "Enter the key again" in found.content.decode()
    row.refresh_from_db()
    assert row.channel_id == one.pk


def test_only_those_who_may_change_a_key_ask_with_it(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.channels.bills import reports

    asked: list[int] = []

    def compare(row: BillingKey) -> str:
        asked.append(row.pk)
        return "3 day(s) compared"

    monkeypatch.setattr(reports, "compare", compare)
    channel = Channel.objects.create(name="Official", provider="openai")
    added(signed_in(people.staff), channel)
    row = BillingKey.objects.get()
    url = f"/admin/relay/billingkey/{row.pk}/ask/"
    reader = staff("view_billingkey", "view_earnings", "change_channel")
    assert reader.post(url).status_code == 403
    boss = signed_in(people.staff)
    remover = staff("view_billingkey", "delete_billingkey")
    assert remover.post(f"/admin/relay/billingkey/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert boss.get(url).status_code == 200 and asked == []
    assert boss.post(url).status_code == 302 and asked == [row.pk]
