"""A portal that is killed under load: every whole answer has exactly one usage record."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx

from tests.support import environment, forks
from tests.support.asserts import until
from tests.support.server import NO_CERTIFICATES, Server, serving
from tests.support.upstream import Upstream


def prepare(folder: Path, upstream: Upstream) -> str:
    """A data folder of its own with the bench's models; returns the token."""
    environment.new_sqlite(folder)
    made = forks.run(["-m", "tests.support.load.portal_setup", upstream.base_url], {"AIRELAYS_DATA_DIR": str(folder)})
    assert made.returncode == 0, made.stderr
    return made.stdout.split()[-1]


class Client(threading.Thread):
    """Sends mixed requests until its server is gone; keeps the ids of answers that it received whole."""

    def __init__(self, server: Server, token: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.token = server, token
        self.random = random.Random(seed)
        self.whole: list[str] = []
        self.unexpected: list[str] = []

    def run(self) -> None:
        with httpx.Client(
            headers={"authorization": f"Bearer {self.token}"}, timeout=10, trust_env=False, verify=NO_CERTIFICATES
        ) as client:
            while True:
                stream = self.random.random() < 0.5
                body = json.dumps(
                    {
                        "model": self.random.choice(["plain", "burst", "no-such-model"]),
                        "stream": stream,
                        "messages": [{"role": "user", "content": "x"}],
                    }
                )
                try:
                    with client.stream("POST", f"{self.server.v1}/chat/completions", content=body) as response:
                        text = response.read()  # raises when the answer is cut off
                        if response.status_code == 404:
                            continue  # refused before routing: no record
                        if response.status_code != 200:
                            self.unexpected.append(f"{response.status_code} {text[:200]!r}")
                        elif not stream or text.endswith(b"data: [DONE]\n\n"):
                            self.whole.append(response.headers["x-request-id"])
                except httpx.HTTPError:
                    if self.server.process.poll() is not None:
                        return


def kill_rounds(folder: Path, upstream: Upstream, rounds: int) -> int:
    """Returns how many whole answers were received; every one has exactly one record."""
    token = prepare(folder, upstream)
    received: list[str] = []
    for number in range(rounds):
        with serving(folder / "log", env={"AIRELAYS_DATA_DIR": str(folder)}) as server:
            clients = [Client(server, token, number * 100 + index) for index in range(12)]
            for client in clients:
                client.start()
            until(lambda clients=clients: sum(len(client.whole) for client in clients) > 12)  # type: ignore[misc]
            time.sleep(random.Random(number).random() / 2)  # anywhere in the midst of it
            server.kill()
            for client in clients:
                client.join()
                assert not client.unexpected, client.unexpected
                received.extend(client.whole)
        with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
            rows = [row[0] for row in database.execute("SELECT request_id FROM relay_usagerecord")]
        assert len(rows) == len(set(rows))
        missing = set(received) - set(rows)
        assert not missing, f"round {number}: {len(missing)} of {len(received)} whole answers have no record"
        assert len(received) == len(set(received))
    return len(received)
