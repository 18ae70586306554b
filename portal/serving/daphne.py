"""Daphne with the limits of `portal.serving.connections`: for development, and for `daphne portal.asgi:application`.

Daphne has no setting for them, so its factory of connections is replaced when Django starts. Unlike uvicorn's
protocol, Twisted answers to a head that is too large with an empty 400.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import daphne.http_protocol
import daphne.server
import daphne.ws_protocol
import twisted.web.http

from portal import limits
from portal.serving.connections import (
    CROWDED,
    LONG_URL,
    SLOW,
    SMALL_PIECES,
    TOO_LARGE,
    Connections,
    Phase,
    ReadPace,
    connections,
    is_late,
)
from portal.serving.page_body import most_body

# Parts of both have no types.
http: Any = twisted.web.http
http_protocol: Any = daphne.http_protocol
server: Any = daphne.server
ws_protocol: Any = daphne.ws_protocol
_POLICY_VIOLATION: Final = 1008
_UNREAD_BYTES: Final = 1 << 20  # of a websocket that wait for the client before the portal waits for it


class Channel(http.HTTPChannel):  # type: ignore[misc]
    """Twisted's HTTP/1.1 with limits."""

    MAX_LENGTH = totalHeadersSize = limits.HEADER_BYTES
    maxHeaders = limits.HEADER_FIELDS

    def __init__(self) -> None:
        super().__init__()
        self._table: Connections = connections()
        self._phase, self._since, self.received = Phase.NEW, 0.0, 0
        self.pieces = 0  # in which more of the body may come
        self._pace = ReadPace()
        self._refused = False
        self.readable = asyncio.Event()  # the client has read most of what it was sent
        self.readable.set()

    @property
    def peer(self) -> str:
        return str(getattr(self.transport.getPeer(), "host", ""))

    @property
    def most(self) -> int:
        """Bytes of body that the route takes whose head has been received."""
        return most_body(self._command.decode("latin-1"), self._path.partition(b"?")[0].decode("latin-1"))

    def connectionMade(self) -> None:
        super().connectionMade()
        room = self._table.opened(self, self.peer)
        self._since = self._table.now
        if not room:
            self.refuse(CROWDED)

    def connectionLost(self, reason: Any) -> None:
        self._table.closed(self, self.peer)
        self.readable.set()
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        self._phase, self._since, self.received = Phase.BODY, self._table.now, 0
        self.pieces = limits.BODY_PIECES
        if len(self._path) > limits.URL_BYTES:
            self.refuse(LONG_URL)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        if self._refused:
            return
        self._phase = Phase.ANSWER
        self._table.busy(self)
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        self._phase, self._since = Phase.KEPT, self._table.now
        self._table.idle(self)
        super().requestDone(request)

    def pauseProducing(self) -> None:
        self.readable.clear()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.readable.set()
        self._pace.resumed()
        super().resumeProducing()

    def refuse(self, answer: bytes) -> None:
        """Answer with an error and close the connection. What still comes is not looked at."""
        if not self._refused:
            self._refused = True
            self.transport.write(answer)
            self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if not self._refused:  # otherwise it has been answered
            super()._respondToBadRequestAndDisconnect()

    def overdue(self, now: float) -> bool:
        if not self.transport.connected:  # a websocket that took over the connection has ended
            self._table.closed(self, self.peer)
            return False
        if is_late(self._phase, now - self._since, self.received):
            return True
        return not self.readable.is_set() and self._pace.too_slow(_unread(self.transport), now)

    def give_up(self) -> None:
        if _unread(self.transport) or self._phase is Phase.ANSWER:
            self.transport.abortConnection()
        elif self._phase is Phase.KEPT:
            self.loseConnection()
        else:
            self.refuse(SLOW)


class Request(http_protocol.WebRequest):  # type: ignore[misc]
    """Daphne's request, whose body is written to memory or disk only as far as its route takes it."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > self.channel.most:
            self.channel.refuse(TOO_LARGE)

    def handleContentChunk(self, data: bytes) -> None:
        channel = self.channel
        channel.received += len(data)
        channel.pieces += len(data) // limits.BYTES_PER_PIECE - 1
        if channel.received > channel.most or channel.pieces < 0:
            channel.refuse(SMALL_PIECES if channel.pieces < 0 else TOO_LARGE)
            raise http._MalformedChunkedDataError("refused")  # ends the parsing of what came with it
        super().handleContentChunk(data)


class HttpFactory(http_protocol.HTTPFactory):  # type: ignore[misc]
    """Makes the connections of Daphne."""

    protocol = staticmethod(lambda: http._GenericHTTPChannelProtocol(Channel()))

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        server.websocket_max_message_size = server.websocket_max_frame_size = limits.WEBSOCKET_BYTES

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol


class WebSocketProtocol(ws_protocol.WebSocketProtocol):  # type: ignore[misc]
    """Daphne's websockets, of which no more frames are handled within a second than their bytes need."""

    def __init__(self) -> None:
        super().__init__()
        self._table: Connections = connections()
        self._second = 0.0  # by the table's clock, in which frames are counted
        self._frames = 0  # that may still come in it
        self._early = limits.WEBSOCKET_EARLY_BYTES  # that may come before it has been answered
        self._head = True  # what comes next is the handshake

    def dataReceived(self, data: bytes) -> None:
        if self.state == self.STATE_CONNECTING and not self._head:
            self._early -= len(data)
            if self._early < 0:
                self.dropConnection(abort=True)
                return
        self._head = False
        if self._second != self._table.now:
            self._second, self._frames = self._table.now, limits.WEBSOCKET_FRAMES
        self._frames += len(data) // limits.BYTES_PER_PIECE
        super().dataReceived(data)

    def onFrameBegin(self) -> None:
        self._frames -= 1
        if self._frames == -1:
            self.sendCloseFrame(_POLICY_VIOLATION, b"too many frames in a second: send larger ones")
            self.dropConnection()  # what has come already is not looked at
        super().onFrameBegin()


def _unread(transport: Any) -> int:
    """The bytes that wait for the client."""
    return len(getattr(transport, "dataBuffer", b"")) + int(getattr(transport, "_tempDataLen", 0))


async def _send(self: Any, protocol: Any, message: Any) -> None:
    """Daphne's `handle_reply`, which returns when the client has read: Daphne keeps all of it in memory otherwise."""
    channel = getattr(protocol, "channel", None)
    await _handle_reply(self, protocol, message)
    if isinstance(channel, Channel):
        await channel.readable.wait()
    elif channel is None:
        transport = getattr(protocol, "transport", None)
        # Twisted tells its producer when there is room, but that is Autobahn's own.
        while transport is not None and transport.connected and _unread(transport) > _UNREAD_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


_handle_reply: Final = server.Server.handle_reply


def limit_daphne() -> None:
    """Give Daphne the limits."""
    server.HTTPFactory = HttpFactory
    ws_protocol.WebSocketFactory.protocol = WebSocketProtocol
    server.Server.handle_reply = _send
