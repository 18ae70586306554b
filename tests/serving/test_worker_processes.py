"""Several worker processes, and the one that watches over them."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn

from portal.serving.uvicorn import run
from tests.support.server import free_port


def test_workers_have_time_to_start_and_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn kills a worker that does not answer in 5 s unless it is told otherwise. To import everything can take
    longer on a busy machine: no new worker would ever serve, and SIGHUP would replace none.
    """
    configured: list[uvicorn.Config] = []

    class Supervisor:
        terminated = False

        def __init__(self, config: uvicorn.Config, sockets: Any) -> None:
            configured.append(config)
            for one in sockets:
                one.close()

        def run(self) -> None: ...

    monkeypatch.setattr("portal.serving.uvicorn._Supervisor", Supervisor)
    run("127.0.0.1", free_port(), 2)
    assert configured[0].workers == 2 and configured[0].timeout_worker_healthcheck >= 30
