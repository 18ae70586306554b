"""Decodes request bodies that clients have compressed: gzip, deflate and zstd (RFC 9110, 8.4).

The body is unfolded in pieces as it is read, so that those who read it stop at their limit whatever it would unfold to.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from typing import Final, Protocol

from relay.errors import InvalidRequest, UnsupportedContentEncoding
from relay.gateway.exchange.exchange import Message, Receive

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_BLOCK: Final = 256 * 1024  # bytes that are unfolded at a time
_WINDOW_LOG: Final = 23  # 8 MiB of memory, the most that a zstd body over HTTP may ask for (RFC 9659)
_GZIP: Final = b"\x1f\x8b"
ACCEPTED: Final = "gzip, deflate, zstd"


class _Decoder(Protocol):
    """One compressed body. Raises zlib.error or ZstdError."""

    @property
    def whole(self) -> bool:
        """Whether it could end here."""

    def decode(self, data: bytes) -> bytes:
        """At most `_BLOCK` bytes; empty when more data is needed. Called without data to get what is still inside."""


class _Zlib:
    """gzip, of one member or several, and deflate with or without zlib's header, which many clients leave out."""

    def __init__(self, gzip: bool) -> None:
        self._gzip = gzip
        self._waiting = b""
        self._inflate = zlib.decompressobj(31) if gzip else None

    @property
    def whole(self) -> bool:
        return not self._waiting and self._inflate is not None and self._inflate.eof

    def decode(self, data: bytes) -> bytes:
        self._waiting += data
        if self._inflate is None:
            if len(self._waiting) < 2:
                return b""
            wrapped = self._waiting[0] & 15 == 8 and int.from_bytes(self._waiting[:2]) % 31 == 0
            self._inflate = zlib.decompressobj(15 if wrapped else -15)
        while True:
            if self._inflate.eof:
                if not self._waiting:
                    return b""
                if not self._gzip or not self._waiting.startswith(_GZIP[: len(self._waiting)]):
                    raise zlib.error("data after the end")
                self._inflate = zlib.decompressobj(31)
            piece = self._inflate.decompress(self._waiting, _BLOCK)
            self._waiting = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if piece or not (self._inflate.eof and self._waiting):
                return piece


class _Zstd:
    """zstd, of one frame or several."""

    def __init__(self) -> None:
        self._decompress = self._new()

    @staticmethod
    def _new() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})

    @property
    def whole(self) -> bool:
        return self._decompress.eof

    def decode(self, data: bytes) -> bytes:
        while True:
            if self._decompress.eof:
                data = self._decompress.unused_data + data
                if not data:
                    return b""
                self._decompress = self._new()
            piece = self._decompress.decompress(data, _BLOCK)
            data = b""
            if piece or not (self._decompress.eof and self._decompress.unused_data):
                return piece


def decoded_body(receive: Receive, coding: bytes) -> Receive:
    """The messages of a request with this Content-Encoding, its body decoded.

    Reading it raises UnsupportedContentEncoding or InvalidRequest.
    """
    names = [name for part in coding.lower().split(b",") if (name := part.strip()) not in (b"", b"identity")]
    if not names:
        return receive
    decoder = _decoder(names)
    more, began, ended = True, False, False

    async def read() -> Message:
        nonlocal more, began, ended
        if ended:
            return await receive()  # that the client has left
        if decoder is None:
            raise UnsupportedContentEncoding(
                f"This portal does not read bodies with “Content-Encoding: {coding[:60].decode('latin-1')}”. Send the "
                f"body as it is, or in one of: {ACCEPTED}.",
                ACCEPTED,
            )
        data = b""
        while True:
            try:
                piece = decoder.decode(data)
            except (zlib.error, zstd.ZstdError):
                raise _broken(coding) from None
            if piece:
                await asyncio.sleep(0)  # a small body may unfold to a large one; others have their turn meanwhile
                return {"type": "http.request", "body": piece, "more_body": True}
            if not more:
                if began and not decoder.whole:
                    raise _broken(coding)
                ended = True
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await receive()
            if message["type"] != "http.request":
                return message
            data, more = message.get("body", b""), message.get("more_body", False)
            began = began or bool(data)

    return read


def _decoder(names: list[bytes]) -> _Decoder | None:
    """The decoder of one coding, None for others and for several on top of each other."""
    match names:
        case [b"gzip" | b"x-gzip"]:
            return _Zlib(gzip=True)
        case [b"deflate"]:
            return _Zlib(gzip=False)
        case [b"zstd"]:
            return _Zstd()
    return None


def _broken(coding: bytes) -> InvalidRequest:
    return InvalidRequest(
        f"The request body is not whole or not in the encoding that its header names, "
        f"“{coding[:60].decode('latin-1')}”. Compress it again, or send it as it is.",
        code="invalid_content_encoding",
    )
