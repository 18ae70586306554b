"""What comes before a page: the size of its body, and its turn among other pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError

from portal import limits
from portal.serving.page_body import Pages, Turns, most_body
from relay.gateway.limits.memory import forms
from tests.support.portal import People
from tests.support.sessions import signed_in


async def visit(
    pages: Pages, path: str = "/balance/", pieces: Iterable[bytes] = (b"",), method: str = "POST",
    headers: Iterable[tuple[bytes, bytes]] = (), peer: str = "192.0.2.1",
) -> list[Any]:  # fmt: skip
    """The messages of an answer."""
    waiting = [*pieces]
    sent: list[Any] = []

    async def receive() -> Any:
        if not waiting:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": [*headers], "client": (peer, 1)}
    await pages(scope, receive, send)
    return sent


async def yes(scope: Any) -> bool:
    return True


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("path", "method", "size", "status"),
    [
        ("/balance/", "POST", limits.PAGE_BYTES, 200),
        ("/balance/", "POST", limits.PAGE_BYTES + 1, 413),
        ("/balance/", "GET", 1, 413),
        ("/healthz", "POST", 1, 413),
        ("/healthz", "GET", 0, 200),
        ("/readyz", "POST", 1, 413),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_is_limited_by_its_page(path: str, method: str, size: int, status: int, announced: bool) -> None:
    step = 1 << 20
    pieces = [b"x" * min(step, size - at) for at in range(0, size, step)] or [b""]
    headers = [(b"content-length", b"%d" % size)] if announced else []
    sent = await visit(Pages(echo, yes), path, pieces, method, headers)
    assert sent[0]["status"] == status
    if status == 200:
        assert len(sent[1]["body"]) == size
    assert forms.used == 0


@pytest.mark.parametrize("announced", [True, False])
def test_who_has_not_signed_in_sends_little(people: People, announced: bool) -> None:
    """Reading a form of 4 MiB takes a worker most of a second."""
    session = signed_in(people.owner).cookies["sessionid"].value
    for cookie, size, status in (
        ("", limits.ANONYMOUS_PAGE_BYTES, 200),
        ("", limits.ANONYMOUS_PAGE_BYTES + 1, 413),
        ("sessionid=made-up", limits.PAGE_BYTES, 413),
        ("csrftoken=x; \0; sessionid", limits.PAGE_BYTES, 413),
        (r'sessionid="abcdefgh\000ij"', limits.PAGE_BYTES, 413),
        (f"csrftoken=x; sessionid={session}", limits.PAGE_BYTES, 200),
    ):
        headers = [(b"cookie", cookie.encode())] + [(b"content-length", b"%d" % size)] * announced
        sent = async_to_sync(visit)(Pages(echo), "/accounts/login/", [b"x" * size], headers=headers)
        assert sent[0]["status"] == status, (cookie, size)
        assert status == 200 or b"Sign in and send it again" in sent[1]["body"]


async def test_a_database_that_is_away_is_said() -> None:
    async def away(scope: Any) -> bool:
        raise OperationalError("away")

    headers = [(b"content-length", b"%d" % limits.PAGE_BYTES)]
    sent = await visit(Pages(echo, away), headers=headers)
    assert sent[0]["status"] == 503 and b"database cannot be reached" in sent[1]["body"]


@pytest.mark.parametrize("length", [b"-1", b"1e3", "²".encode(), b"9" * 5000])
async def test_a_length_that_is_no_number_is_too_large(length: bytes) -> None:
    assert (await visit(Pages(echo), headers=[(b"content-length", length)]))[0]["status"] == 413


async def test_forms_of_one_address_have_a_share_of_memory() -> None:
    gate, whole = asyncio.Event(), limits.PAGE_BYTES

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    pages = Pages(slow, yes)
    visits = [asyncio.ensure_future(visit(pages, pieces=[b"x" * whole])) for _ in range(6)]
    for _ in range(20):
        await asyncio.sleep(0)
    other = asyncio.ensure_future(visit(pages, pieces=[b"x" * whole], peer="192.0.2.2"))
    gate.set()
    statuses = [sent[0]["status"] for sent in await asyncio.gather(*visits)]
    assert statuses.count(200) == forms.share // whole and statuses.count(503) == 2
    assert (await other)[0]["status"] == 200 and forms.used == 0


async def test_addresses_take_turns() -> None:
    turns, order = Turns(1), []

    async def make(name: str, address: str) -> None:
        await turns.take(address)
        order.append(name)
        await asyncio.sleep(0)
        turns.give_back()

    flood = [make(f"flood {number}", "192.0.2.1") for number in range(5)]
    await asyncio.gather(*flood, make("good", "192.0.2.2"))
    assert order.index("good") <= 2


async def test_who_waits_too_often_is_refused_and_a_cancelled_turn_is_given_on() -> None:
    gate = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    pages = Pages(slow)
    made = limits.PAGES_AT_ONCE + limits.PAGES_WAITING
    visits = [asyncio.ensure_future(visit(pages, pieces=[b""])) for _ in range(made + 1)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert visits[-1].done() and visits[-1].result()[0]["status"] == 503
    for one in visits[: limits.PAGES_AT_ONCE + 1]:
        one.cancel()
    gate.set()
    left = await asyncio.gather(*visits, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in left) == limits.PAGES_AT_ONCE + 1
    assert all(one[0]["status"] == 200 for one in left[limits.PAGES_AT_ONCE + 1 : -1])  # type: ignore[index]
    assert (await visit(pages))[0]["status"] == 200


async def test_a_slow_reader_keeps_no_turn() -> None:
    gate = asyncio.Event()
    pages = Pages(echo)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def never_reads(message: Any) -> None:
        await gate.wait()

    scope = {"type": "http", "path": "/usage/export.csv", "method": "GET", "headers": [], "client": ("192.0.2.1", 1)}
    readers = [asyncio.ensure_future(pages(scope, receive, never_reads)) for _ in range(limits.PAGES_AT_ONCE)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert (await visit(pages))[0]["status"] == 200
    gate.set()
    await asyncio.gather(*readers)


def test_servers_that_receive_a_body_first_know_its_limit(settings: Any) -> None:
    assert most_body("POST", "/healthz") == 0
    assert most_body("POST", "/accounts/login/") == limits.PAGE_BYTES
    for path in ("/v1/files", "/v1/none", "/chat/completions", "/openai/deployments/a/chat/completions"):
        assert most_body("POST", path) > settings.CONFIG.max_body_bytes


async def test_a_page_that_hangs_leaves_its_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that does not answer, say, which nothing can interrupt."""
    go = asyncio.Event()

    async def page(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/hanging/":
            await go.wait()
        await echo(scope, receive, send)

    monkeypatch.setattr(limits, "PAGE_TURN_SECONDS", 0.05)
    pages = Pages(page, yes)
    hanging = [asyncio.ensure_future(visit(pages, "/hanging/")) for _ in range(limits.PAGES_AT_ONCE)]
    assert (await visit(pages))[0]["status"] == 200
    go.set()
    await asyncio.gather(*hanging)
    assert pages._turns._free == limits.PAGES_AT_ONCE
