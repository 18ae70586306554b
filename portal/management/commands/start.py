from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from portal.banner import banner
from portal.server import CannotListen, check_port, run
from portal.setup import first_run


class Command(BaseCommand):
    help = "Prepare the installation if that is needed (migrate, administrator, demo channel, first token), then serve it. What `make run` calls."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.CONFIG.host, help="address to listen on (%(default)s)")
        parser.add_argument("--port", type=int, default=settings.CONFIG.port, help="port to listen on (%(default)s)")
        parser.add_argument("--workers", type=int, default=settings.CONFIG.workers, help="worker processes (%(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        if not 0 < port < 65536:
            raise CommandError(f"{port} is not a port; choose one from 1 to 65535")
        try:
            check_port(host, port)
        except CannotListen as error:
            raise CommandError(str(error)) from None
        if not os.access(settings.DATA_DIR, os.W_OK):
            raise CommandError(f"the data folder {settings.DATA_DIR} cannot be written. Set AIRELAYS_DATA_DIR to a folder you can write.")
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", interactive=False, verbosity=0)
        first = first_run()
        lines: list[str] = []
        banner(host, port, first, sys.stdout.isatty(), lines.append)
        connection.close()

        def ready() -> None:
            self.stdout.write("\n".join(lines))
            self.stdout.flush()

        run(host, port, options["workers"], ready)
