"""The base class of the commands that serve."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from portal.installation.lock import FolderInUse, FolderLock
from portal.installation.open_relay import why_not_open
from portal.management.command_line import database_is_away
from portal.serving.uvicorn import CannotListen, check_port

_IN_USE: Final = 75  # EX_TEMPFAIL of sysexits.h, as of AIRelays 0.22


class ListeningCommand(BaseCommand):
    """Takes --host, --port and --workers, and checks port and database before `listen` is called."""

    terminated = False  # by SIGTERM, once it has been handled
    status_of_term = 0  # with which the process exits then

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.CONFIG.host, help="address to listen on (%(default)s)")
        parser.add_argument("--port", type=int, default=settings.CONFIG.port, help="port to listen on (%(default)s)")
        parser.add_argument(
            "--workers", type=int, default=settings.CONFIG.workers, help="worker processes (%(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        config = settings.CONFIG
        if refusal := why_not_open(config, options["host"], config.public_url, bool(config.trusted_proxies)):
            raise CommandError(refusal)
        try:
            check_port(options["host"], options["port"])
        except CannotListen as error:
            raise CommandError(str(error), returncode=3) from None
        try:
            connection.ensure_connection()
        except (DatabaseError, ImproperlyConfigured) as error:
            raise CommandError(database_is_away(error)) from None
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
            for line in _warnings():
                self.stderr.write(f"airelays: {line}")
            self.terminated = self.listen(options["host"], options["port"], options["workers"])
        finally:
            lock.release()

    def listen(self, host: str, port: int, workers: int) -> bool:
        """Serve, and return whether SIGTERM has ended it."""
        raise NotImplementedError


def _warnings() -> list[str]:
    """What `check --deploy` says of the portal's own settings, a line each."""
    return [
        f"{message.msg} {message.hint or ''}".strip()
        for message in checks.run_checks(include_deployment_checks=True)
        if str(message.id).startswith("portal.W")
    ]
