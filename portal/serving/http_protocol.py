"""uvicorn's protocol classes, with limits on what a client may send and how long it may take.

uvicorn has none with httptools: headers of any size, any number of requests behind each other, no time for any of it
(its `h11_max_incomplete_event_size` is for its other parser, which takes several times the CPU).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

import httptools
import websockets.http11
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from portal import limits
from portal.doctor.deployment import question
from portal.serving.connections import (
    CROWDED,
    INVALID,
    LARGE_HEAD,
    LONG_URL,
    PIPELINED,
    SLOW,
    SMALL_PIECES,
    TOO_LARGE,
    Connections,
    Phase,
    ReadPace,
    connections,
    is_late,
    largest_body,
)
from portal.serving.http.cycle import Cycle, Signal, without_chunks
from portal.serving.page_body import page_body
from relay.api.paths import relay_path
from relay.gateway.replies import RESPONSE

_PER_PIECE: Final = 16  # bytes that frame a chunk
_EXTENSIONS: Final[dict[str, dict[object, object]]] = {RESPONSE: {}}  # of ASGI, for clients that understand chunks
# Looked up for every request: names of this module cost a third of a member of an enum or of another module.
_NEW, _BODY, _ANSWER, _KEPT = Phase.NEW, Phase.BODY, Phase.ANSWER, Phase.KEPT
_HEADER_BYTES, _HEADER_FIELDS, _URL_BYTES = limits.HEADER_BYTES, limits.HEADER_FIELDS, limits.URL_BYTES
_BODY_PIECES, _BYTES_PER_PIECE = limits.BODY_PIECES, limits.BYTES_PER_PIECE
# What has been taken as a head, websockets take, too: their limit of a line is shorter than cookies may be.
websockets.http11.MAX_LINE_LENGTH = limits.HEADER_BYTES
_STEP_BYTES: Final = 4 * limits.KIB  # of a websocket that are looked at before its frames are counted again


class _Refused(Exception):
    """Ends the parsing of what a client sends."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with limits, and without chunked coding for clients of HTTP/1.0.

    Those read a body until the connection closes: RFC 9112, 6.1, forbids chunks for them. nginx speaks HTTP/1.0 to the
    servers behind it unless told otherwise.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._table: Connections = connections()
        self._largest_body = largest_body()  # looked up once: Django's lazy settings cost microseconds
        self._most_body = 0  # of the request, as its route takes it
        self._state = _NEW
        self._since = 0.0  # when that began, by the table's clock
        self._room = limits.HEADER_BYTES  # bytes that may still come for the head, and beside the body
        self._received = 0  # bytes of the body
        self._pieces = 0  # in which more of it may come
        self._why = b""  # the answer with which the request is refused
        self._pace = ReadPace()
        self._refused = False
        self._active: RequestResponseCycle | None = None  # the request that is being answered, or was last
        self._leaving = False  # the server stops

    @property
    def peer(self) -> str:
        return self.client[0] if self.client else ""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        room = self._table.opened(self, self.peer)
        self._since = self._table.now
        if not room:
            self._refused = True
            transport.write(CROWDED)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.closed(self, self.peer)
        super().connection_lost(exc)

    # -- what the client sends ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._room -= len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._why = self._why or INVALID
            self.give_up()
            return
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            return
        if self._room < 0:
            self._why = LARGE_HEAD
            self.give_up()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= _HEADER_FIELDS:
            self._why = LARGE_HEAD
            raise _Refused
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if len(self.url) > _URL_BYTES:
            self._why = LONG_URL
            raise _Refused
        if self._room < 0 and sum(len(name) + len(value) + 4 for name, value in self.headers) > limits.HEADER_BYTES:
            self._why = LARGE_HEAD  # it all came at once, or else a body came with it
            raise _Refused
        if self.pipeline and len(self.pipeline) >= limits.PIPELINED_REQUESTS:
            self._why = PIPELINED
            raise _Refused
        self._state, self._since, self._received, self._pieces = _BODY, self._table.now, 0, _BODY_PIECES
        self._begin()
        path = self.scope.get("path", "")  # none if it becomes a websocket
        asked = path == question.PATH and question.purpose_of(self.scope["query_string"])
        if path.startswith("/v1/") or relay_path(path) is not None or asked:
            self._most_body = self._largest_body
            self._table.busy(self)  # it is answered as soon as its token is known not to be valid
        else:
            # What is too large for the page, portal.serving.page_body refuses first, and says why.
            most = page_body(self.scope["method"], path)
            self._most_body = most + (limits.MIB if most else limits.UNCOUNTED_BYTES)

    def _begin(self) -> None:
        """As uvicorn's `on_headers_complete`, without its limit of requests at once."""
        parser, scope, existing = self.parser, self.scope, self.cycle
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        if parser.should_upgrade() and self._should_upgrade():
            return
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = url.path, url.query or b""
        if version != "1.0":
            scope["extensions"] = _EXTENSIONS
        self.cycle = Cycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,  # there is no log of requests by uvicorn
            self.server_state.default_headers,
            Signal(),  # type: ignore[arg-type]  # as much of an event as is used
            self.expect_100_continue,
            version != "1.0" and parser.should_keep_alive() and not self._leaving,
            self.on_response_complete,
        )
        if existing is None or existing.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._room += size + _PER_PIECE
        self._received += size
        self._pieces += size // _BYTES_PER_PIECE - 1
        if self._received > self._most_body or self._pieces < 0:
            self._why = SMALL_PIECES if self._pieces < 0 else TOO_LARGE
            raise _Refused
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._room = _HEADER_BYTES
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._state, self._since = _KEPT, self._table.now
        else:
            self._state = _ANSWER
            if self._most_body != self._largest_body:  # otherwise it is busy already
                self._table.busy(self)

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for each response: `overdue` closes connections that stay idle."""
        self.server_state.total_requests += 1
        waiting = bool(self.pipeline)
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if waiting:
                cycle, app = self.pipeline.pop()
                self._start_asgi_task(cycle, app)
        if waiting:
            return
        if self._state is _ANSWER:  # otherwise the rest of the body is still to come
            self._state, self._since = _KEPT, self._table.now
        self._table.idle(self)
        if self._leaving:
            self._linger()

    # -- the end of the server ---------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server stops. What is being answered is answered; the last answer says `connection: close`.

        Whoever was told that the connection is kept may have sent the next request already, and would see a reset.
        """
        self._leaving = True
        if self.cycle is None or self.cycle.response_complete:
            self._linger()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _linger(self) -> None:
        """Close an idle connection when its client has had time to send what it was about to send."""
        if self._table.now - self._since > limits.LEAVE_SECONDS + 1:  # a second: the table's clock is coarse
            self._leave()
        else:
            self.loop.call_later(limits.LEAVE_SECONDS, self._leave, self._active)

    def _leave(self, last: RequestResponseCycle | None = None) -> None:
        if self.transport.is_closing() or self._state not in (_NEW, _KEPT) or (last and self._active is not last):
            return  # it was told meanwhile that its connection ends
        if self._room < _HEADER_BYTES:  # half of a head is there
            self.loop.call_later(limits.LEAVE_SECONDS, self._leave, last)
        else:
            self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        self._table.closed(self, self.peer)  # the websocket's protocol counts it
        super().handle_websocket_upgrade()

    # -- time --------------------------------------------------------------------------------------------------------

    def resume_writing(self) -> None:
        self._pace.resumed()
        super().resume_writing()

    def overdue(self, now: float) -> bool:
        if self._state is _BODY and self.flow.read_paused:  # it waits for the portal
            self._since = max(self._since, now - limits.BODY_SECONDS)
        seconds = now - self._since
        unused = self._state is _KEPT and self._room == _HEADER_BYTES and seconds > limits.KEEP_ALIVE_SECONDS
        if unused or is_late(self._state, seconds, self._received):
            self._why = SLOW
            return True
        if self.flow.write_paused or self.transport.is_closing():
            return self._pace.too_slow(self.transport.get_write_buffer_size(), now)
        return False

    def give_up(self) -> None:
        """Close the connection, after the answer that says why if none has been begun."""
        self._refused = True
        transport, cycle = self.transport, self.cycle
        done = cycle is None or cycle.response_complete
        if self._state is _NEW and self._room == limits.HEADER_BYTES:
            transport.close()  # nothing has come
        elif transport.get_write_buffer_size():
            transport.abort()
        elif (done and self._state is not _BODY) or (not done and self._state is _BODY and not self._answering()):
            if self._state is not _KEPT or self._why not in (b"", SLOW):  # an idle one is told nothing
                transport.write(self._why or CROWDED)
            transport.close()
        elif done:
            transport.close()
        else:
            transport.abort()
        if self._active is not None:  # the application is told now: uvloop raises when it writes to what is closed
            self._active.disconnected = True
            self._active.message_event.set()

    def _answering(self) -> bool:
        """Whether an answer has been begun, or an earlier request waits for its own."""
        return self.cycle.response_started or bool(self.pipeline)

    # -- HTTP/1.0 ----------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        unframed = cycle.scope["http_version"] == "1.0"
        task = self.loop.create_task(cycle.run_asgi(without_chunks(cycle, app) if unframed else app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's websockets with limits. Their pings find clients that are gone, and WEBSOCKET_BYTES limits messages."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._table: Connections = connections()
        self._pace = ReadPace()
        self._head = True  # what comes next is the handshake
        self._early = limits.WEBSOCKET_EARLY_BYTES  # that may come before it has been answered
        self._second = -1.0  # by the table's clock, in which frames are counted
        self._frames = 0  # that may still come in it

    @property
    def peer(self) -> str:
        return self.client[0] if self.client else ""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._table.opened(self, self.peer):
            self._table.busy(self)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.closed(self, self.peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.handshake_complete and not self._head:
            self._early -= len(data)
            if self._early < 0:
                self.transport.abort()
                return
        if self._second != self._table.now:
            self._second, self._frames = self._table.now, limits.WEBSOCKET_FRAMES
        if self._head:
            self._head = False
            self._frames += 1  # the request itself
            super().data_received(data)  # whole: it was checked as the head of a request
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                # uvicorn would leave it without an answer.
                self.transport.write(b"".join(self.conn.data_to_send()) or INVALID)
                self.transport.close()
            return
        for start in range(0, len(data), _STEP_BYTES):
            if self.transport.is_closing():
                return
            piece = data[start : start + _STEP_BYTES]
            self._frames += len(piece) // _BYTES_PER_PIECE
            super().data_received(piece)

    def handle_events(self) -> None:
        """Handle the frames that have been read, unless they are far more than their bytes need."""
        self._frames -= len(self.conn.events)
        if self._frames >= 0:
            super().handle_events()
        elif self.handshake_complete and not self.close_sent:
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many frames in a second: send larger ones")
            self.handle_parser_exception()
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """The server stops. A realtime session ends by itself, when what it is answering has ended."""
        if self._is_session() and not self.close_sent:
            return
        super().shutdown()

    def _is_session(self) -> bool:
        scope = getattr(self, "scope", None)  # none before the handshake has been read
        return scope is not None and relay_path(scope["path"]) == "/v1/realtime"

    def handle_ping(self) -> None:
        """Answer a ping, unless the client does not read its answers."""
        output = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(output))

    def resume_writing(self) -> None:
        self._pace.resumed()
        super().resume_writing()

    def overdue(self, now: float) -> bool:
        if self.writable.is_set() and not self.transport.is_closing():
            return False
        return self._pace.too_slow(self.transport.get_write_buffer_size(), now)

    def give_up(self) -> None:
        self.transport.abort()
