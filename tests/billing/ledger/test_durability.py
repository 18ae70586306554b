"""No answer without its record: the server is killed with SIGKILL under load, again and again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.asserts import until
from tests.support.load.recorded import kill_rounds, prepare
from tests.support.server import serving
from tests.support.upstream import Call, Upstream, hello


def test_every_whole_answer_has_exactly_one_record_after_kill_9(tmp_path: Path, upstream: Upstream) -> None:
    assert kill_rounds(tmp_path, upstream, 3) > 20


def test_locked_database_gives_503_and_loses_nothing(tmp_path: Path, upstream: Upstream) -> None:
    """While another program holds the write lock, nobody gets an unrecorded answer; afterwards everything is
    written.
    """
    token = prepare(tmp_path, upstream)
    body = {"model": "plain", "messages": [{"role": "user", "content": "x"}]}
    with serving(tmp_path / "log", env={"AIRELAYS_DATA_DIR": str(tmp_path)}) as server:
        assert server.post(token, body).status_code == 200
        with closing(sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            response = server.post(token, body)
            assert response.status_code == 503, response.text
            assert response.json()["error"]["code"] == "relay_unavailable" and response.headers["retry-after"]
            refused = server.post(token, body)
            assert refused.status_code == 503
            holder.execute("ROLLBACK")
        until(lambda: server.post(token, body).status_code == 200)
        with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as database:
            ids = {row[0] for row in database.execute("SELECT request_id FROM relay_usagerecord")}
        assert response.headers["x-request-id"] in ids, "the record of the refused answer was kept and written later"


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_told_to_be_tried_again_is_charged_only_if_it_was_delivered(
    tmp_path: Path, upstream: Upstream, stream: bool
) -> None:
    """The database is locked while the upstream answers, for longer than an answer waits for its record."""
    token = prepare(tmp_path, upstream)
    body: dict[str, Any] = {"model": "plain", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    with (
        serving(tmp_path / "log", env={"AIRELAYS_DATA_DIR": str(tmp_path)}) as server,
        closing(sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None, check_same_thread=False)) as holder,
    ):

        async def script(call: Call) -> None:
            holder.execute("BEGIN IMMEDIATE")
            await hello(call)

        upstream.script("plain", script)
        response = server.post(token, body)
        upstream.script("plain", hello)
        assert "relay_unavailable" in response.text and response.status_code == (200 if stream else 503)
        holder.execute("ROLLBACK")
        name = response.headers["x-request-id"]
        sql = "SELECT status, end_reason, cost, billing FROM relay_usagerecord WHERE request_id = ?"
        with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as database:
            status, reason, cost, billing = until(lambda: database.execute(sql, (name,)).fetchone())
            wallet = "SELECT used FROM relay_ledgeraccount WHERE kind = 'wallet'"
            (used,) = database.execute(wallet).fetchone()
    assert (status, billing) == ((200, "usage") if stream else (503, "free"))
    assert used == cost and bool(cost) is stream and (stream or reason == "internal_error")
