"""Proofs of the ledger: when they are due, and the process that makes them."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.db import connection
from django.test import Client

from portal.lib import clock
from portal.lib.money import NANO
from relay.billing.ledger import movements, proofs
from relay.models import BooksProof
from tests.support import forks
from tests.support.asserts import until
from tests.support.portal import People, Portal
from tests.support.server import Server
from tests.support.sessions import csrf_of, sign_in

pytestmark = pytest.mark.shared

BOOKS = "/admin/relay/ledgeraccount/verify/"


def test_proofs_are_due_once_a_day(people: People, settings: Any) -> None:
    BooksProof.objects.all().delete()
    movements.top_up(people.owner, NANO, actor=None, reason="x")
    for hours, is_due in ((23, False), (25, True)):
        with connection.cursor() as cursor:  # the model refuses
            cursor.execute("UPDATE relay_ledgerentry SET at = %s", [clock.now() - timedelta(hours=hours)])
        assert proofs.is_proof_due() is is_due
    proof = proofs.begin_proof()[0]
    assert not proofs.is_proof_due()
    BooksProof.objects.filter(pk=proof.pk).update(began_at=clock.now() - timedelta(hours=25))
    assert proofs.is_proof_due()
    for ago, is_due in ((50, False), (70, True)):  # its process is gone
        BooksProof.objects.filter(pk=proof.pk).update(
            began_at=clock.now() - timedelta(minutes=ago), seen_at=clock.now() - timedelta(minutes=ago)
        )
        assert proofs.is_proof_due() is is_due
    settings.CONFIG = settings.CONFIG.model_copy(update={"prove_hours": 0})
    assert not proofs.is_proof_due()


def test_a_process_that_cannot_be_started_is_told_of(
    staff: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        page = client.post(
            address, data={"csrfmiddlewaretoken": csrf_of(client, address)}, headers={"referer": address}
        )
        assert page.status_code == 302
        until(lambda: BooksProof.objects.filter(finished_at__isnull=False).exists())
        proof = BooksProof.objects.get()
        assert proof.state == "clean" and proof.actor == boss and proof.accounts, proof.differences
        assert "The books balance" in client.get(address).text
    done = forks.run(["manage.py", "ledger", "prove", str(proof.pk)])
    assert done.returncode == 1 and "No proof" in done.stderr and "Traceback" not in done.stderr
