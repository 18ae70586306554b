from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from relay.storage import files_check
from relay.storage.room import show_bytes


class Command(BaseCommand):
    help = "Compare the stored files with their records (`verify`), or delete what is on one side only (`repair`)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=("verify", "repair"))
        parser.add_argument("--contents", action="store_true", help="read every file, too, and compare its SHA-256")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        repaired = files_check.repair() if options["what"] == "repair" else 0
        found, count, size = files_check.verify_files(options["contents"])
        if options["json"]:
            self.stdout.write(
                json.dumps(
                    {
                        "files": count,
                        "bytes": size,
                        "repaired": repaired,
                        "differences": [{"what": entry.what, "name": entry.name} for entry in found],
                    }
                )
            )
        else:
            if repaired:
                self.stdout.write(f"{repaired} removed.")
            for entry in found:
                self.stdout.write(f"{entry.name}: {entry.what}" if entry.name else entry.what)
            self.stdout.write(
                f"{count} files, {show_bytes(size)}: "
                f"{'disk and records agree' if not found else f'{len(found)} difference(s)'}."
            )
        if found:
            raise SystemExit(1)
