from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from portal.management.command_line import unhurried
from portal.management.listening import ListeningCommand
from portal.serving.banner import banner
from portal.serving.first_run import first_run, migrations_missing, take_over
from portal.serving.uvicorn import run


class Command(ListeningCommand):
    help = (
        "Prepare the installation if that is needed (migrate, administrator, demo channel, first token), then serve "
        "it. What `make run` calls."
    )

    def listen(self, host: str, port: int, workers: int) -> None:
        if not os.access(settings.DATA_DIR, os.W_OK):
            raise CommandError(
                f"the data folder {settings.DATA_DIR} cannot be written. Set AIRELAYS_DATA_DIR to a folder you can "
                "write."
            )
        if migrations_missing():
            self.stdout.write("Preparing the database …")
            self.stdout.flush()
            with unhurried():
                call_command("migrate", interactive=False, verbosity=0)
        lines: list[str] = []
        first = first_run()
        lines += take_over()
        banner(host, port, first, sys.stdout.isatty(), lines.append)
        connection.close()

        def ready() -> None:
            self.stdout.write("\n".join(lines))
            self.stdout.flush()

        run(host, port, workers, ready)
