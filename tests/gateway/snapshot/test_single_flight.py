"""Reads that are made once for all who want the same."""

from __future__ import annotations

import asyncio

import pytest

from relay.gateway.snapshot.single_flight import SingleFlight


async def test_what_many_want_is_read_once_and_each_key_by_itself() -> None:
    begun: list[str] = []
    go_on = asyncio.Event()

    async def read(name: str) -> str:
        begun.append(name)
        await go_on.wait()
        return name.upper()

    reads: SingleFlight[str] = SingleFlight()
    waiting = [asyncio.ensure_future(reads.read(name, lambda name=name: read(name))) for name in "aabab"]  # type: ignore[misc]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*waiting) == list("AABAB") and sorted(begun) == ["a", "b"]
    assert await reads.read("a", lambda: read("a")) == "A" and begun.count("a") == 2, "nothing is remembered"


async def test_everybody_is_told_of_a_failure_and_the_next_read_begins_anew() -> None:
    async def fail() -> str:
        await asyncio.sleep(0)
        raise OSError("away")

    async def work() -> str:
        return "here"

    reads: SingleFlight[str] = SingleFlight()
    ends = await asyncio.gather(*(reads.read(1, fail) for _ in range(3)), return_exceptions=True)
    assert [type(end) for end in ends] == [OSError] * 3
    assert await reads.read(1, work) == "here"


async def test_who_is_cancelled_ends_the_read_of_no_other() -> None:
    go_on = asyncio.Event()

    async def read() -> str:
        await go_on.wait()
        return "read"

    reads: SingleFlight[str] = SingleFlight()
    first, second = (asyncio.ensure_future(reads.read("", read)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert await second == "read"
