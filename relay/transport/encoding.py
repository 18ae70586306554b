"""Decodes compressed bodies piece by piece, with a limit on what they may expand to. Pure.

Requests ask for `identity`, which a server may ignore (RFC 9110, 12.5.3).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_PIECE: Final = 256 * 1024  # bytes that are decoded at once
_FREE: Final = 16 * 1024 * 1024  # decoded bytes that need no proof
_RATIO: Final = 100  # decoded bytes for each compressed one beyond that; text of models reaches 20
_ZLIB: Final = frozenset(("gzip", "x-gzip", "deflate"))
_UNSUPPORTED: Final = frozenset(("br", "zstd", "compress", "x-compress", "dcb", "dcz"))
_GZIP_MAGIC: Final = b"\x1f\x8b"


class BadEncoding(ValueError):
    """A compressed body is broken, cut, or expands to more than the limit."""


def codings(header: str) -> tuple[str, ...]:
    """The codings of a body in the order of decoding. Values that are no codings, such as `utf-8`, are ignored."""
    found = [name.strip().lower() for name in header.split(",")]
    return tuple(name for name in reversed(found) if name in _ZLIB or name in _UNSUPPORTED)


def supported(names: tuple[str, ...]) -> bool:
    """Whether a body with these codings can be decoded; several are not, since no server needs them."""
    return len(names) <= 1 and _UNSUPPORTED.isdisjoint(names)


class BodyDecoder:
    """Decodes one body: gzip of one or more members, or deflate with or without zlib's header."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding != "deflate"
        self._inflate: zlib._Decompress | None = None
        self._raw = False  # the body is not compressed, whatever its header says
        self._head = b""  # bytes that do not yet tell the format
        self._taken = self._given = 0  # bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, in pieces of limited size. Raises BadEncoding."""
        self._taken += len(data)
        if self._inflate is None and not self._raw:
            data, self._head = self._head + data, b""
            if len(data) < 2:
                self._head = data
                return
            self._choose(data)
        if self._raw:
            yield data
            return
        while data:
            assert self._inflate is not None  # noqa: S101  # `_choose` has made it
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise BadEncoding(f"the compressed body is broken: {error}") from None
            data = self._inflate.unconsumed_tail
            if piece:
                self._given += len(piece)
                if self._given > _FREE and self._given > _RATIO * self._taken:
                    raise BadEncoding(f"{self._taken} compressed bytes expand to more than {_RATIO} times their size")
                yield piece
            if self._inflate.eof:
                data = self._inflate.unused_data
                if not (self._gzip and data.startswith(_GZIP_MAGIC)):
                    return  # padding
                self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def finish(self) -> bytes:
        """The body has ended: returns the last bytes. Raises BadEncoding when the compressed data is incomplete."""
        if self._inflate is not None and not self._inflate.eof:
            raise BadEncoding("the compressed body ends before its end")
        rest, self._head = self._head, b""
        return rest

    def _choose(self, head: bytes) -> None:
        """Choose the format by the first bytes: some servers name a coding that they do not apply."""
        zlib_header = head[0] & 15 == 8 and int.from_bytes(head[:2]) % 31 == 0
        if self._gzip:
            self._raw = not head.startswith(_GZIP_MAGIC)
            bits = 16 + zlib.MAX_WBITS
        else:
            self._raw = head[:1] in (b"{", b"[") or head.startswith((b"da", b"ev", b": "))
            bits = zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS
        self._inflate = None if self._raw else zlib.decompressobj(bits)
