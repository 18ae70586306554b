from __future__ import annotations

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from portal.installation import command
from portal.management.listening import ListeningCommand
from portal.serving.banner import address, open_relay
from portal.serving.first_run import migrations_missing, take_over
from portal.serving.workers.processes import run


class Command(ListeningCommand):
    help = "Serve the portal with uvicorn. Refuses to start on a database that misses migrations."

    def listen(self, host: str, port: int, workers: int) -> bool:
        if migrations_missing():
            migrate = command.here("manage", "migrate", data_dir=settings.DATA_DIR)
            raise CommandError(f"the database misses migrations. Run: {migrate}")
        lines = take_over(self.stdout.write)
        lines += [f"Settings of {path}" for path in settings.CONFIG.files]
        said = open_relay()
        connection.close()

        def ready() -> None:
            for line in lines:
                self.stdout.write(line)
            self.stdout.write(
                f"AIRelays Portal {settings.VERSION} serves {address(host, port)} (listening on {host}:{port})"
            )
            if said:
                self.stdout.write(said)
            self.stdout.flush()

        return run(host, port, workers, ready, self.status_of_term)
