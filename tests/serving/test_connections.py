"""Connections of clients: what is refused before the application, and when a connection is given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from portal import limits
from portal.serving import http_protocol
from portal.serving.connections import Connections, ReadPace
from portal.serving.http_protocol import HttpProtocol, WebSocketProtocol


class Wire(asyncio.Transport):
    """A connection to nobody, which remembers what was written to it."""

    def __init__(self, peer: str) -> None:
        super().__init__({"peername": (peer, 1), "sockname": ("127.0.0.1", 80)})
        self.sent, self.unsent, self.ended, self.paused = b"", 0, "", False
        self.protocol: Any = None  # that has taken it over

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


Connect = Callable[..., tuple[HttpProtocol, Wire]]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Connections:
    table = Connections(most=6, per_address=4)
    monkeypatch.setattr(http_protocol, "connections", lambda: table)
    return table


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(end())
    loop.close()


@pytest.fixture
def connect(table: Connections, loop: asyncio.AbstractEventLoop) -> Connect:
    """Makes connections. Their application takes the whole body, and answers `ok` when it is told to."""
    config = uvicorn.Config(_application, log_config=None, ws=WebSocketProtocol)
    config.load()
    state = ServerState()

    def connect(peer: str = "192.0.2.1") -> tuple[HttpProtocol, Wire]:
        async def make() -> tuple[HttpProtocol, Wire]:
            protocol, wire = HttpProtocol(config, state, {}, asyncio.get_running_loop()), Wire(peer)
            protocol.connection_made(wire)
            return protocol, wire

        return loop.run_until_complete(make())

    return connect


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/accepts":
        await send({"type": "websocket.accept"})
    if scope["path"] == "/hangs" or scope["type"] == "websocket":
        with contextlib.suppress(asyncio.CancelledError):  # uvicorn would log it
            await asyncio.Event().wait()
        return
    if scope["path"] == "/stream":  # answers while it reads
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive()).get("more_body"):
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})
        return
    if not scope["path"].endswith("/at-once"):
        while (message := await receive()).get("more_body"):
            continue
        if message["type"] == "http.disconnect":
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def feed(loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """Gives bytes to a connection as the network does, and lets the application go on."""

    def feed(protocol: HttpProtocol, *pieces: bytes) -> None:
        async def run() -> None:
            for piece in pieces:
                protocol.data_received(piece)
            for _ in range(10):
                await asyncio.sleep(0)

        loop.run_until_complete(run())

    return feed


GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n"], 431),  # in one piece
        ([b"GET / HTTP/1.1\r\n", *[b"x: y\r\n"] * 200], 431),  # without an end
        ([b"GET / HTTP/1.1\r\nx: ", *[b"y" * 4096] * 20], 431),  # one field without an end
        ([b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"], 431),
        ([b"GET /", *[b"y" * 4096] * 20], 431),
        ([b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\n\r\n"], 414),
        ([b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;", *[b"x" * 4096] * 20], 431),  # of a chunk
        ([b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", *[b"x: y\r\n"] * 200], 431),  # trailers
        ([b"\x16\x03\x01\x02\x00\x01"], 400),
    ],
)  # fmt: skip
def test_heads_are_limited_before_the_application_is_asked(
    connect: Connect, feed: Callable[..., None], pieces: list[bytes], status: int
) -> None:
    protocol, wire = connect()
    feed(protocol, *pieces)
    assert wire.sent.startswith(b"HTTP/1.1 %d " % status) and wire.ended == "closed"
    assert b'"error":{"message":' in wire.sent and wire.sent.count(b"HTTP/1.1") == 1
    feed(protocol, GET)  # what still comes is not looked at
    assert wire.sent.count(b"HTTP/1.1") == 1


def test_ordinary_requests_pass_however_they_are_cut(connect: Connect, feed: Callable[..., None]) -> None:
    protocol, wire = connect()
    feed(protocol, *[bytes([byte]) for byte in GET])
    body = b"b" * 300_000
    feed(protocol, b"POST / HTTP/1.1\r\ncontent-length: 300000\r\n\r\n" + body)
    chunks = [b"1\r\nb\r\n"] * 900 + [b"40\r\n%b\r\n" % (b"b" * 64)] * 5_000
    feed(protocol, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")
    feed(protocol, b"POST / HTTP/1.1\r\ncontent-length: 900\r\n\r\n", *[b"b"] * 900)
    feed(protocol, b"GET / HTTP/1.1\r\nx: " + b"y" * 60_000 + b"\r\n\r\n" + GET * 10)
    assert wire.sent.count(b"HTTP/1.1 200 ") == 15 and not wire.ended


@pytest.mark.parametrize("path", [b"/accounts/login/", b"/v1/chat/completions"])
@pytest.mark.parametrize(
    ("framing", "piece"),
    [
        (b"transfer-encoding: chunked", b"1\r\nb\r\n"),
        (b"transfer-encoding: chunked", b"3f;x=y\r\n%b\r\n" % (b"b" * 63)),
        (b"content-length: 100000", b"b"),  # as it is read
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_body_has_no_more_pieces_than_its_size_needs(
    connect: Connect, feed: Callable[..., None], path: bytes, framing: bytes, piece: bytes, at_once: bool
) -> None:
    pieces = [piece] * (limits.BODY_PIECES + 1)
    if at_once and framing.startswith(b"transfer"):
        pieces = [b"".join(pieces)]
    protocol, wire = connect()
    feed(protocol, b"POST %b HTTP/1.1\r\n%b\r\n\r\n" % (path, framing), *pieces)
    assert wire.sent.startswith(b"HTTP/1.1 400 ") and b'"chunks_too_small"' in wire.sent and wire.ended == "closed"


def test_pages_without_a_body_take_next_to_none(connect: Connect, feed: Callable[..., None]) -> None:
    for request in (b"GET /", b"HEAD /balance/", b"POST /healthz"):
        protocol, wire = connect()
        feed(protocol, request + b" HTTP/1.1\r\ncontent-length: 9999999\r\n\r\n", *[b"b" * 16_384] * 5)
        assert wire.sent.startswith(b"HTTP/1.1 413 ") and wire.ended == "closed"


def test_requests_behind_each_other_are_limited(connect: Connect, feed: Callable[..., None]) -> None:
    protocol, wire = connect()
    feed(protocol, b"GET /hangs HTTP/1.1\r\n\r\n" + GET * 10_000)
    assert wire.ended == "aborted" and len(protocol.pipeline) <= limits.PIPELINED_REQUESTS


def test_a_body_without_end_is_ended(
    connect: Connect, feed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "largest_body", lambda: 100_000)
    protocol, wire = connect()
    head = b"POST %b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    feed(protocol, head % b"/v1/files", *[b"fff\r\n" + b"x" * 0xFFF + b"\r\n"] * 30)
    assert wire.sent.startswith(b"HTTP/1.1 413 ") and wire.ended == "closed"
    protocol, wire = connect()
    feed(protocol, head % b"/v1/at-once")
    feed(protocol, *[b"fff\r\n" + b"x" * 0xFFF + b"\r\n"] * 30)
    assert wire.sent.startswith(b"HTTP/1.1 200 ") and wire.sent.count(b"HTTP/1.1") == 1 and wire.ended == "closed"


@pytest.mark.parametrize(
    ("pieces", "seconds", "end", "answer"),
    [
        ([], limits.HEAD_SECONDS, "closed", b""),
        ([b"GET / HT"], limits.HEAD_SECONDS, "closed", b"HTTP/1.1 408 "),
        ([GET, b"\r\n"], limits.KEEP_ALIVE_SECONDS + limits.HEAD_SECONDS, "closed", b"HTTP/1.1 200 "),
        ([b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n1"], limits.BODY_SECONDS, "closed", b"HTTP/1.1 408 "),
        ([b"POST /at-once HTTP/1.1\r\ncontent-length: 9\r\n\r\n1"], limits.BODY_SECONDS, "closed", b"HTTP/1.1 200 "),
        ([b"GET /hangs HTTP/1.1\r\n\r\n"], 10**6, "", b""),
    ],
)
def test_time_without_a_whole_request(
    table: Connections, connect: Connect, feed: Callable[..., None], pieces: list[bytes], seconds: int, end: str,
    answer: bytes,
) -> None:  # fmt: skip
    protocol, wire = connect()
    feed(protocol, *pieces)
    began = table.now
    table.check(began + seconds)
    assert not wire.ended
    table.check(began + seconds + 1)
    assert wire.ended == end and wire.sent.startswith(answer) and wire.sent.count(b"HTTP/1.1") == bool(answer)


def test_a_slow_body_may_go_on_while_it_comes(table: Connections, connect: Connect, feed: Callable[..., None]) -> None:
    protocol, wire = connect()
    began = table.now
    feed(protocol, b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
    for second in range(0, 60, 10):
        feed(protocol, b"x" * 10 * limits.BODY_BYTES_PER_SECOND)
        table.check(began + second)
    assert not wire.ended
    protocol.flow.pause_reading()  # the portal does not read
    table.check(began + 1000)
    assert not wire.ended


def test_a_client_that_does_not_read_is_left() -> None:
    pace = ReadPace()
    assert not any(pace.too_slow(10**6, now) for now in range(1, limits.READ_SECONDS + 2))
    assert pace.too_slow(10**6 - 1000, limits.READ_SECONDS + 2)
    pace = ReadPace()
    rate = 2 * limits.READ_BYTES // limits.READ_SECONDS
    assert not any(pace.too_slow(10**6 - rate * now, now) for now in range(1, 400))
    assert not pace.too_slow(0, 10**6)


def test_idle_connections_make_room_and_busy_ones_do_not(
    table: Connections, connect: Connect, feed: Callable[..., None]
) -> None:
    idle = [connect() for _ in range(4)]
    _, wire = connect()  # the fifth of one address
    assert idle[0][1].ended and not wire.ended and not any(other.ended for _, other in idle[1:])
    for peer in ("192.0.2.2", "192.0.2.3", "192.0.2.4"):  # more than all together may be: of whom has the most
        assert not connect(peer)[1].ended
    assert idle[1][1].ended and not idle[2][1].ended and len(table) == 6
    table.per_address = 1
    busy, wire = connect("192.0.2.9")
    feed(busy, b"GET /hangs HTTP/1.1\r\n\r\n")
    _, refused = connect("192.0.2.9")
    assert refused.sent.startswith(b"HTTP/1.1 503 ") and b"retry-after" in refused.sent and not wire.ended
    busy.connection_lost(None)
    assert not connect("192.0.2.9")[1].ended


def test_a_proxy_has_no_limit_of_its_own(connect: Connect, table: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    from portal.lib.net import parse_networks

    monkeypatch.setattr(table, "_trusted", parse_networks(["192.0.2.1"]))
    assert not any(wire.ended for _, wire in [connect() for _ in range(6)])


# -- websockets ------------------------------------------------------------------------------------------------------

_UPGRADE = (
    b"GET %b HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PING = b"\x89\x80\0\0\0\0"
_PART = b"\x00\x80\0\0\0\0"  # of a message
_POLICY = b"\x03\xf0"  # 1008


@pytest.fixture
def open_websocket(connect: Connect, feed: Callable[..., None]) -> Callable[[bytes], tuple[Any, Wire]]:
    def open_websocket(path: bytes) -> tuple[Any, Wire]:
        protocol, wire = connect()
        feed(protocol, _UPGRADE % path)
        assert wire.protocol is not None
        return wire.protocol, wire

    return open_websocket


def test_nothing_is_read_of_a_websocket_before_it_is_accepted(
    open_websocket: Callable[[bytes], tuple[Any, Wire]], feed: Callable[..., None]
) -> None:
    protocol, wire = open_websocket(b"/undecided")
    feed(protocol, _PING * 10_000)
    assert wire.ended == "aborted" and not protocol.conn.events


@pytest.mark.parametrize("frame", [_PING, _PART])
def test_frames_of_a_websocket_are_limited(
    open_websocket: Callable[[bytes], tuple[Any, Wire]], feed: Callable[..., None], frame: bytes, table: Connections
) -> None:
    protocol, wire = open_websocket(b"/accepts")
    start = b"\x01\x80\0\0\0\0" if frame is _PART else b""
    feed(protocol, start, *[frame] * (limits.WEBSOCKET_FRAMES - 1))
    table.check(table.now + 1)  # another second
    feed(protocol, frame * limits.WEBSOCKET_FRAMES)
    assert _POLICY not in wire.sent
    large = (b"\x00" if frame is _PART else b"\x82") + b"\xfe" + (16_384).to_bytes(2) + bytes(4 + 16_384)
    feed(protocol, large, frame * 200, frame * 100_000)
    assert wire.ended and _POLICY in wire.sent
    assert len(protocol.frames) <= 2 * limits.WEBSOCKET_FRAMES + 201


BEGUN = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"  # a request that is answered when its body is there
LAST = b"connection: close\r\n"


@pytest.mark.parametrize("before", [b"", GET, GET[:10], GET + GET[:10]])
def test_what_is_on_its_way_when_the_server_stops_is_answered_and_told_that_it_was_the_last(
    connect: Connect, feed: Callable[..., None], before: bytes
) -> None:
    protocol, wire = connect()
    feed(protocol, before)
    protocol.shutdown()
    assert wire.ended == ""
    feed(protocol, (GET + GET).removeprefix(before) or GET)
    assert wire.ended == "closed" and wire.sent.count(LAST) == 1 and wire.sent.endswith(LAST + b"\r\nok")


def test_an_answer_that_has_not_begun_when_the_server_stops_is_the_last(
    connect: Connect, feed: Callable[..., None]
) -> None:
    protocol, wire = connect()
    feed(protocol, BEGUN)
    protocol.shutdown()
    feed(protocol, b"ok")
    assert wire.ended == "closed" and wire.sent.endswith(LAST + b"\r\nok")


def test_an_answer_that_has_begun_when_the_server_stops_is_followed_by_the_last(
    connect: Connect, feed: Callable[..., None]
) -> None:
    protocol, wire = connect()
    feed(protocol, BEGUN.replace(b"/ ", b"/stream "), b"o")
    protocol.shutdown()
    feed(protocol, b"k")
    assert wire.sent.endswith(b"end\r\n0\r\n\r\n") and LAST not in wire.sent and wire.ended == ""
    feed(protocol, GET)
    assert wire.ended == "closed" and wire.sent.endswith(LAST + b"\r\nok")


@pytest.mark.parametrize("before", [b"", GET])
def test_an_idle_connection_is_closed_when_the_server_stops(
    connect: Connect,
    feed: Callable[..., None],
    table: Connections,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    before: bytes,
) -> None:
    protocol, wire = connect()
    feed(protocol, before)
    sent = wire.sent
    monkeypatch.setattr(limits, "LEAVE_SECONDS", 0.0)
    protocol.shutdown()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert wire.ended == "closed" and wire.sent == sent
    protocol, wire = connect()
    feed(protocol, before)
    table.now += 60
    protocol.shutdown()  # nothing has come for long
    assert wire.ended == "closed"
