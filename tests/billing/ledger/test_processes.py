"""Several workers on one database, killed at random moments: no overspend, no unbilled answer, nothing left
reserved.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.support.asserts import until
from tests.support.environment import DATABASE_URL, end_connections
from tests.support.load.billed import Caller, kill_rounds, manage, new_database, prepare
from tests.support.money import COST, at_once
from tests.support.server import NO_CERTIFICATES, Server, serving
from tests.support.upstream import Upstream

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("workers", [1, 4])
def test_two_hundred_at_once_against_money_for_ten(tmp_path: Path, upstream: Upstream, workers: int) -> None:
    env = new_database(tmp_path)
    token, plenty = prepare(env, upstream, 10 * COST, 10**12)
    with serving(tmp_path / "log", "--workers", str(workers), env=env) as server:
        wait_for_workers(server, plenty, workers)
        body = {"model": "plain", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 7}
        statuses = at_once(server, token, body, 200)
        assert 1 <= statuses.count(200) <= 10 and set(statuses) <= {200, 429}, statuses
        assert at_once(server, plenty, body, 50) == [200] * 50
        rows = server.query("SELECT granted, used FROM relay_ledgeraccount WHERE kind = 'wallet' ORDER BY id")
        assert rows[0] == (10 * COST, statuses.count(200) * COST)
        assert "The books balance." in manage(env, "ledger", "verify"), "while the server runs"
    assert "0 open reservations" in manage(env, "ledger", "verify")
    assert "Traceback" not in server.log.read_text()


def wait_for_workers(server: Server, token: str, workers: int) -> None:
    """All workers answer: new connections are spread over them, and none is refused any more."""
    until(lambda: all(server_answers(server, token) for _ in range(8 * workers)))


def server_answers(server: Server, token: str) -> bool:
    try:
        return (
            httpx.get(
                f"{server.v1}/models",
                headers={"authorization": f"Bearer {token}"},
                trust_env=False,
                verify=NO_CERTIFICATES,
                timeout=5,
            ).status_code
            == 200
        )
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_workers_leave_no_unbilled_answer_and_nothing_reserved(
    tmp_path: Path, upstream: Upstream, workers: int
) -> None:
    assert kill_rounds(tmp_path, upstream, 2, workers) > 20


def test_a_new_worker_gives_back_what_a_killed_one_held(tmp_path: Path, upstream: Upstream) -> None:
    env = new_database(tmp_path)
    (token,) = prepare(env, upstream, 10**12)
    with serving(tmp_path / "log", env=env) as server:
        server.post(token, {"model": "plain", "messages": [{"role": "user", "content": "x"}]})
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        assert server.query("SELECT count(*) FROM relay_reservation")[0][0] == 1
    with serving(tmp_path / "log", env=env) as server:
        until(lambda: not server.query("SELECT count(*) FROM relay_reservation")[0][0])
        assert server.query("SELECT sum(reserved) FROM relay_ledgeraccount")[0][0] == 0
    assert "given back" in (tmp_path / "log").read_text()


def test_a_stop_signal_leaves_nothing_reserved(tmp_path: Path, upstream: Upstream) -> None:
    env = new_database(tmp_path)
    (token,) = prepare(env, upstream, 10**12)
    with serving(tmp_path / "log", env=env) as server:
        assert server.post(token, {"model": "plain", "messages": [{"role": "user", "content": "x"}]}).status_code == 200
        server.process.terminate()
        server.process.wait(15)
        assert server.query("SELECT count(*) FROM relay_reservation")[0][0] == 0
    assert "The books balance." in manage(env, "ledger", "verify")


def test_connections_that_break_under_load_lose_and_double_nothing(tmp_path: Path, upstream: Upstream) -> None:
    """The server ends all connections again and again, commits in flight included."""
    if not DATABASE_URL:
        pytest.skip("SQLite has no connections to break; TEST_DATABASE_URL names no server")
    env = new_database(tmp_path)
    tokens = prepare(env, upstream, 10**12, 10**9)
    name = env["AIRELAYS_DATABASE_URL"].rpartition("/")[2]
    with serving(tmp_path / "log", env=env) as server:
        caller_threads = [Caller(server, tokens, number) for number in range(8)]
        for caller in caller_threads:
            caller.start()
        for _ in range(8):
            time.sleep(0.4)
            end_connections(name)
        before = sum(len(caller.whole) for caller in caller_threads)
        until(lambda: sum(len(caller.whole) for caller in caller_threads) > before + 50)  # it recovers
        server.process.terminate()
        server.process.wait(20)
        for caller in caller_threads:
            caller.join(25)
            assert not caller.unexpected, caller.unexpected
        whole = [request_id for caller in caller_threads for request_id in caller.whole]
        billed = {row[0] for row in server.query("SELECT request_id FROM relay_usagerecord WHERE cost > 0")}
    assert not set(whole) - billed
    said = manage(env, "ledger", "verify")
    assert "The books balance." in said, said
    manage(env, "ledger", "sweep")
    assert "0 open reservations" in manage(env, "ledger", "verify")
