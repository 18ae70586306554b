"""The base class of the commands that serve."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from portal.installation import command
from portal.installation.command import here
from portal.installation.lock import FolderInUse, FolderLock
from portal.installation.open_relay import why_not_open
from portal.management.apart import apart
from portal.management.command_line import database_is_away
from portal.metrics.installed import why_not_open as why_not_open_metrics
from portal.move.progress import is_unfinished
from portal.services.database_errors import told_in_one_line
from portal.services.migrations import migrations_missing
from portal.serving.banner import RELAYS_ONLY, address, open_relay
from portal.serving.first_run import take_over
from portal.serving.uvicorn import CannotListen, check_port
from portal.serving.workers.processes import run
from portal.tracing.installed import why_not_traced

_IN_USE: Final = 75  # EX_TEMPFAIL of sysexits.h, as of AIRelays 0.22


class ListeningCommand(BaseCommand):
    """Takes --host, --port, --workers and --relay-only; checks port and database before anything is prepared."""

    relay_only = False  # serve no pages and do no jobs
    terminated = False  # by SIGTERM, once it has been handled
    status_of_term = 0  # with which the process exits then
    _checks = False

    def check(self, *args: Any, **options: Any) -> None:
        """Called by Django before `handle`, unless --skip-checks is given. The checks load all pages: later."""
        self._checks = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.CONFIG.host, help="address to listen on (%(default)s)")
        parser.add_argument("--port", type=int, default=settings.CONFIG.port, help="port to listen on (%(default)s)")
        parser.add_argument(
            "--workers", type=int, default=settings.CONFIG.workers, help="worker processes (%(default)s)"
        )
        parser.add_argument(
            "--relay-only",
            action="store_true",
            default=settings.CONFIG.relay_only,
            help="serve /v1 and health checks alone: no pages, no jobs",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        config = settings.CONFIG
        self.relay_only = options["relay_only"]
        if refusal := why_not_open(config, options["host"], config.public_url, bool(config.trusted_proxies)):
            raise CommandError(refusal)
        if refusal := why_not_open_metrics(config, options["port"]):
            raise CommandError(refusal)
        if refusal := why_not_traced(config):
            raise CommandError(refusal)
        try:
            check_port(options["host"], options["port"])
            if config.metrics_port:
                check_port(config.metrics_host, config.metrics_port, "METRICS_PORT")
        except CannotListen as error:
            raise CommandError(str(error), returncode=3) from None
        try:
            with told_in_one_line():
                connection.ensure_connection()
        except (DatabaseError, ImproperlyConfigured) as error:
            raise CommandError(database_is_away(error)) from None
        if is_unfinished(connection):
            again = here("move", "DATABASE_URL", data_dir=settings.DATA_DIR)
            raise CommandError(
                f"this database is the unfinished copy of a move. Run `{again}` once more with the settings of the old "
                "database, while no portal runs."
            )
        lock = FolderLock(settings.DATA_DIR)
        try:
            shared = config.shared_data_dir or bool(config.database_url)
            if not lock.hold(shared, listens=(options["host"], options["port"])):
                self.stderr.write(
                    f"airelays: {settings.DATA_DIR} is on a file system without locks: see to it that no other portal "
                    "uses it."
                )
        except FolderInUse as error:
            raise CommandError(str(error), returncode=_IN_USE) from None
        except OSError as error:
            raise CommandError(
                f"the data folder {settings.DATA_DIR} cannot be written: {error.strerror}. Set AIRELAYS_DATA_DIR to a "
                "folder you can write."
            ) from None
        try:
            said = apart(lambda: self._prepared(options))

            def ready() -> None:
                self.stdout.write(said)
                self.stdout.flush()

            self.terminated = run(
                options["host"], options["port"], options["workers"], ready, self.status_of_term, self.relay_only
            )
        finally:
            lock.release()

    def _prepared(self, options: dict[str, Any]) -> str:
        """Check and prepare everything, and return what to say once the port is open."""
        if self._checks:
            super().check()
        for line in _warnings():
            self.stderr.write(f"airelays: {line}")
        said = "\n".join(self.prepare(options["host"], options["port"]))
        self.stdout.flush()
        return said

    def prepare(self, host: str, port: int) -> list[str]:
        """Prepare the installation. Returns lines to say once the port is open. Raises CommandError."""
        raise NotImplementedError

    def take_as_it_is(self, host: str, port: int) -> list[str]:
        """Prepare an installation that is set up. Raises CommandError when the database misses migrations."""
        if migrations_missing():
            migrate = command.here("manage", "migrate", data_dir=settings.DATA_DIR)
            raise CommandError(f"the database misses migrations. Run: {migrate}")
        lines = [] if self.relay_only else take_over(self.stdout.write)
        lines += [f"Settings of {path}" for path in settings.CONFIG.files]
        lines.append(f"AIRelays Portal {settings.VERSION} serves {address(host, port)} (listening on {host}:{port})")
        return lines + [said for said in (RELAYS_ONLY if self.relay_only else "", open_relay()) if said]


def _warnings() -> list[str]:
    """What `check --deploy` says of the portal's own settings, a line each."""
    return [
        f"{message.msg} {message.hint or ''}".strip()
        for message in checks.run_checks(include_deployment_checks=True)
        if str(message.id).startswith("portal.W")
    ]
