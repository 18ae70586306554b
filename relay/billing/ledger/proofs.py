"""Proofs of the books that are kept. Each is made by a process of its own, `manage.py ledger prove`, since it reads the whole ledger: no page and no request waits for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import connection

from portal.lib import clock
from portal.lib.redact import redact
from relay.billing.ledger.verify import Report, verify
from relay.models import BooksProof, LedgerEntry

_KEPT: Final = 60
_SHOWN: Final = 100
_AGAIN: Final = timedelta(hours=1)
_BEAT: Final = 5.0  # seconds between signs of life


def begin(actor: Any = None) -> tuple[BooksProof, bool]:
    """A new proof to be made, and True; or the one that is being made, and False."""
    newest = BooksProof.objects.first()
    if newest is not None and newest.state == "running":
        return newest, False
    made = BooksProof.objects.create(actor=actor)
    kept = BooksProof.objects.values_list("pk", flat=True)[:_KEPT]
    BooksProof.objects.filter(pk__lt=min(kept)).delete()
    return made, True


def start(actor: Any = None) -> BooksProof:
    """Have one made by another process, unless one is being made. Returns at once; that no process could be started is kept in the row."""
    proof, new = begin(actor)
    if new:
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "ledger", "prove", str(proof.pk)]
        try:
            made = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        except OSError as error:  # no memory, no file to start
            proof.error, proof.finished_at = redact(f"{type(error).__name__}: {error}")[:300], clock.now()
            proof.save()
        else:
            threading.Thread(target=made.wait, name="proof of the books", daemon=True).start()
    return proof


def due() -> bool:
    """Whether the last proof, or the ledger where there is none, is older than `PROVE_HOURS`; one that did not end is made again after an hour."""
    hours = settings.CONFIG.prove_hours
    if not hours:
        return False
    before = clock.now() - timedelta(hours=hours)
    newest = BooksProof.objects.first()
    if newest is not None:
        return newest.began_at <= (before if newest.state in {"running", "clean", "differs"} else max(before, clock.now() - _AGAIN))
    oldest = LedgerEntry.objects.order_by("pk").values_list("at", flat=True).first()
    return oldest is not None and oldest <= before


def prove(proof: BooksProof) -> Report:
    """Make it: the outcome is kept in the row, that it could not be made, too."""
    life = _Life(proof.pk)
    life.start()
    try:
        report = verify(life.reach)
    except Exception as error:
        proof.error = redact(f"{type(error).__name__}: {error}")[:300]
        raise
    else:
        for name in ("accounts", "entries", "records", "reservations", "reserved", "totals"):
            setattr(proof, name, getattr(report, name))
        proof.differing, proof.differences = len(report.differences), [str(one) for one in report.differences[:_SHOWN]]
        return report
    finally:
        life.end()
        proof.seen_at = proof.finished_at = clock.now()
        proof.stage = ""
        proof.save()


class _Life(threading.Thread):
    """Tells every few seconds how far it is, over a connection of its own: the proof's sees the books as they were when it began."""

    def __init__(self, pk: int) -> None:
        super().__init__(name="signs of life", daemon=True)
        self._pk, self._stage, self._over = pk, "", threading.Event()

    def reach(self, stage: str) -> None:
        self._stage = stage

    def run(self) -> None:
        try:
            while not self._over.wait(_BEAT):
                BooksProof.objects.filter(pk=self._pk).update(seen_at=clock.now(), stage=self._stage)
        finally:
            connection.close()

    def end(self) -> None:
        self._over.set()
        self.join()
