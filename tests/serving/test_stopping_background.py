"""A stop waits for what runs without a connection as for other requests; what is lost is told at once, and free."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from django.db import connection
from openai import OpenAI

from portal.lib.json import Json
from relay.endpoints.text import responses
from relay.gateway.background import BackgroundRequest
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.watchdog import Watchdog
from relay.storage.responses import create_queued
from tests.endpoints.batches.jobs import lines, results, submit, wait_for
from tests.gateway.attempts import CALLER
from tests.support.asserts import until
from tests.support.environment import OwnDatabase
from tests.support.money import books_balance, settled
from tests.support.portal import Portal
from tests.support.server import Server, serving
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared

PRICE = {"input": 1, "output": 1}
ENV = {"AIRELAYS_FEED_POLL_SECONDS": "0.05"}


def stop(own: Server) -> None:
    """Send the signal, and wait until it has been heard."""
    os.kill(own.process.pid, signal.SIGTERM)
    with pytest.raises(httpx.TransportError):
        until(lambda: httpx.get(own.url + "/healthz", timeout=2, trust_env=False).status_code == 0)


def stored(response_id: str) -> Any:
    from relay.models import StoredResponse

    return StoredResponse.objects.get(response_id=response_id)


def records(user: Any) -> list[Any]:
    from relay.models import UsageRecord

    return list(UsageRecord.objects.filter(user=user).order_by("pk"))


def client(own: Server, token: str) -> OpenAI:
    return OpenAI(base_url=own.url + "/v1", api_key=token, max_retries=0)


def test_a_background_response_that_ends_in_time_is_kept(live: Portal, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await go.wait()
        await call.reply(200, completion())

    model, user = live.model(script, price=PRICE, text_api="chat"), live.user(balance=10**12)
    token = live.token(user)
    with serving(tmp_path / "log", env=ENV) as own, client(own, token) as sdk:
        made = sdk.responses.create(model=model, input="x", background=True)
        until(lambda: live.upstream.count(model))
        stop(own)
        live.upstream.set(go)
        assert own.process.wait(60) == 0
    row = stored(made.id)
    assert row.status == "completed" and not row.owner and "Hello there." in row.body
    (record,) = records(user)
    assert (record.end_reason, record.usage_source) == ("completed", "reported")
    assert record.cost == 16_000 == settled(user).used
    books_balance()


@pytest.mark.parametrize("policy", ["delivered", "reserved"])
def test_one_that_does_not_end_in_time_has_failed_at_once_and_is_free(
    live: Portal, tmp_path: Path, policy: str
) -> None:
    async def script(call: Call) -> None:
        await call.closed_event()

    model, user = live.model(script, price=PRICE, text_api="chat", disconnect_policy=policy), live.user(balance=10**12)
    token = live.token(user)
    env = {**ENV, "AIRELAYS_SHUTDOWN_SECONDS": "0.5"}
    with serving(tmp_path / "log", env=env) as own, client(own, token) as sdk:
        made = sdk.responses.create(model=model, input="x", background=True)
        until(lambda: live.upstream.count(model))
        os.kill(own.process.pid, signal.SIGTERM)
        assert own.process.wait(60) == 0
    row = stored(made.id)
    assert row.status == "failed" and not row.owner and "restarted" in row.body
    (record,) = records(user)
    assert (record.end_reason, record.cost, settled(user).reserved) == ("shutdown", 0, 0)
    books_balance()
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("in_time", [True, False])
def test_lines_of_a_batch_are_finished_and_the_rest_goes_on_elsewhere(
    live: Portal, own_database: OwnDatabase, tmp_path: Path, in_time: bool
) -> None:
    go, asked = asyncio.Event(), list[int]()

    async def script(call: Call) -> None:
        asked.append(1)
        if len(asked) <= 2:
            await go.wait() if in_time else await call.closed_event()
        await call.reply(200, completion())

    model, user = live.model(script, price=PRICE), live.user(balance=10**12)
    token = live.token(user)
    stopping = {} if in_time else {"AIRELAYS_SHUTDOWN_SECONDS": "0.5"}
    env = {**ENV, **own_database.env, **stopping, "AIRELAYS_BATCH_CONCURRENCY": "2"}
    with serving(tmp_path / "log", env=env) as own, client(own, token) as sdk:
        batch = submit(sdk, lines(model, 4))
        until(lambda: live.upstream.count(model) == 2)
        if in_time:
            stop(own)
            live.upstream.set(go)
        else:
            os.kill(own.process.pid, signal.SIGTERM)
        assert own.process.wait(60) == 0
    with serving(tmp_path / "log2", env=env) as other, client(other, token) as sdk:
        done = wait_for(sdk, batch.id)
        assert done.status == "completed" and done.request_counts.completed == 4
        assert len(results(sdk, done.output_file_id)) == 4
    found = records(user)
    assert [row.cost for row in found if row.end_reason == "completed"] == [16_000] * 4
    cut = [row for row in found if row.end_reason != "completed"]
    assert [(row.end_reason, row.cost) for row in cut] == ([] if in_time else [("shutdown", 0)] * 2)
    assert live.upstream.count(model) == 4 + len(cut) and settled(user).used == 4 * 16_000
    books_balance()


def test_one_that_is_cancelled_at_last_has_failed_too(live: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it hangs in when the time is over."""
    begun, user, name = asyncio.Event(), live.user(), f"resp_{live.name('cut')}"

    async def hangs(*_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def in_thread(function: Any, *args: Any) -> Any:
        """With a connection of its own: those of the pool's threads may belong to another test's database."""

        def call() -> Any:
            try:
                return function(*args)
            finally:
                connection.close()

        return await asyncio.to_thread(call)

    async def cancel() -> None:
        turn = SimpleNamespace(caller=SimpleNamespace(user_id=user.pk), id=name)
        run = cast(Any, SimpleNamespace(watchdog=Watchdog()))
        task = asyncio.ensure_future(responses._run(run, BackgroundRequest(CALLER, b""), cast(Any, turn)))
        until_begun = asyncio.ensure_future(begun.wait())
        await asyncio.wait((task, until_begun), return_when=asyncio.FIRST_COMPLETED)
        assert begun.is_set()
        task.cancel()
        await task

    monkeypatch.setattr(responses, "run_in_background", hangs)
    monkeypatch.setattr(snapshot_cache, "in_thread", in_thread)
    queued: Json = {"id": name, "status": "queued", "model": "m"}
    create_queued(user.pk, queued, [], "req_cut", "a worker", "", "", timedelta(days=1))
    asyncio.run(cancel())
    assert stored(name).status == "failed" and "restarted" in stored(name).body
