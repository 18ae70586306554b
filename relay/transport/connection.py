"""Requests on the connections of aiohttp's pool without its session: bytes out, an answer parsed by llhttp in.

aiohttp's session makes some twenty objects for a request and handles each chunk of a body by itself, which was a third
of what a plain request cost and most of a stream. Its connector stays: it resolves names behind the guard, connects,
does TLS, and keeps connections.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
import httptools
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from relay.transport.body import Fields, UpstreamStream, is_framed

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey

HEADER_BYTES: Final = 128 * 1024  # of one header. aiohttp's 8,190 are less than large policies and cookies have.
HEADER_FIELDS: Final = 1024  # of an answer. aiohttp's 128 are less than proxies in a row add up to.
_HEAD_BYTES: Final = 1024 * 1024  # of all headers
_MOST_WAITING: Final = 128 * 1024  # bytes of a body that are not read, from which the upstream has to wait
_NO_BODY: Final = frozenset((204, 304))
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # with which a header would be another one
# Headers that are about the body or the connection, or that aiohttp adds to.
_SPECIAL: Final = frozenset(
    ("host", "connection", "content-length", "content-encoding", "transfer-encoding", "expect", "upgrade", "te")
)
_NEEDED: Final = frozenset(("content-type", "accept-encoding", "user-agent"))  # else aiohttp adds its own


class BadAnswer(aiohttp.ClientError):
    """What an upstream sent is no answer of HTTP/1.1."""


class DirectStream(UpstreamStream):
    """The answer to one request on a connection: its status and headers, then its body."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection: Connection | None = connection
        self._loop = loop
        self._pieces: list[bytes] = []  # of the body, which have not been read
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.size = 0  # bytes of the pieces
        self.status = 0  # 0: the headers are not complete
        self.fields: Fields = ()
        self.ended = False  # the body is complete, read or not
        self.error: Exception | None = None

    # -- for the connection ------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has come for whoever waits."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def add(self, data: bytes) -> None:
        """Some of the body has come."""
        self._pieces.append(data)
        self.size += len(data)

    def complete(self) -> None:
        """The body is complete: others can use the connection."""
        self.ended = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def fail(self, error: Exception) -> None:
        """There will be no more of the answer, which is not complete."""
        if self.error is None:
            self.error = error
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self.wake()

    # -- for the request ---------------------------------------------------------------------------------------------

    async def head(self) -> None:
        """Wait for the headers. Raises aiohttp.ClientError, OSError."""
        while not self.status:
            if self.error is not None:
                raise self.error
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    async def read(self) -> bytes:
        pieces = self._pieces
        while not pieces:
            if self.error is not None:
                raise httpx.ReadError(str(self.error)) from self.error
            if self.ended:
                return b""
            if self._closed:
                raise httpx.ReadError("the answer has been closed")
            await self._wait()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self.size > _MOST_WAITING and self._connection is not None:
            protocol = self._connection.protocol
            if isinstance(protocol, UpstreamConnection):
                protocol.go_on()
        self.size = 0
        return data

    def at_end(self) -> bool:
        return self.ended and not self._pieces

    def close(self) -> None:
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:  # the rest of the body is still to come
            if isinstance(connection.protocol, UpstreamConnection):
                connection.protocol.forget()
            connection.close()


class UpstreamConnection(ResponseHandler):
    """A connection of the pool, for aiohttp's session as well as for requests without it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._answer: DirectStream | None = None  # to the request that has been sent
        self._direct = False  # the last request was one without the session
        self._http: httptools.HttpResponseParser | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_room = 0  # bytes that may still come before the headers are complete
        self._body: list[bytes] = []  # pieces of a body that have come in one read
        self.on_body = self._body.append  # as many as a stream has chunks, so it is no method of Python
        self._held_up = False  # the upstream waits until the body is read

    def request(self, answer: DirectStream, data: bytes) -> None:
        """Send a request, to which `answer` is the answer. Raises aiohttp.ClientConnectionResetError."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        self._direct, self._parser = True, None
        if self._http is None:
            self._http = httptools.HttpResponseParser(self)
            # As aiohttp: servers send headers and chunks that are not quite in order.
            self._http.set_dangerous_leniencies(
                lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
            )
        self._answer, self._head_room = answer, _HEAD_BYTES
        transport.write(data)

    def forget(self) -> None:
        """The answer is not read any further; the connection is closed now."""
        self._answer = None

    def go_on(self) -> None:
        """The body has been read: the upstream can send more."""
        if self._held_up:
            self._held_up = False
            self._resume_transport_reading()

    # -- what the upstream sends -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            if self._direct:
                self._stray()
            else:
                super().data_received(data)
            return
        parser = self._http
        if parser is None:
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._pass_on(answer)
            self._break(answer, BadAnswer(f"the answer is no HTTP/1.1: {error or type(error).__name__}"))
            return
        if self._body:
            self._pass_on(answer)
            if answer.size > _MOST_WAITING and not answer.ended and not self._held_up:
                self._held_up = True
                self._pause_transport_reading()
        elif not answer.status:
            self._head_room -= len(data)
            if self._head_room < 0:
                self._break(answer, BadAnswer(f"the headers have more than {_HEAD_BYTES} bytes"))
            return
        answer.wake()

    def _pass_on(self, answer: DirectStream) -> None:
        """Let what has come of the body be read."""
        pieces = self._body
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            answer.add(data)

    def on_message_begin(self) -> None:
        if self._answer is None:
            raise BadAnswer("more than one answer to a request")
        self._fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._fields) >= HEADER_FIELDS or len(value) > HEADER_BYTES:
            raise BadAnswer("too many headers, or too long ones")
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._http
        if answer is not None and parser is not None:
            status = parser.get_status_code()
            if status >= 200:
                answer.fields, answer.status = self._fields, status
                self._fields = []  # takes what follows the body

    def on_message_complete(self) -> None:
        answer, parser = self._answer, self._http
        if answer is None or parser is None or not answer.status:  # an answer before the answer, such as 103
            return
        self._answer = None
        if not parser.should_keep_alive():
            self.force_close()
        self.go_on()
        answer.complete()

    def connection_lost(self, exc: BaseException | None) -> None:
        answer, self._answer, self._http = self._answer, None, None
        super().connection_lost(exc)
        if answer is None:
            return
        if exc is None and answer.status and (not is_framed(answer.fields) or answer.status in _NO_BODY):
            answer.complete()  # the end of the connection is that of the body
            answer.wake()
        elif answer.status:
            answer.fail(aiohttp.ClientPayloadError(f"Response payload is not completed{f': {exc}' if exc else ''}"))
        elif self._head_room < _HEAD_BYTES:
            answer.fail(BadAnswer("the answer ended within its headers"))
        elif exc is None:
            answer.fail(aiohttp.ServerDisconnectedError())
        else:
            answer.fail(exc if isinstance(exc, OSError) else aiohttp.ClientConnectionError(str(exc)))

    def _break(self, answer: DirectStream, error: Exception) -> None:
        self.forget()
        if answer.ended:  # what is wrong came after it
            self._stray()
            answer.wake()
        else:
            self.force_close()
            answer.fail(error)

    def _stray(self) -> None:
        """Bytes came that nobody asked for: the next request must not take them for its answer."""
        self.force_close()
        if self.transport is not None:
            self.transport.close()

    # -- for the session ---------------------------------------------------------------------------------------------

    def set_response_params(self, **options: Any) -> None:
        self._direct = False
        super().set_response_params(**options)


class Target(NamedTuple):
    """Where the requests to one address go."""

    request: aiohttp.ClientRequest  # by which the connector makes connections
    key: ConnectionKey
    path: str
    host: str


def target_of(address: str, loop: asyncio.AbstractEventLoop) -> Target | None:
    """What is to be known of an address; None: requests to it are the session's. Raises ValueError."""
    url = URL(address)
    if url.scheme not in {"http", "https"} or url.raw_user is not None or url.raw_password is not None:
        return None
    request = aiohttp.ClientRequest("POST", url, loop=loop)
    return Target(request, request.connection_key, request.url.raw_path_qs, request.headers["Host"])


def head_of(target: Target, headers: Iterable[tuple[str, str]]) -> bytes | None:
    """The head of a POST request up to the length of its body; None: it is the session's.

    Raises ValueError for a header that would be another one.
    """
    names = {name.lower() for name, _ in headers}
    if _NEEDED - names or names & _SPECIAL:
        return None
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.host}", *(f"{name}: {value}" for name, value in headers)]
    if "accept" not in names:
        lines.append("Accept: */*")
    if any(map(_CONTROLS.search, lines)):
        raise ValueError("a header has a control character in it")
    return "\r\n".join(lines).encode() + b"\r\nContent-Length: "
