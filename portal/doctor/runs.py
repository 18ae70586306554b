"""Runs of the checks that a page has begun: each in a process of its own, `manage.py doctor`, with its progress.

One runs at a time, and none at the load of a page: they reach every upstream, and make a request that costs something.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any, Final

from django.conf import settings
from django.db import connection
from django.utils import translation

from accounts.models import AuditEvent
from accounts.rights import may
from portal.doctor.report import told
from portal.doctor.run import Wish, run
from portal.lib import clock
from relay.models import Diagnosis
from relay.models.usage import EARNINGS

_KEPT: Final = 20  # runs; older ones are deleted
_HEARTBEAT: Final = 1.0  # seconds


def newest_run() -> Diagnosis | None:
    return Diagnosis.objects.select_related("actor").first()


def start_run(actor: Any, response: bool, ip: str | None = None, port: str = "") -> Diagnosis:
    """Start a run in another process, unless one is running. Returns its row at once.

    `port`: at which the server listens, which may be another than in the settings; empty: not known.

    When the process cannot be started, the row says so in `error`.
    """
    newest = newest_run()
    if newest is not None and newest.state == "running":
        return newest
    found = Diagnosis.objects.create(actor=actor, response=response, language=translation.get_language() or "en")
    AuditEvent.write("doctor.run", actor, found, ip, response=response)
    kept = Diagnosis.objects.values_list("pk", flat=True)[:_KEPT]
    Diagnosis.objects.filter(pk__lt=min(kept)).delete()
    listening = {"AIRELAYS_PORT": port} if port.isdecimal() else {}
    try:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "django", "doctor", str(found.pk)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd=settings.BASE_DIR,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "portal.settings", **listening},
        )
    except OSError as error:  # such as no memory
        found.error, found.finished_at = told(error), clock.now()
        found.save()
    else:
        threading.Thread(target=process.wait, name="doctor", daemon=True).start()
    return found


def make_run(found: Diagnosis) -> None:
    """Make the checks of a run, and write how far they are and what they found into its row."""
    pulse = _Pulse(found.pk)
    pulse.start()
    try:
        with translation.override(found.language):
            wish = Wish(found.response, may(found.actor, EARNINGS))
            found.report = run(settings.CONFIG, wish, pulse.tell).as_json()
    except Exception as error:
        found.error = told(error)
        raise
    finally:
        pulse.end()
        found.stage, found.done = "", len(found.report.get("checks", ()))
        found.seen_at = found.finished_at = clock.now()
        found.save()


class _Pulse(threading.Thread):
    """Writes into the row every second how far the run is, by a connection of its own."""

    def __init__(self, pk: int) -> None:
        super().__init__(name="progress", daemon=True)
        self._pk, self._stage, self._done = pk, "", 0
        self._ended = threading.Event()

    def tell(self, stage: str, done: int) -> None:
        self._stage, self._done = stage[:80], done

    def run(self) -> None:
        try:
            while not self._ended.wait(_HEARTBEAT):
                Diagnosis.objects.filter(pk=self._pk).update(seen_at=clock.now(), stage=self._stage, done=self._done)
        finally:
            connection.close()

    def end(self) -> None:
        self._ended.set()
        self.join()
