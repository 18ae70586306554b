"""A stop: streams end or are cut with an error, everything is recorded."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from portal.serving.workers import lifespan
from tests.support.asserts import until
from tests.support.load.recorded import prepare
from tests.support.portal import Portal, ask
from tests.support.server import serving
from tests.support.streams import running
from tests.support.upstream import Call, Script, Upstream, chunk, endless


def test_stop_signal_flushes_and_exits_cleanly(tmp_path: Path, upstream: Upstream) -> None:
    token = prepare(tmp_path, upstream)
    with serving(tmp_path / "log", env={"AIRELAYS_DATA_DIR": str(tmp_path)}) as server:
        for _ in range(5):
            assert (
                server.post(token, {"model": "plain", "messages": [{"role": "user", "content": "x"}]}).status_code
                == 200
            )
        server.process.terminate()
        assert server.process.wait(15) in {0, -15}
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as database:
        assert database.execute("SELECT count(*) FROM relay_usagerecord").fetchone()[0] == 5


def test_stop_signal_ends_a_stream_that_lasts_too_long_and_records_it(tmp_path: Path, upstream: Upstream) -> None:
    import asyncio

    from tests.support.upstream import chunk

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        await asyncio.sleep(60)

    upstream.script("paced", script)
    token = prepare(tmp_path, upstream)
    with serving(
        tmp_path / "log", env={"AIRELAYS_DATA_DIR": str(tmp_path), "AIRELAYS_SHUTDOWN_SECONDS": "1"}
    ) as server:
        body = {"model": "paced", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        with httpx.stream(
            "POST",
            f"{server.v1}/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=60,
        ) as response:
            pieces = response.iter_text()  # held: a dropped iterator would close the connection
            assert "Hello" in next(pieces)
            server.process.terminate()
            assert server.process.wait(10) in {0, -15}
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as database:
        assert database.execute("SELECT end_reason, request_id FROM relay_usagerecord").fetchall() == [
            ("shutdown", response.headers["x-request-id"])
        ]


def ends_after(go: asyncio.Event) -> Script:
    """A stream of an upstream that has begun, and ends when it is told to."""

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("word "))
        await go.wait()
        await call.event(chunk(None, "stop"))
        await call.event("[DONE]")
        await call.end()

    return script


@pytest.mark.shared
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_lets_streams_end_and_cuts_the_rest_with_an_error_event(
    live: Portal, tmp_path: Path, workers: int
) -> None:
    go = asyncio.Event()
    from portal.lib import clock
    from relay.models import Worker

    began_at = clock.now()
    short, long = live.model(ends_after(go)), live.model(endless)
    token = live.token()
    with serving(tmp_path / "log", "--workers", str(workers), env={"AIRELAYS_SHUTDOWN_SECONDS": "8"}) as own:
        until(lambda: Worker.objects.filter(started_at__gte=began_at).count() == workers)
        with running(own, token, short) as ends, running(own, token, long) as cut:
            os.kill(own.process.pid, signal.SIGTERM)
            began = time.monotonic()
            # Several workers share a socket that their parent keeps open: connections to it are no longer answered.
            with pytest.raises(httpx.TransportError):
                until(lambda: httpx.get(own.url + "/healthz", timeout=2, trust_env=False).status_code == 0)
            live.upstream.set(go)
        assert own.process.wait(60) == 0
    assert "data: [DONE]" in ends["text"]
    last = json.loads(cut["text"].strip().rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "relay_unavailable" and "[DONE]" not in cut["text"]
    assert cut["ended"] - began > 7.5
    assert live.record(ends["id"]).end_reason == "completed" and live.record(cut["id"]).end_reason == "shutdown"
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.shared
@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_that_is_replaced_lets_its_streams_end(live: Portal, tmp_path: Path, stopped: bool) -> None:
    """They go on for longer than after a stop, and end as after one when the portal is stopped meanwhile."""
    go = asyncio.Event()
    from portal.lib import clock
    from relay.models import Worker

    began_at = clock.now()
    workers = Worker.objects.filter(started_at__gte=began_at)
    model, token = live.model(ends_after(go)), live.token()
    with serving(tmp_path / "log", "--workers", "2", env={"AIRELAYS_SHUTDOWN_SECONDS": "0.01"}) as own:
        until(lambda: workers.count() == 2)
        with running(own, token, model) as stream:
            for _ in range(2):  # by the end of the second time, a stop would have cut it for long
                old = set(workers.values_list("pid", flat=True))
                os.kill(own.process.pid, signal.SIGHUP)
                until(lambda: workers.exclude(pid__in=old).count() == 2)  # noqa: B023  # asked in this turn alone
            assert httpx.get(own.url + "/healthz", timeout=60, trust_env=False).status_code == 200
            if stopped:
                os.kill(own.process.pid, signal.SIGTERM)
            else:
                live.upstream.set(go)
        live.upstream.set(go)
    assert ("data: [DONE]" in stream["text"]) is not stopped
    assert live.record(stream["id"]).end_reason == ("shutdown" if stopped else "completed")
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.shared
def test_a_request_that_waits_is_told_when_the_portal_stops(live: Portal, tmp_path: Path) -> None:
    async def silent(call: Call) -> None:
        await call.closed_event()

    model, token = live.model(silent), live.token()
    found: dict[str, httpx.Response] = {}
    with serving(tmp_path / "log", env={"AIRELAYS_SHUTDOWN_SECONDS": "1"}) as own:
        own.catch_up()

        def wait() -> None:
            found["answer"] = httpx.post(
                own.url + "/v1/chat/completions",
                json=ask(model),
                headers={"authorization": f"Bearer {token}"},
                timeout=30,
                trust_env=False,
            )

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: live.upstream.count(model))
        os.kill(own.process.pid, signal.SIGTERM)
        thread.join(10)
        assert own.process.wait(60) == 0
    assert (
        found["answer"].status_code == 503
        and found["answer"].json()["error"]["code"] == "relay_unavailable"
        and found["answer"].headers["retry-after"] == "1"
    )
    assert live.record(found["answer"]).end_reason == "shutdown"


@pytest.mark.shared
def test_readiness_goes_before_the_listener_when_there_is_a_delay(live: Portal, tmp_path: Path) -> None:
    with serving(tmp_path / "log", env={"AIRELAYS_SHUTDOWN_DELAY_SECONDS": "1.5"}) as own:
        os.kill(own.process.pid, signal.SIGTERM)
        ready = until(
            lambda: (found := httpx.get(own.url + "/readyz", timeout=5, trust_env=False)).status_code == 503 and found
        )
        assert "the portal is stopping" in ready.json()["problems"]
        assert httpx.get(own.url + "/healthz", timeout=5, trust_env=False).status_code == 200
        assert own.process.wait(60) == 0


@pytest.mark.parametrize(("written", "code"), [(True, 0), (False, 1)])
def test_a_thread_that_hangs_does_not_keep_a_stopped_portal_alive(
    written: bool, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python waits for threads that wait for a disk, say, however long that is. The exit code says what was lost."""
    ended: list[int] = []
    monkeypatch.setattr(lifespan, "_FLUSH_SECONDS", 1000 if written else 0)
    monkeypatch.setattr("os._exit", ended.append)
    run: Any = SimpleNamespace(cut_at=time.monotonic(), stopped_at=time.monotonic() - 3 if written else 0.0)
    go = threading.Event()
    hanging = threading.Thread(target=go.wait, name="on a disk", daemon=True)
    hanging.start()
    try:
        lifespan._end_at_last(run)
    finally:
        go.set()
    assert ended == [code] and "on a disk" in caplog.text
