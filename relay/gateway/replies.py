"""The responses to clients: a complete body, a stream of events, a file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from portal.services.timeouts import on_disk
from relay.errors import RelayUnavailable
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.cache import snapshot_cache

# An ASGI extension of our server, and the type of the message that it allows: the head of a response with all of its
# body, or with the beginning. Its members: `status`, `headers` (without those about length), `body`, `more_body`.
RESPONSE: Final = "airelays.response"
_EVENT_HEADERS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_BLOCK: Final = 256 * 1024  # bytes of a file that are read at a time


class Answer(HttpResponseBase):
    """A complete JSON answer without the cookies, charsets and header objects of Django's responses.

    Only the relay handler can send it.
    """

    streaming = False
    status_code = 200

    def __init__(self, body: bytes) -> None:
        # The base class's __init__ is skipped: it takes as long as the rest of sending an answer.
        self.body = body


class EventStream(HttpResponseBase):
    """A response whose body is written by `pump`. Only the relay handler can send it."""

    streaming = True
    status_code = 200

    def __init__(
        self,
        pump: Callable[[], Awaitable[None]],
        content_type: str = "text/event-stream; charset=utf-8",
        opening: Callable[[], bytes] | None = None,
    ) -> None:
        """`opening`: takes what `pump` would send first, to send it with the head."""
        # The base class's __init__ is skipped here as well.
        self.pump, self.opening = pump, opening
        self.head: list[tuple[bytes, bytes]] = [(b"content-type", content_type.encode("latin-1"))]
        if content_type.startswith("text/event-stream"):
            self.head += _EVENT_HEADERS

    def discard(self) -> None:
        """Called instead of `pump` when the client wants the headers only."""


class Download(EventStream):
    """A file, read and sent block by block. `read` runs in a thread; it returns the next block, empty at the end."""

    def __init__(
        self,
        exchange: Exchange,
        read: Callable[[int], bytes],
        size: int,
        filename: str,
        content_type: str,
        close: Callable[[], None],
    ) -> None:
        super().__init__(self._run)
        self._exchange, self._read, self._close = exchange, on_disk()(read), close
        disposition = content_disposition_header(True, filename) or "attachment"
        self.head = [
            (b"content-type", content_type.encode("latin-1")),
            (b"content-disposition", disposition.encode("latin-1")),
            (b"x-content-type-options", b"nosniff"),
            (b"content-length", b"%d" % size),
        ]

    def discard(self) -> None:
        self._close()

    async def _run(self) -> None:
        try:
            block = await snapshot_cache.in_file_thread(self._read, _BLOCK)
            while block:
                await self._exchange.write(block, mid_event=True)
                block = await snapshot_cache.in_file_thread(self._read, _BLOCK)
            await self._exchange.write_last(b"")
        except RelayUnavailable:
            return  # the disk hangs, which is logged: the server closes the connection of an answer that has no end
        finally:
            asyncio.get_running_loop().run_in_executor(None, self._close)  # which may hang with it
