"""`manage.py rollup`: verify or rebuild the daily sums of usage."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.installation import command
from relay.usage import rollup


class Command(BaseCommand):
    help = (
        "Look after the daily sums that pages are made from: verify holds them against the requests, rebuild makes "
        "them again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=("verify", "rebuild"))
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] == "rebuild":
            count = rollup.rebuild(self._progress)
            self.stdout.write(json.dumps({"added_up": count}) if options["json"] else f"{count} requests added up.")
            return
        found = rollup.differences()
        if options["json"]:
            self.stdout.write(json.dumps({"differences": found}))
        elif not found:
            self.stdout.write("The sums agree with the requests.")
        if found:
            if not options["json"]:
                self.stdout.write("\n".join(found[:50]))
            again = command.here("manage", "rollup", "rebuild", data_dir=settings.DATA_DIR)
            raise CommandError(f"{len(found)} sum(s) differ. Make them again: {again}")

    def _progress(self, done: int) -> None:
        if sys.stderr.isatty():
            self.stderr.write(f"\r{done}", ending="")
