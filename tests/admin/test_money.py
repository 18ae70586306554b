"""Money in the admin and on the pages of users: owner, other user, staff."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib import clock
from portal.lib.money import NANO
from relay.billing.ledger import movements, proofs
from relay.billing.redemption import create_codes
from relay.models import BooksProof, Budget, Channel, ChannelModel, LedgerAccount, LedgerEntry, Model, ModelPrice, RedemptionBatch, Token, UsageRecord
from relay.tokens.lifecycle import create_token
from tests.admin.test_channels import NO_BUDGETS
from tests.conftest import People, Portal
from tests.gateway.snapshot.test_change_feed import csrf_of, sign_in
from tests.support.server import Server


@pytest.fixture
def staff(people: People) -> Client:
    return signed_in(people.staff)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def clerk(*permissions: str) -> Client:
    """A member of staff with these rights and no others."""
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return signed_in(user)


def wallet(user: User) -> LedgerAccount:
    return LedgerAccount.objects.get(user=user, kind="wallet")


def record(user: User, **values: Any) -> UsageRecord:
    return UsageRecord.objects.create(**{
        "request_id": f"req_{UsageRecord.objects.count():032x}", "started_at": clock.now(), "user": user, "model": "gpt", "endpoint": "chat.completions", "streamed": False,
        "status": 200, "end_reason": "completed", "usage_source": "reported", "latency_ms": 5, "input_tokens": 10, "output_tokens": 5, "cost": 2_000_000,
        "upstream_cost": 500_000, "payer": "wallet", "billing": "usage", **values,
    })  # fmt: skip


# -- wallets -----------------------------------------------------------------------------------------------------------


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
    assert [(entry.kind, entry.reason, entry.actor) for entry in entries] == [("top_up", "Invoice 7", people.staff), ("deduct", "refund", people.staff)]
    assert set(AuditEvent.objects.filter(action__startswith="wallet.").values_list("action", flat=True)) == {"wallet.top-up", "wallet.deduct"}


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
    for path in ("relay/ledgerentry/", "relay/ledgeraccount/", "relay/ledgeraccount/verify/", "relay/redemptionbatch/", "relay/usagerecord/report/", "relay/usagerecord/export/"):
        assert client.get(f"/admin/{path}").status_code == 403, path
    before = BooksProof.objects.count()
    assert client.post(BOOKS).status_code == 403 and BooksProof.objects.count() == before, "no process is started for them"


@pytest.mark.parametrize("path", ["relay/ledgerentry", "relay/ledgeraccount", "relay/notice"])
def test_the_ledger_is_read_only_in_the_admin(staff: Client, people: People, path: str) -> None:
    movements.top_up(people.owner, NANO, actor=None, reason="x")
    assert staff.get(f"/admin/{path}/").status_code == 200
    assert staff.get(f"/admin/{path}/add/").status_code == 403
    row = LedgerEntry.objects.first() if path.endswith("entry") else LedgerAccount.objects.first()
    if path != "relay/notice" and row is not None:
        assert staff.get(f"/admin/{path}/{row.pk}/change/").status_code == 200
        assert staff.post(f"/admin/{path}/{row.pk}/change/", {"amount": 5, "granted": 5}).status_code == 403
        assert staff.post(f"/admin/{path}/{row.pk}/delete/", {"post": "yes"}).status_code == 403
        staff.post(f"/admin/{path}/", {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"})
    assert wallet(people.owner).granted == NANO and LedgerEntry.objects.count() == 1


def test_a_list_that_is_not_counted_says_where_it_ends(staff: Client, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from accounts.admin.base import UncountedPaginator

    for reason in ("first", "second", "third"):
        movements.top_up(people.owner, NANO, actor=people.staff, reason=reason)
    page = staff.get("/admin/relay/ledgerentry/").content.decode()
    assert "3 ledger entries" in page and "3 results" not in page and "of more" not in page
    assert "3 results" in staff.get("/admin/relay/ledgerentry/?kind__exact=top_up").content.decode()
    monkeypatch.setattr(UncountedPaginator, "LIMIT", 3)
    assert "of more" not in staff.get("/admin/relay/ledgerentry/").content.decode(), "it ends there by itself"
    monkeypatch.setattr(UncountedPaginator, "LIMIT", 2)
    page = staff.get("/admin/relay/ledgerentry/").content.decode()
    assert "The first 2 of more: search or filter for the others." in page and "2 results" not in page


BOOKS = "/admin/relay/ledgeraccount/verify/"


def test_the_page_of_the_books_shows_the_last_proof(staff: Client, people: People) -> None:
    BooksProof.objects.all().delete()
    movements.top_up(people.owner, NANO, actor=None, reason="x")
    assert "No proof has been made yet." in staff.get(BOOKS).content.decode()
    proofs.prove(proofs.begin(people.staff)[0])
    page = staff.get(BOOKS).content.decode()
    assert "The books balance" in page and "-$1.00" in page and people.staff.username in page
    with connection.cursor() as cursor:
        cursor.execute("UPDATE relay_ledgeraccount SET granted = granted + 5 WHERE kind = 'wallet' AND granted > 0")
    proofs.prove(proofs.begin()[0])
    page = staff.get(BOOKS).content.decode()
    assert "The books do not balance" in page and f"wallet:{people.owner.pk}" in page
    assert "The books do not balance" in staff.get("/admin/").content.decode(), "the front page leads there"


def test_proofs_that_are_running_broken_off_or_failed_say_so(staff: Client, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    BooksProof.objects.all().delete()
    first, new = proofs.begin(people.staff)
    assert new and proofs.begin(people.staff) == (first, False), "one at a time"
    page = staff.get(BOOKS).content.decode()
    assert "A proof is being made" in page and "Prove the books now" not in page
    assert staff.get(f"{BOOKS}?now=1").json() == {"running": True}
    BooksProof.objects.update(seen_at=clock.now() - timedelta(minutes=1))
    assert staff.get(f"{BOOKS}?now=1").json() == {"running": False}
    page = staff.get(BOOKS).content.decode()
    assert "broken off" in page and "Prove the books now" in page
    assert "The last proof of the books could not be made" in staff.get("/admin/").content.decode()
    second, new = proofs.begin(people.staff)
    assert new and second.pk != first.pk
    monkeypatch.setattr(proofs, "verify", lambda progress: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        proofs.prove(second)
    assert second.state == "failed" and "ZeroDivisionError" in staff.get(BOOKS).content.decode()
    assert "ZeroDivisionError" in staff.get("/admin/").content.decode()
    for _ in range(70):
        BooksProof.objects.create(finished_at=clock.now())
    proofs.begin()
    assert BooksProof.objects.count() == 60, "old ones go"


def test_proofs_are_due_once_a_day(people: People, settings: Any) -> None:
    BooksProof.objects.all().delete()
    movements.top_up(people.owner, NANO, actor=None, reason="x")
    for hours, is_due in ((23, False), (25, True)):
        with connection.cursor() as cursor:  # the model refuses
            cursor.execute("UPDATE relay_ledgerentry SET at = %s", [clock.now() - timedelta(hours=hours)])
        assert proofs.due() is is_due
    proof = proofs.begin()[0]
    assert not proofs.due()
    BooksProof.objects.filter(pk=proof.pk).update(began_at=clock.now() - timedelta(hours=25))
    assert proofs.due()
    for ago, is_due in ((50, False), (70, True)):  # its process is gone
        BooksProof.objects.filter(pk=proof.pk).update(began_at=clock.now() - timedelta(minutes=ago), seen_at=clock.now() - timedelta(minutes=ago))
        assert proofs.due() is is_due
    settings.CONFIG = settings.CONFIG.model_copy(update={"prove_hours": 0})
    assert not proofs.due()


def test_a_process_that_cannot_be_started_is_told_of(staff: Client, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    BooksProof.objects.all().delete()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert staff.post(BOOKS).status_code == 302
    page = staff.get(BOOKS).content.decode()
    assert "could not be read" in page and "FileNotFoundError" in page and "Prove the books now" in page


def test_a_process_of_its_own_makes_the_proof(live: Portal, server: Server) -> None:
    """Asked for on the page; the command refuses a number that waits for nothing."""
    BooksProof.objects.all().delete()
    boss = live.user(is_staff=True, is_superuser=True)
    with httpx.Client(trust_env=False, timeout=20) as client:
        sign_in(client, server, boss.username)
        address = f"{server.url}{BOOKS}"
        page = client.post(address, data={"csrfmiddlewaretoken": csrf_of(client, address)}, headers={"referer": address})
        assert page.status_code == 302
        _wait(lambda: BooksProof.objects.filter(finished_at__isnull=False).exists())
        proof = BooksProof.objects.get()
        assert proof.state == "clean" and proof.actor == boss and proof.accounts, proof.differences
        assert "The books balance" in client.get(address).text
    done = subprocess.run([sys.executable, "manage.py", "ledger", "prove", str(proof.pk)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "No proof" in done.stderr and "Traceback" not in done.stderr


def _wait(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_quota_limits_and_budgets_of_a_token(staff: Client, people: People) -> None:
    budgets = {"budgets-TOTAL_FORMS": 1, "budgets-INITIAL_FORMS": 0, "budgets-0-period": "week", "budgets-0-limit": "3"}
    form = {"user": people.owner.pk, "name": "gift", "enabled": "on", "allowed_ips": "", "notes": "", "quota": "2.5", "max_rpm": "10", **budgets}
    assert staff.post("/admin/relay/token/add/", form).status_code == 200
    token = Token.objects.get(name="gift")
    assert token.max_rpm == 10
    kinds = {(account.kind, account.period): account.granted for account in LedgerAccount.objects.filter(token=token)}
    assert kinds == {("quota", ""): 2_500_000_000, ("budget", "week"): 3 * NANO}
    page = staff.get(f"/admin/relay/token/{token.pk}/change/").content.decode()
    assert 'value="2.5"' in page
    assert staff.post(f"/admin/relay/token/{token.pk}/change/", {**form, "quota": "", **NO_BUDGETS}).status_code == 302
    assert not LedgerAccount.objects.get(token=token, kind="quota").limited
    assert AuditEvent.objects.filter(action="token.quota").count() == 2


# -- prices ------------------------------------------------------------------------------------------------------------


def test_prices_in_force_cannot_be_changed_but_followed(staff: Client) -> None:
    model = Model.objects.create(name="priced")
    row = ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
    assert staff.post(f"/admin/relay/modelprice/{row.pk}/change/", {"input": 1}).status_code == 403
    assert staff.post(f"/admin/relay/modelprice/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post("/admin/relay/modelprice/", {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"})
    assert ModelPrice.objects.filter(pk=row.pk).exists()
    follow = staff.get(f"/admin/relay/modelprice/{row.pk}/new-version/", follow=True).content.decode()
    assert 'value="2.5"' in follow
    form = {"model": model.pk, "purpose": "sale", "channel": "", "valid_from_0": "2099-01-01", "valid_from_1": "00:00", "above_tokens": 0, "input": 3, "output": 12, "source": ""}
    assert staff.post("/admin/relay/modelprice/add/", form).status_code == 302
    later = ModelPrice.objects.get(model=model, input=3)
    assert staff.post(f"/admin/relay/modelprice/{later.pk}/change/", {**form, "input": 4}).status_code == 302
    page = staff.get("/admin/relay/modelprice/?q=priced").content.decode()
    assert "in force" in page and "to come" in page
    wrong = staff.post("/admin/relay/modelprice/add/", {**form, "input": -1})
    assert wrong.status_code == 200 and "greater than or equal to 0" in wrong.content.decode()
    assert staff.post("/admin/relay/modelprice/add/", {**form, "above_tokens": 5, "valid_from_0": "2099-02-01"}).status_code == 200, "a tier needs its base"


def test_list_prices_are_taken_after_being_shown(staff: Client) -> None:
    models = [Model.objects.create(name=name) for name in ("gpt-4o", "gpt-5-mini", "unknown-model")]
    chosen = {"action": "take_list_prices", "_selected_action": [model.pk for model in models]}
    page = staff.post("/admin/relay/model/", chosen).content.decode()
    assert "input: — → $2.5" in page and "unknown-model" in page and not ModelPrice.objects.filter(model__in=models).exists()
    staff.post("/admin/relay/model/", {**chosen, "confirmed": "1", "model": [models[0].pk]})
    assert list(ModelPrice.objects.filter(model__in=models).values_list("model__name", flat=True)) == ["gpt-4o"]
    assert "$2.50 / $10.00" in staff.get("/admin/relay/model/").content.decode()


def test_models_added_to_a_channel_are_priced_where_the_price_is_known(staff: Client) -> None:
    from relay.channels.models import add_models

    channel = Channel.objects.create(name="OpenAI", provider="openai")
    add_models(channel, [("gpt-4o", ""), ("strange", "")])
    assert ModelPrice.objects.get(model__name="gpt-4o").input == Decimal("2.5")
    assert not ModelPrice.objects.filter(model__name="strange").exists()
    assert "no price, so nobody can use it" in staff.get("/admin/").content.decode()


# -- codes -------------------------------------------------------------------------------------------------------------


def test_codes_are_made_shown_and_exported_by_those_who_may(staff: Client, people: People) -> None:
    response = staff.post("/admin/relay/redemptionbatch/add/", {"name": "Spring", "usd": "5", "count": "3"}, follow=True)
    batch = RedemptionBatch.objects.get(name="Spring")
    assert (batch.amount, batch.count, batch.created_by) == (5 * NANO, 3, people.staff)
    shown = response.content.decode()
    codes = shown.split('id="codes"', 1)[1].split(">", 1)[1].split("</pre>", 1)[0].split()
    assert len(codes) == 3 and len(codes[0]) == 23 and "no-store" in response["cache-control"]
    rows = list(csv.DictReader(io.StringIO(staff.get(f"/admin/relay/redemptionbatch/{batch.pk}/export/").content.decode())))
    assert [row["code"] for row in rows] == codes and {row["state"] for row in rows} == {"open"} and {row["usd"] for row in rows} == {"5"}
    assert codes[0] not in staff.get(f"/admin/relay/redemptionbatch/{batch.pk}/change/").content.decode()
    staff.post(f"/admin/relay/redemptionbatch/{batch.pk}/disable/")
    assert not batch.codes.filter(enabled=True).exists()
    reader = clerk("view_redemptionbatch")
    assert reader.get("/admin/relay/redemptionbatch/").status_code == 200
    for path in ("codes", "export"):
        assert reader.get(f"/admin/relay/redemptionbatch/{batch.pk}/{path}/").status_code == 403
    for wrong in ({"count": "0"}, {"count": "999999"}, {"usd": "-1"}, {"usd": "0"}):
        assert staff.post("/admin/relay/redemptionbatch/add/", {"name": "x", "usd": "5", "count": "3", **wrong}).status_code == 200, wrong
    assert RedemptionBatch.objects.count() == 1


# -- usage -------------------------------------------------------------------------------------------------------------


def test_receipt_report_and_margin_for_staff(staff: Client, people: People) -> None:
    channel = Channel.objects.create(name="Main", provider="openai")
    found = record(people.owner, channel=channel, attempt_log=[{"channel": channel.pk, "key": 1, "ms": 5, "outcome": "ok"}])
    page = staff.get(f"/admin/relay/usagerecord/{found.pk}/change/").content.decode()
    assert "$0.002" in page and "$0.0005" in page and "$0.0015" in page and "the usage that the upstream reported" in page
    assert "$0.0015" in staff.get("/admin/relay/usagerecord/").content.decode()
    for by in ("day", "model", "token", "channel", "user", "nonsense"):
        assert "$0.0015" in staff.get(f"/admin/relay/usagerecord/report/?by={by}").content.decode(), by
    assert "No requests" in staff.get(f"/admin/relay/usagerecord/report/?by=model&user={people.other.pk}").content.decode()
    assert staff.get("/admin/relay/usagerecord/report/?days=99999999999&user=x&channel=99999999999999999999").status_code == 200


def session_of(user: User) -> dict[str, str]:
    """Cookies of somebody who is signed in at the server."""
    client = signed_in(user)
    return {"sessionid": client.cookies["sessionid"].value}


def test_csv_is_streamed_to_staff_with_margin(live: Portal, server: Server) -> None:
    owner, boss = live.user(), live.user(is_staff=True, is_superuser=True)
    token = create_token(owner, "=cmd()", actor=None)[0]
    now = clock.now()
    values = {"started_at": now, "user": owner, "token": token, "model": "gpt", "endpoint": "chat.completions", "streamed": False, "status": 200, "end_reason": "completed"}
    UsageRecord.objects.bulk_create(
        UsageRecord(**values, request_id=f"req_csv_{number}", usage_source="reported", latency_ms=5, upstream_cost=500_000, billing="usage") for number in range(2500)
    )
    with httpx.stream("GET", f"{server.url}/admin/relay/usagerecord/export/?days=1&user={owner.pk}", cookies=session_of(boss), trust_env=False, timeout=30) as response:
        assert response.status_code == 200 and "content-length" not in response.headers
        text = b"".join(response.iter_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2500 and {row["margin_usd"] for row in rows} == {"-0.0005"} and {row["user"] for row in rows} == {owner.username}
    assert {row["token"] for row in rows} == {"'=cmd()"}, "no spreadsheet takes a name for a formula"
    refused = httpx.get(f"{server.url}/admin/relay/usagerecord/export/", cookies=session_of(owner), trust_env=False, follow_redirects=False)
    assert refused.status_code in {302, 403}


def test_csv_of_users_has_their_own_rows_and_no_upstream(live: Portal, server: Server) -> None:
    owner, other = live.user(), live.user()
    record(owner, request_id=live.name("req_mine"), cost=0, upstream_cost=0)
    record(other, request_id=live.name("req_theirs"), model="secret-model", cost=0, upstream_cost=0)
    text = httpx.get(f"{server.url}/usage/export.csv", cookies=session_of(owner), trust_env=False).text
    assert "req_mine" in text and "secret-model" not in text and "upstream" not in text and "margin" not in text
    assert httpx.get(f"{server.url}/usage/export.csv", trust_env=False).status_code == 302


# -- the pages of users ------------------------------------------------------------------------------------------------


def test_receipts_of_users_are_their_own(people: People) -> None:
    found = record(people.owner, upstream_model="vendor-internal-name", attempt_log=[{"channel": 1, "key": 7, "ms": 5, "outcome": "ok", "detail": "secret-detail"}])
    path = f"/usage/{found.request_id}/"
    page = signed_in(people.owner).get(path).content.decode()
    assert "$0.002" in page and "vendor-internal-name" not in page and "secret-detail" not in page and "margin" not in page.lower()
    assert signed_in(people.other).get(path).status_code == 404
    assert signed_in(people.staff).get(path).status_code == 404, "staff read receipts in the admin"
    assert Client().get(path).status_code == 302


def test_balance_page_and_redeeming(people: People) -> None:
    client = signed_in(people.owner)
    assert "$0.00" in client.get("/balance/").content.decode()
    _, codes = create_codes("Gift", 5 * NANO, 1, actor=None)
    assert "not a code" in client.post("/balance/", {"code": "AAAAA-BBBBB"}).content.decode()
    assert client.post("/balance/", {"code": f" {codes[0].lower()} "}).status_code == 302
    page = client.get("/balance/").content.decode()
    assert "$5.00" in page and "code redeemed" in page
    assert "redeemed already" in signed_in(people.other).post("/balance/", {"code": codes[0]}).content.decode()
    assert "$5.00" not in signed_in(people.other).get("/balance/").content.decode()
    assert AuditEvent.objects.filter(action="code.redeem", actor=people.owner).count() == 1


def test_guessing_codes_is_slowed_down(people: People) -> None:
    from django.core.cache import cache

    cache.clear()
    client = signed_in(people.owner)
    statuses = [client.post("/balance/", {"code": f"WRONG-{number}"}).status_code for number in range(14)]
    assert statuses[0] == 422 and statuses[-1] == 429
    cache.clear()


def test_owners_set_quota_and_budgets_of_their_tokens(people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    path = f"/tokens/{token.pk}/limits/"
    form = {"quota": "2.5", "day": "1", "week": "", "month": "20"}
    assert signed_in(people.other).post(path, form).status_code == 404
    assert signed_in(people.staff).post(path, form).status_code == 404
    client = signed_in(people.owner)
    assert client.post(path, form).status_code == 302
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == 2_500_000_000
    assert set(Budget.objects.filter(token=token).values_list("period", flat=True)) == {"day", "month"}
    page = client.get(f"/tokens/{token.pk}/").content.decode()
    assert 'value="2.5"' in page and 'value="20"' in page
    assert client.post(path, {"quota": "", "day": "", "week": "", "month": ""}).status_code == 302
    assert not Budget.objects.filter(token=token).exists() and not LedgerAccount.objects.get(token=token, kind="quota").limited
    assert client.post(path, {"quota": "-1"}).status_code == 422
    assert client.post(path, {"quota": "much"}).status_code == 422


def test_usage_page_shows_cost_by_model_and_token(people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    record(people.owner, token=token)
    record(people.other, cost=7_000_000, request_id="req_other", model="others")
    page = signed_in(people.owner).get("/usage/").content.decode()
    assert "$0.002" in page and "laptop" in page and "others" not in page and "$0.007" not in page


def test_models_show_their_price(people: People) -> None:
    model = Model.objects.create(name="priced-model", is_open=True)
    ChannelModel.objects.create(model=model, channel=Channel.objects.create(name="c", provider="openai"))
    ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
    assert "$2.50" in signed_in(people.owner).get("/catalog/").content.decode()
