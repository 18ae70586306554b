"""Wallets in the admin: top-ups, deductions, unlimited users, and the rights they need."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib import clock
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import BooksProof, LedgerEntry
from relay.tokens.lifecycle import create_token
from tests.support.money import wallet
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

pytestmark = pytest.mark.shared


def test_top_up_and_deduct_ask_for_a_reason_and_are_audited(staff: Client, people: People) -> None:
    url = f"/admin/accounts/user/{people.owner.pk}"
    assert "Add to the balance of alice" in staff.get(f"{url}/top-up/").content.decode()
    assert not LedgerEntry.objects.filter(user=people.owner).exists(), "asking changes nothing"
    assert staff.post(f"{url}/top-up/", {"amount": "12.50"}).status_code == 422, "a reason is needed"
    assert staff.post(f"{url}/top-up/", {"amount": "12.50", "reason": "Invoice 7"}).status_code == 302
    assert wallet(people.owner).granted == 12_500_000_000
    assert "$12.50" in staff.get("/admin/accounts/user/").content.decode()
    refused = staff.post(f"{url}/deduct/", {"amount": "13", "reason": "refund"})
    assert refused.status_code == 422 and "Only $12.50 can be taken" in refused.content.decode()
    assert staff.post(f"{url}/deduct/", {"amount": "2.50", "reason": "refund"}).status_code == 302
    assert wallet(people.owner).granted == 10 * NANO
    for nonsense in ("-5", "0", "1e40", "NaN", "many"):
        assert staff.post(f"{url}/top-up/", {"amount": nonsense, "reason": "x"}).status_code == 422, nonsense
    entries = LedgerEntry.objects.filter(user=people.owner).order_by("pk")
    assert [(entry.kind, entry.reason, entry.actor) for entry in entries] == [
        ("top_up", "Invoice 7", people.staff),
        ("deduct", "refund", people.staff),
    ]
    assert set(AuditEvent.objects.filter(action__startswith="wallet.").values_list("action", flat=True)) == {
        "wallet.top-up",
        "wallet.deduct",
    }


def test_money_is_moved_by_those_alone_who_see_its_user(people: People) -> None:
    """Otherwise the answer to what was booked is that one may not see this page."""
    url = f"/admin/accounts/user/{people.owner.pk}/top-up/"
    form = {"amount": "1", "reason": "gift"}
    assert clerk("add_ledgerentry").post(url, form).status_code == 403 and wallet(people.owner).granted == 0
    User.objects.get(username="clerk").user_permissions.add(Permission.objects.get(codename="view_user"))
    other = signed_in(User.objects.get(username="clerk"))
    assert other.post(url, form, follow=True).status_code == 200 and wallet(people.owner).granted == NANO


def test_the_balance_as_it_is_shown_can_be_taken(staff: Client, people: People) -> None:
    movements.top_up(people.owner, 15_486_280_001, actor=None, reason="test")
    url = f"/admin/accounts/user/{people.owner.pk}"
    for page in (f"{url}/change/", "/admin/accounts/user/"):
        text = staff.get(page).content.decode()
        assert "$15.48" in text and "$15.49" not in text, "rounded down, as its user sees it"
    assert "The balance is $15.486280001" in staff.get(f"{url}/deduct/").content.decode()
    refused = staff.post(f"{url}/deduct/", {"amount": "15.49", "reason": "closed"})
    assert refused.status_code == 422 and "Only $15.486280001 can be taken" in refused.content.decode()
    assert staff.post(f"{url}/deduct/", {"amount": "15.486280001", "reason": "closed"}).status_code == 302
    assert wallet(people.owner).balance == 0


def test_unlimited_is_switched_after_being_asked(staff: Client, people: People) -> None:
    url = f"/admin/accounts/user/{people.owner.pk}/unlimited/"
    staff.get(url)
    assert wallet(people.owner).limited
    staff.post(url)
    assert not wallet(people.owner).limited


def test_money_needs_its_own_right(people: People) -> None:
    client = clerk("view_user", "change_user")
    url = f"/admin/accounts/user/{people.owner.pk}"
    assert client.get(f"{url}/change/").status_code == 200
    for path in ("top-up", "deduct", "unlimited"):
        assert client.post(f"{url}/{path}/", {"amount": "5", "reason": "for me"}).status_code == 403
    assert wallet(people.owner).granted == 0
    for path in (
        "relay/ledgerentry/",
        "relay/ledgeraccount/",
        "relay/ledgeraccount/verify/",
        "relay/redemptionbatch/",
        "relay/usagerecord/report/",
        "relay/usagerecord/export/",
    ):
        assert client.get(f"/admin/{path}").status_code == 403, path
    before = BooksProof.objects.count()
    assert client.post(BOOKS).status_code == 403 and BooksProof.objects.count() == before, (
        "no process is started for them"
    )


BOOKS = "/admin/relay/ledgeraccount/verify/"


def test_a_page_that_shows_an_old_balance_asks_again(staff: Client, people: People) -> None:
    url = f"/admin/accounts/user/{people.owner.pk}"

    def seen(path: str) -> str:
        found = re.search(r'name="seen" value="(\d+)"', staff.get(f"{url}/{path}/").content.decode())
        assert found
        return found[1]

    for path, tabs in (("top-up", [seen("top-up")] * 2), ("deduct", [])):
        tabs = tabs or [seen(path)] * 2
        form = {"amount": "3", "reason": "Invoice 7"}
        if path == "deduct":
            movements.top_up(people.owner, 10 * NANO, actor=None, reason="x")
            tabs = [seen(path)] * 2
        before = wallet(people.owner).granted
        assert staff.post(f"{url}/{path}/", {**form, "seen": tabs[0]}).status_code == 302
        once = wallet(people.owner).granted
        asked = staff.post(f"{url}/{path}/", {**form, "seen": tabs[1]})
        text = html.unescape(asked.content.decode())
        assert asked.status_code == 422 and "The balance has changed since you opened this page" in text
        assert "$3.00 by" in text and "Invoice 7" in text
        assert wallet(people.owner).granted == once != before
        now = re.search(r'name="seen" value="(\d+)"', text)
        assert now and now[1] != tabs[1]
        assert staff.post(f"{url}/{path}/", {**form, "seen": now[1]}).status_code == 302, "meant twice: booked twice"
        assert wallet(people.owner).granted == once + (once - before)


def test_what_requests_cost_meanwhile_keeps_nobody_from_a_top_up(staff: Client, people: People) -> None:
    url = f"/admin/accounts/user/{people.owner.pk}/top-up/"
    movements.top_up(people.owner, NANO, actor=None, reason="x")
    newest = LedgerEntry.objects.order_by("-pk")[0].pk
    token = create_token(people.owner, "t", actor=None)[0]
    LedgerEntry.objects.create(
        at=clock.now(), kind="usage", debit="wallet", credit="revenue", amount=5, user=people.owner, token=token, day=1
    )
    assert staff.post(url, {"amount": "1", "reason": "r", "seen": newest}).status_code == 302


def test_two_pages_that_lift_a_limit_do_not_set_it_again(staff: Client, people: People) -> None:
    url = f"/admin/accounts/user/{people.owner.pk}/unlimited/"
    assert 'name="wanted" value="unlimited"' in staff.get(url).content.decode()
    for _ in range(2):
        staff.post(url, {"wanted": "unlimited"})
    assert not wallet(people.owner).limited
    assert 'name="wanted" value="limited"' in staff.get(url).content.decode()
