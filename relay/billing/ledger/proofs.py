"""Verifies the ledger and stores the outcome, so that staff can see when it was last found correct.

A verification reads the whole ledger, so it runs in a process of its own, `manage.py ledger prove`: no page and no
request waits for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import connection

from portal.lib import clock
from portal.lib.redaction.redact import redact
from relay.billing.ledger.verify import Report, verify
from relay.models import BooksProof, LedgerEntry

_MAX_PROOFS: Final = 60  # older ones are deleted
_MAX_DIFFERENCES: Final = 100  # that one proof stores in words
_RETRY_AFTER: Final = timedelta(hours=1)
_HEARTBEAT: Final = 5.0  # seconds


def begin_proof(actor: Any = None) -> tuple[BooksProof, bool]:
    """Create the row of a proof. Returns it and True, or the proof that is running and False."""
    newest = BooksProof.objects.first()
    if newest is not None and newest.state == "running":
        return newest, False
    created = BooksProof.objects.create(actor=actor)
    newest_ids = BooksProof.objects.values_list("pk", flat=True)[:_MAX_PROOFS]
    BooksProof.objects.filter(pk__lt=min(newest_ids)).delete()
    return created, True


def start_proof(actor: Any = None) -> BooksProof:
    """Start a proof in another process, unless one is running. Returns its row at once.

    When the process cannot be started, the row says so in `error`.
    """
    proof, new = begin_proof(actor)
    if new:
        command = [sys.executable, "-P", "-m", "portal.management", "ledger", "prove", str(proof.pk)]
        path = os.pathsep.join(filter(None, (str(settings.BASE_DIR), os.environ.get("PYTHONPATH"))))
        try:
            process = subprocess.Popen(  # noqa: S603
                command,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:  # such as no memory
            proof.error, proof.finished_at = redact(f"{type(error).__name__}: {error}")[:300], clock.now()
            proof.save()
        else:
            threading.Thread(target=process.wait, name="proof of the books", daemon=True).start()
    return proof


def is_proof_due() -> bool:
    """Whether the last proof is older than PROVE_HOURS, or the ledger's first entry where there is no proof yet.

    A proof that failed is repeated after an hour.
    """
    hours = settings.CONFIG.prove_hours
    if not hours:
        return False
    before = clock.now() - timedelta(hours=hours)
    newest = BooksProof.objects.first()
    if newest is not None:
        return newest.began_at <= (
            before if newest.state in {"running", "clean", "differs"} else max(before, clock.now() - _RETRY_AFTER)
        )
    oldest = LedgerEntry.objects.order_by("pk").values_list("at", flat=True).first()
    return oldest is not None and oldest <= before


def prove(proof: BooksProof) -> Report:
    """Verify the ledger and write the outcome, or the error, into the proof's row. Raises what `verify` raises."""
    heartbeat = _Heartbeat(proof.pk)
    heartbeat.start()
    try:
        report = verify(heartbeat.set_stage)
    except Exception as error:
        proof.error = redact(f"{type(error).__name__}: {error}")[:300]
        raise
    else:
        for name in ("accounts", "entries", "records", "reservations", "reserved", "totals"):
            setattr(proof, name, getattr(report, name))
        proof.differing, proof.differences = (
            len(report.differences),
            [str(one) for one in report.differences[:_MAX_DIFFERENCES]],
        )
        return report
    finally:
        heartbeat.end()
        proof.seen_at = proof.finished_at = clock.now()
        proof.stage = ""
        proof.save()


class _Heartbeat(threading.Thread):
    """Writes into the proof's row every few seconds which stage it has reached, so that it is seen to be alive.

    Uses a connection of its own: that of the proof is inside a transaction that reads the ledger as it was at the
    beginning.
    """

    def __init__(self, pk: int) -> None:
        super().__init__(name="signs of life", daemon=True)
        self._pk, self._stage, self._ended = pk, "", threading.Event()

    def set_stage(self, stage: str) -> None:
        self._stage = stage

    def run(self) -> None:
        try:
            while not self._ended.wait(_HEARTBEAT):
                BooksProof.objects.filter(pk=self._pk).update(seen_at=clock.now(), stage=self._stage)
        finally:
            connection.close()

    def end(self) -> None:
        self._ended.set()
        self.join()
