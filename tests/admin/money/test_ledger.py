"""The ledger and its proofs in the admin."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client

from portal.lib import clock
from portal.lib.money import NANO
from relay.billing.ledger import movements, proofs
from relay.models import BooksProof, LedgerAccount, LedgerEntry
from tests.support.money import wallet
from tests.support.portal import People

pytestmark = pytest.mark.shared


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


def test_a_list_that_is_not_counted_says_where_it_ends(
    staff: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accounts.admin.base import UncountedPaginator

    assert LedgerAccount.objects.count() == 3
    url = "/admin/relay/ledgeraccount/"
    page = staff.get(url).content.decode()
    assert "3 accounts" in page and "3 results" not in page and "of more" not in page
    assert "3 results" in staff.get(f"{url}?kind__exact=wallet").content.decode()
    monkeypatch.setattr(UncountedPaginator, "LIMIT", 3)
    assert "of more" not in staff.get(url).content.decode(), "it ends there by itself"
    monkeypatch.setattr(UncountedPaginator, "LIMIT", 2)
    page = staff.get(url).content.decode()
    assert "The first 2 of more: search or filter for the others." in page and "2 results" not in page


BOOKS = "/admin/relay/ledgeraccount/verify/"


def test_the_page_of_the_books_shows_the_last_proof(staff: Client, people: People) -> None:
    BooksProof.objects.all().delete()
    movements.top_up(people.owner, NANO, actor=None, reason="x")
    assert "No proof has been made yet." in staff.get(BOOKS).content.decode()
    proofs.prove(proofs.begin_proof(people.staff)[0])
    page = staff.get(BOOKS).content.decode()
    assert "The books balance" in page and "-$1.00" in page and people.staff.username in page
    with connection.cursor() as cursor:
        cursor.execute("UPDATE relay_ledgeraccount SET granted = granted + 5 WHERE kind = 'wallet' AND granted > 0")
    proofs.prove(proofs.begin_proof()[0])
    page = staff.get(BOOKS).content.decode()
    assert "The books do not balance" in page and f"wallet:{people.owner.pk}" in page
    assert "The books do not balance" in staff.get("/admin/").content.decode(), "the front page leads there"


def test_proofs_that_are_running_broken_off_or_failed_say_so(
    staff: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    BooksProof.objects.all().delete()
    first, new = proofs.begin_proof(people.staff)
    assert new and proofs.begin_proof(people.staff) == (first, False), "one at a time"
    page = staff.get(BOOKS).content.decode()
    assert "A proof is being made" in page and "Prove the books now" not in page
    assert staff.get(f"{BOOKS}?now=1").json() == {"running": True}
    BooksProof.objects.update(seen_at=clock.now() - timedelta(minutes=1))
    assert staff.get(f"{BOOKS}?now=1").json() == {"running": False}
    page = staff.get(BOOKS).content.decode()
    assert "broken off" in page and "Prove the books now" in page
    assert "The last proof of the books could not be made" in staff.get("/admin/").content.decode()
    second, new = proofs.begin_proof(people.staff)
    assert new and second.pk != first.pk
    monkeypatch.setattr(proofs, "verify", lambda progress: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        proofs.prove(second)
    assert second.state == "failed" and "ZeroDivisionError" in staff.get(BOOKS).content.decode()
    assert "ZeroDivisionError" in staff.get("/admin/").content.decode()
    for _ in range(70):
        BooksProof.objects.create(finished_at=clock.now())
    proofs.begin_proof()
    assert BooksProof.objects.count() == 60, "old ones go"
