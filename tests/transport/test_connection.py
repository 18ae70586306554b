"""Requests on connections of the pool without aiohttp's session, against a server that sends what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from portal.lib.net import Allowance
from relay.transport.body import UpstreamStream, post, request_headers
from relay.transport.pool import Upstreams

Script = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
HEADERS = request_headers({"authorization": "Bearer sk-x"})


class Peer:
    """What a script's server has seen, and how to ask it."""

    def __init__(self, url: httpx.URL, upstreams: Upstreams) -> None:
        self.url, self.upstreams = url, upstreams
        self.connections = 0
        self.requests: list[bytes] = []

    async def ask(self, body: bytes | list[bytes] = b"{}", resend: bool = False) -> httpx.Response:
        request = post(self.url, HEADERS, body, 5, resend)
        return await self.upstreams.transport().handle_async_request(request)

    async def text(self) -> bytes:
        return await (await self.ask()).aread()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Peer]:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        writers.append(writer)
        number = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                peer.requests.append(head + await reader.readexactly(length))
                number += 1
                await script(writer, number)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = httpx.URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?y=1")
    peer = Peer(url, Upstreams(lambda: [Allowance.parse("127.0.0.1")], 8))
    try:
        yield peer
    finally:
        await peer.upstreams.close()
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


def sends(*pieces: bytes, close: bool = False) -> Script:
    async def script(writer: asyncio.StreamWriter, _: int) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # so that each is read by itself
        if close:
            writer.close()

    return script


WHOLE = OK + b"content-length: 6\r\n\r\n{1234}"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n3\r\n{12\r\n3;x=y\r\n34}\r\n0\r\nx-trailer: content-type\r\n\r\n"


@pytest.mark.parametrize(
    "script",
    [
        sends(WHOLE),
        sends(CHUNKED),
        sends(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + WHOLE),
        sends(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", CHUNKED),
        sends(*(WHOLE[at : at + 7] for at in range(0, len(WHOLE), 7))),
        sends(*(CHUNKED[at : at + 5] for at in range(0, len(CHUNKED), 5))),
    ],
)
async def test_an_answer_is_read_however_it_comes(script: Script) -> None:
    async with serving(script) as peer:
        for _ in range(2):
            answer = await peer.ask()
            assert (answer.status_code, await answer.aread()) == (200, b"{1234}")
            assert answer.headers["content-type"] == "application/json" and "link" not in answer.headers
        assert peer.connections == 1
    port = peer.url.port or 0
    assert peer.requests[0] == (
        b"POST /v1/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"content-type: application/json\r\naccept-encoding: identity\r\n"
        b"user-agent: airelays-portal\r\nauthorization: Bearer sk-x\r\nAccept: */*\r\nContent-Length: 2\r\n\r\n{}"
        % port
    )


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with serving(sends(OK + b"\r\n{1", b"234}", close=True)) as peer:
        assert await peer.text() == b"{1234}" and await peer.text() == b"{1234}"
        assert peer.connections == 2


@pytest.mark.parametrize(
    "answer",
    [WHOLE + b"more", WHOLE + OK + b"content-length: 9\r\n\r\nsmuggled!", WHOLE[:-1]],
)
async def test_what_comes_besides_an_answer_is_never_the_next_one(answer: bytes) -> None:
    """The connection is given up: the next request would take it for its own answer."""

    async def script(writer: asyncio.StreamWriter, _: int) -> None:
        if len(peer.requests) > 1:
            writer.write(WHOLE)
            return
        writer.write(answer)
        if answer == WHOLE[:-1]:
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"}unasked")

    async with serving(script) as peer:
        assert await peer.text() == b"{1234}"
        await asyncio.sleep(0.05)
        assert await peer.text() == b"{1234}"
        assert peer.connections == 2


async def test_bytes_on_an_idle_connection_close_it() -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(WHOLE)
        if number == 1:
            asyncio.get_running_loop().call_later(0.02, writer.write, OK + b"content-length: 3\r\n\r\nbad")

    async with serving(script) as peer:
        assert await peer.text() == b"{1234}"
        await asyncio.sleep(0.08)
        assert await peer.text() == b"{1234}" and peer.connections == 2


@pytest.mark.parametrize(
    "body", [b"content-length: 9\r\n\r\n{1234}", b"transfer-encoding: chunked\r\n\r\n6\r\n{1234}\r\n"]
)
async def test_an_answer_that_is_cut_is_read_up_to_there(body: bytes) -> None:
    async with serving(sends(OK + body, close=True)) as peer:
        answer = await peer.ask()
        stream = answer.stream
        assert isinstance(stream, UpstreamStream)
        assert await stream.read() == b"{1234}" and not stream.at_end()
        with pytest.raises(httpx.ReadError, match="not completed"):
            await stream.read()


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        OK + b"x: " + b"y" * (128 * 1024 + 1) + b"\r\ncontent-length: 0\r\n\r\n",
        OK + b"".join(b"x-%d: y\r\n" % number for number in range(1100)) + b"content-length: 0\r\n\r\n",
        OK + b"x: " + b"y" * (3 << 20),
    ],
)
async def test_no_answer_and_headers_without_end_are_errors(head: bytes) -> None:
    async with serving(sends(head)) as peer:
        with pytest.raises(httpx.ReadError):
            await peer.ask()


async def test_a_closed_connection_is_told_from_an_answer_that_broke_off() -> None:
    async with serving(sends(close=True)) as peer:
        with pytest.raises(httpx.ReadError, match="Server disconnected"):
            await peer.ask()
    async with serving(sends(OK, close=True)) as peer:
        with pytest.raises(httpx.ReadError, match="within its headers"):
            await peer.ask(resend=True)
        assert len(peer.requests) == 1  # it has begun to answer


async def test_the_upstream_waits_for_a_reader() -> None:
    sent = 0
    size = 64 << 20

    async def script(writer: asyncio.StreamWriter, _: int) -> None:
        nonlocal sent
        writer.write(OK + b"content-length: %d\r\n\r\n" % size)
        for _ in range(size // (1 << 20)):
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent += 1 << 20

    async with serving(script) as peer:
        stream = (await peer.ask()).stream
        assert isinstance(stream, UpstreamStream)
        await asyncio.sleep(0.2)
        assert sent < 32 << 20
        read = 0
        while data := await stream.read():
            read += len(data)
        assert read == size and stream.at_end()


async def test_requests_with_and_without_the_session_share_connections() -> None:
    async with serving(sends(WHOLE)) as peer:
        for body in (b"{}", [b"{", b"}"], b"{}", [b"{", b"}"], b"{}"):
            assert await (await peer.ask(body)).aread() == b"{1234}"
        assert peer.connections == 1 and all(request.endswith(b"\r\n\r\n{}") for request in peer.requests)


async def test_a_header_cannot_be_two() -> None:
    async with serving(sends(WHOLE)) as peer:
        headers = {**HEADERS, "x-name": "a\r\nx-other: b"}
        with pytest.raises(ValueError, match="control character"):
            await peer.upstreams.transport().handle_async_request(post(peer.url, headers, b"{}", 5))
        assert not peer.requests


async def test_an_answer_that_is_given_up_ends_its_connection() -> None:
    async with serving(sends(OK + b"content-length: 60\r\n\r\n{1234}")) as peer:
        answer = await peer.ask()
        await answer.aclose()
        waiting = asyncio.ensure_future(peer.ask())
        await asyncio.sleep(0.05)
        assert peer.connections == 2
        await (await waiting).aclose()
