"""Requests to upstreams and the bodies of their answers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import aiohttp
import httpx
from multidict import CIMultiDict

from relay.transport.encoding import BadEncoding, BodyDecoder, codings, supported

USER_AGENT: Final = "airelays-portal"


class Reach:
    """Is called when a request has a connection, on which it is sent at once, until it is forgotten.

    A connection keeps what was there when it was made for as long as it lives, and may keep this.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        if self._call is not None:
            self._call()

    def forget(self) -> None:
        self._call = None


class BodyStream(httpx.AsyncByteStream, ABC):
    """The body of a response as the gateway reads it: in pieces, until one is empty, and closed without waiting."""

    @abstractmethod
    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; empty at the end of the body. Raises httpx.TransportError."""

    @abstractmethod
    def at_end(self) -> bool:
        """Whether the body has been read to its end."""

    @abstractmethod
    def close(self) -> None:
        """End the body, whether it was read to its end or not."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def aclose(self) -> None:
        self.close()


class ChangedStream(BodyStream):
    """A body whose pieces are changed on the way, by `read`."""

    def __init__(self, body: BodyStream) -> None:
        self._body = body

    def at_end(self) -> bool:
        return self._body.at_end()

    def close(self) -> None:
        self._body.close()


class UpstreamStream(BodyStream):
    """The body of an upstream's response, read in the pieces that arrive."""

    decoded = False  # whether the bytes are others than those that the upstream sent

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; empty at the end of the body. Raises httpx.TransportError."""
        raise NotImplementedError

    def at_end(self) -> bool:
        """Whether the body has been read to its end."""
        raise NotImplementedError

    def close(self) -> None:
        """Return the connection to the pool when the body was read to its end; close it otherwise. Does not wait."""
        raise NotImplementedError

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        self.close()


class SessionStream(UpstreamStream):
    """The body of a response that aiohttp's session received."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content

    async def read(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(str(error)) from error

    def at_end(self) -> bool:
        return self._content.at_eof()

    def close(self) -> None:
        if self.at_end():
            self._response.release()
        else:
            self._response.close()


class DecodedStream(UpstreamStream):
    """The body of a response that the upstream compressed, decoded."""

    decoded = True

    def __init__(self, stream: UpstreamStream, coding: str) -> None:
        self._stream = stream
        self._decoder = BodyDecoder(coding)
        self._pieces: Iterator[bytes] = iter(())

    async def read(self) -> bytes:
        await asyncio.sleep(0)  # other requests go on while a large body is decoded
        try:
            while True:
                if piece := next(self._pieces, b""):
                    return piece
                data = await self._stream.read()
                if not data:
                    return self._decoder.finish()
                self._pieces = self._decoder.feed(data)
        except BadEncoding as error:
            raise httpx.ReadError(str(error)) from error

    def at_end(self) -> bool:
        return self._stream.at_end()

    def close(self) -> None:
        self._stream.close()


Fields = Sequence[tuple[bytes, bytes]]  # the names and values of headers, as they were sent


class UpstreamResponse(httpx.Response):
    """An httpx response that decodes its headers on first use: most responses never need them."""

    # What httpx's __init__ sets beside the status, the headers and the stream. It takes four times as long as this one.
    _request = next_request = None
    is_closed = is_stream_consumed = False
    default_encoding = "utf-8"
    _num_bytes_downloaded = 0

    def __init__(self, status: int, fields: Fields, stream: UpstreamStream) -> None:
        self.status_code = status
        self.extensions, self.history = {"http_version": b"HTTP/1.1"}, []
        self._fields = fields
        self._headers: httpx.Headers | None = None
        self.content_type = field(fields, b"content-type").lower()
        self.undecodable = ""  # the coding of a body that cannot be decoded; empty for all others
        self._decoded = False
        self.stream = stream
        encoding = field(fields, b"content-encoding")
        if encoding:  # hardly ever
            names = codings(encoding)
            self.undecodable = "" if supported(names) else encoding
            self._decoded = bool(names) and not self.undecodable
            if self._decoded:
                self.stream = DecodedStream(stream, names[0])

    @property
    def headers(self) -> httpx.Headers:
        if self._headers is None:
            self._headers = httpx.Headers(list(self._fields))
            if self._decoded:  # so that httpx does not decode the body once more
                del self._headers["content-encoding"]
        return self._headers

    @headers.setter
    def headers(self, value: httpx.Headers) -> None:
        """Ignored: httpx sets empty headers once."""

    @property
    def framed(self) -> bool:
        """Whether more than the end of the connection tells where the body ends."""
        return is_framed(self._fields)


def field(fields: Fields, name: bytes) -> str:
    """The value of the first header of this name, which is in lower case; empty: there is none."""
    size = len(name)
    for found, value in fields:
        if len(found) == size and found.lower() == name:
            return value.decode("utf-8", "surrogateescape")
    return ""


def is_framed(fields: Fields) -> bool:
    """Whether headers tell where the body ends; otherwise the end of the connection does."""
    return any(name.lower() == b"content-length" for name, _ in fields) or any(
        name.lower() == b"transfer-encoding" and b"chunked" in value.lower() for name, value in fields
    )


RESEND: Final = "resend"  # extension of a request: it may be sent again on a new connection
RESENT: Final = "resent"  # extension of a request: it was
REACHED: Final = "reached"  # extension of a request: a Reach
Pieces = Sequence[bytes | memoryview]
_SLICE: Final = 256 * 1024  # bytes of a large body that are given to the connection at once


class Body(httpx.AsyncByteStream):
    """A request's body in memory. A large one is sent in slices, so that no second copy of it waits in a buffer."""

    def __init__(self, content: bytes | Pieces) -> None:
        self.content = content
        self.size = len(content) if isinstance(content, bytes) else sum(map(len, content))

    @property
    def in_one_piece(self) -> bytes | None:
        """All of it, if it is given to the connection at once."""
        return self.content if self.size <= _SLICE and isinstance(self.content, bytes) else None

    def payload(self) -> bytes | AsyncIterator[bytes] | None:
        """The data for aiohttp. Called again each time the body is sent."""
        if isinstance(self.content, bytes) and self.size <= _SLICE:
            return self.content or None
        return self.__aiter__()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in (self.content,) if isinstance(self.content, bytes) else self.content:
            view = memoryview(piece)
            for start in range(0, len(view), _SLICE):
                yield bytes(view[start : start + _SLICE])


def request_headers(auth: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of requests with one key. Built once per key."""
    return CIMultiDict(
        {"content-type": "application/json", "accept-encoding": "identity", "user-agent": USER_AGENT, **auth}
    )


def post(
    url: httpx.URL, headers: Mapping[str, str], body: bytes | Pieces, connect_timeout: float, resend: bool = True
) -> httpx.Request:
    """A POST request for `UpstreamTransport` or the demo's transport, without httpx's costly request building.

    `resend`: whether it may be sent again when a kept connection ends without an answer.
    """
    stream = Body(body)
    if not isinstance(body, bytes) or stream.size > _SLICE:
        headers = {**headers, "content-length": str(stream.size)}
    extensions = {"timeout": {"connect": connect_timeout}, "headers": headers, RESEND: resend}
    return Post(url, stream, extensions)


class Post(httpx.Request):
    """A POST request whose headers are an extension: httpx's own __init__ copies and normalizes what is in order."""

    stream: Body

    def __init__(self, url: httpx.URL, stream: Body, extensions: dict[str, Any]) -> None:
        self.method, self.url, self.stream, self.extensions = "POST", url, stream, extensions
        self._headers: httpx.Headers | None = None

    @property
    def headers(self) -> httpx.Headers:
        if self._headers is None:
            self._headers = httpx.Headers()
        return self._headers

    @headers.setter
    def headers(self, value: httpx.Headers) -> None:
        self._headers = value
