"""One request and its response on uvicorn's connection, with a short way for what the relay answers.

uvicorn's own way looks at each header by itself, and writes head and body apart. It stays for pages, and for whatever
does not say otherwise.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from relay.gateway.replies import RESPONSE

_FIELD: Final = b": ".join
_VISIBLE: Final = bytes(byte for byte in range(256) if (byte >= 32 and byte != 127) or byte == 9)


class Signal:
    """An `asyncio.Event` in which nobody waits, nearly always: it has no queue until somebody does."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        if self._event is not None:
            self._event.set()

    def clear(self) -> None:
        self._set = False
        if self._event is not None:
            self._event.clear()

    async def wait(self) -> bool:
        if not self._set:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
        return True


class Cycle(RequestResponseCycle):
    """A request that is answered in one write where the application gives it in one message."""

    async def receive(self) -> Any:
        if self.waiting_for_100_continue or self.disconnected or self.response_complete:
            return await super().receive()
        if self.flow.read_paused:
            self.flow.resume_reading()
        if not self.message_event.is_set():
            await self.message_event.wait()
        self.message_event.clear()
        if self._ended():
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def _ended(self) -> bool:
        """Whether it has ended, perhaps while somebody waited."""
        return self.disconnected or self.response_complete

    async def send(self, message: Any) -> None:
        if message["type"] != RESPONSE:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("the response has been begun")
        self.response_started, self.waiting_for_100_continue = True, False
        head = STATUS_LINE[message["status"]] + _common(self.default_headers) + _block(message["headers"])
        if not self.keep_alive:
            head += b"connection: close\r\n"
        body: bytes = message["body"]
        if message["more_body"]:
            self.chunked_encoding = True
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(b"%btransfer-encoding: chunked\r\n\r\n%b" % (head, chunk))
            return
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _block(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent. Raises RuntimeError where one would be another one."""
    block = b"\r\n".join(map(_FIELD, headers))
    if block.translate(None, _VISIBLE) != b"\r\n" * (len(headers) - 1):
        raise RuntimeError("a header has a control character in it")
    return block + b"\r\n"


class _Common:
    """The headers that all responses have, as they are sent. uvicorn makes others once a second, for the date."""

    headers: Any = None
    block = b""


def _common(headers: list[tuple[bytes, bytes]]) -> bytes:
    if _Common.headers is not headers:
        _Common.block, _Common.headers = _block(headers), headers
    return _Common.block


def without_chunks(cycle: RequestResponseCycle, app: Any) -> Any:
    """The application, whose bodies of unknown length end with the connection; uvicorn closes it after HTTP/1.0."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        framed = True

        async def send_plain(message: Any) -> None:
            nonlocal framed
            if message["type"] == "http.response.start":
                framed = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                if not framed:
                    cycle.chunked_encoding = False
            elif not framed:
                cycle.expected_content_length = len(message.get("body", b""))  # uvicorn would demand a length otherwise
            await send(message)

        await app(scope, receive, send_plain)

    return call
