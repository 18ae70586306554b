"""Nobody waits for a thread that hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from portal import limits
from portal.services.timeouts import on_disk, statement_seconds
from relay.errors import RelayUnavailable
from relay.gateway.snapshot import cache as cache_module
from relay.gateway.snapshot.cache import SnapshotCache
from tests.support.asserts import until


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Ends what hangs."""
    monkeypatch.setattr(limits, "THREAD_SECONDS", 0.1)
    monkeypatch.setattr(limits, "FILE_SECONDS", 0.1)
    go = threading.Event()
    yield go
    go.set()


async def test_the_database(hanging: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    cache = SnapshotCache()
    for _ in range(3):  # the third waits for a thread: two hang
        with pytest.raises(RelayUnavailable, match="database does not answer") as refused:
            await cache.in_thread(hanging.wait)
        assert refused.value.retry_after
    assert "did not answer within" in caplog.text
    hanging.set()
    assert await cache.in_thread(statement_seconds) == limits.DATABASE_SECONDS


async def test_a_disk_keeps_only_those_waiting_who_need_it(hanging: threading.Event) -> None:
    cache = SnapshotCache()
    for _ in range(5):
        with pytest.raises(RelayUnavailable, match="disk or database does not answer"):
            await cache.in_slow_thread(hanging.wait)
    assert await cache.in_thread(lambda: "read") == "read"


async def test_a_file_may_take_longer_than_the_database(
    hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FILE_SECONDS", 60)
    monkeypatch.setattr(cache_module, "_LOOK_SECONDS", 0.01)
    cache, written = SnapshotCache(), threading.Event()

    def writes(event: threading.Event) -> str:
        with on_disk():
            written.wait()
        return str(event.wait() and statement_seconds())

    began = asyncio.ensure_future(cache.in_file_thread(writes, written))
    with pytest.raises(RelayUnavailable, match="portal's database does not answer"):
        await cache.in_file_thread(hanging.wait)
    assert not began.done(), "it has waited as long, for the disk"
    written.set()
    assert await began == str(limits.DATABASE_SECONDS)


async def test_a_disk_that_hangs_is_told_from_the_database(
    hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to those who wait for a thread: four hang."""
    monkeypatch.setattr(limits, "THREAD_SECONDS", 60)
    cache = SnapshotCache()
    waiting = [cache.in_file_thread(on_disk()(hanging.wait)) for _ in range(6)]
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, RelayUnavailable) and "portal's disk does not" in end.message for end in ends)
    hanging.set()
    assert await cache.in_file_thread(lambda: "read") == "read"
    until(lambda: not cache._file_work)


async def test_a_timeout_of_the_work_itself_is_not_taken_for_one_of_the_wait(hanging: threading.Event) -> None:
    def fails() -> None:
        raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        await SnapshotCache().in_thread(fails)
