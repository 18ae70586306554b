"""Several worker processes, and the one that watches over them."""

from __future__ import annotations

from typing import Any

import pytest

from portal.serving.uvicorn import run


def test_workers_have_time_to_start_and_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn kills a worker that does not answer in 5 s unless it is told otherwise. To import everything can take
    longer on a busy machine: no new worker would ever serve, and SIGHUP would replace none.
    """
    options: dict[str, Any] = {}
    monkeypatch.setattr("uvicorn.run", lambda _app, **given: options.update(given))
    run("127.0.0.1", 8080, 2)
    assert options["workers"] == 2 and options["timeout_worker_healthcheck"] >= 30
