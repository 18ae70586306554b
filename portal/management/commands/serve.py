from __future__ import annotations

from portal.management.listening import ListeningCommand


class Command(ListeningCommand):
    help = "Serve the portal with uvicorn. Refuses to start on a database that misses migrations."

    def prepare(self, host: str, port: int) -> list[str]:
        return self.take_as_it_is(host, port)
