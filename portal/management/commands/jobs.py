from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, connection

from relay import jobs

_ROUND_SECONDS = 15.0


class Command(BaseCommand):
    help = (
        "Do the scheduled work (tests of keys out of service, regular tests, model lists, balances) until stopped, or "
        "once. Of several runners one acts."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="do what is due now, then end; for cron")
        parser.add_argument("--json", action="store_true", help="one JSON object a line, for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["once"]:
                self._round(options["json"], verbose=True)
                return
            if not options["json"]:
                self.stdout.write(f"looking every {_ROUND_SECONDS:.0f} seconds for what is due; Ctrl-C ends")
            while True:
                try:
                    self._round(options["json"], verbose=False)
                except DatabaseError as error:
                    self.stderr.write(f"the database cannot be used, trying again: {error}")
                connection.close()
                time.sleep(_ROUND_SECONDS)
        except KeyboardInterrupt:
            self.stdout.write("stopped")
        finally:
            try:
                jobs.release_lease()
            except DatabaseError:
                pass  # the lease expires anyway

    def _round(self, as_json: bool, verbose: bool) -> None:
        done = jobs.run_due_jobs()
        if done is None:
            if verbose:
                self.stdout.write(json.dumps({"busy": True}) if as_json else "another runner is at it")
            return
        for one in done:
            self.stdout.write(
                json.dumps(asdict(one)) if as_json else f"{one.name}: {one.subject}: {one.outcome} ({one.seconds} s)"
            )
        if verbose and not as_json:
            self.stdout.write(f"{len(done)} piece(s) of work done")
