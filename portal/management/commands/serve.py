from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from portal.server import CannotListen, check_port, run


class Command(BaseCommand):
    help = "Serve the portal with uvicorn. Refuses to start on a database that misses migrations."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.CONFIG.host, help="address to listen on (%(default)s)")
        parser.add_argument("--port", type=int, default=settings.CONFIG.port, help="port to listen on (%(default)s)")
        parser.add_argument("--workers", type=int, default=settings.CONFIG.workers, help="worker processes (%(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            check_port(options["host"], options["port"])
        except CannotListen as error:
            raise CommandError(str(error)) from None
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise CommandError("the database misses migrations. Run: python manage.py migrate")
        connection.close()
        run(options["host"], options["port"], options["workers"])
        sys.stdout.flush()
