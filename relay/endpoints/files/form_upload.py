"""Receives a form and writes its file to disk as it arrives.

Only the small fields and the block that is being written are in memory.
"""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from portal import limits
from relay.errors import InvalidRequest, RelayError, RelayUnavailable
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.models import UploadSession
from relay.protocols.fields import BadRequest
from relay.protocols.framing.multipart import boundary_of, check_repeated, part_names, put_header
from relay.storage import files
from relay.storage.files import UploadWriter

_BLOCK: Final = 1 << 20  # bytes that are written at a time
_DISCARD_SECONDS: Final = 1.0  # that an answer waits until a file which is not kept is gone
_FORM_OVERHEAD: Final = 1024  # bytes of a form besides its file; the reserved space is corrected as the file arrives
_MOST_BOUNDARIES: Final = 10_000  # that are none, since something follows them
_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}(;\s*charset=[A-Za-z0-9_-]{1,30})?", re.I)


@dataclass(slots=True)
class _Parser:
    """Separates the parts of a form into small fields and the bytes of one file."""

    boundary: bytes
    file_field: str  # the name of the file's field
    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    content_type: str = ""  # of the file, as declared
    seen: bool = False  # the file has begun
    ended: bool = False  # the form is complete
    data: list[bytes] = field(default_factory=list)  # of the file, not yet written
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _name: str = ""
    _is_file: bool = False
    _key: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _text: bytearray = field(default_factory=bytearray)
    _size: int = 0  # bytes of fields and headers
    _parts: int = 0
    _boundaries: int = 0

    def make(self) -> MultipartParser:
        return MultipartParser(
            self.boundary,
            {
                "on_part_begin": self._on_part,
                "on_header_field": lambda data, start, end: self._keep(self._key, data[start:end]),
                "on_header_value": lambda data, start, end: self._keep(self._value, data[start:end]),
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def check(self, piece: bytes) -> None:
        """Raises InvalidRequest for a file that is full of boundaries: each costs the parser a microsecond."""
        self._boundaries += piece.count(b"\r\n--" + self.boundary)
        if self._boundaries > _MOST_BOUNDARIES:
            raise InvalidRequest(
                "The file has the form's boundary in it many times. Send it with another boundary.",
                code="invalid_multipart",
            )

    def _on_part(self) -> None:
        self._headers.clear()
        self._parts += 1
        if self._parts > limits.FORM_PARTS:
            raise InvalidRequest(
                f"The form has more than {limits.FORM_PARTS} parts. Send a file with the fields that it needs.",
                code="invalid_multipart",
            )

    def _keep(self, where: bytearray, data: bytes) -> None:
        """Add bytes of a field, or of a part's headers, to what is in memory."""
        self._size += len(data)
        if self._size > limits.FORM_BYTES:
            raise InvalidRequest(
                f"The fields of the form beside the file are larger than {limits.FORM_BYTES // limits.KIB} KiB.",
                code="invalid_multipart",
            )
        where.extend(data)

    def _on_header(self) -> None:
        put_header(self._headers, bytes(self._key), bytes(self._value))
        self._key.clear()
        self._value.clear()

    def _on_headers(self) -> None:
        self._name, filename = part_names(self._headers)
        self._is_file = self._name == self.file_field and (filename is not None or self.file_field == "data")
        self._text.clear()
        if self._is_file:
            if self.seen:
                raise InvalidRequest(
                    f"The form has more than one file in “{self.file_field}”. Send one at a time.",
                    param=self.file_field,
                )
            self.seen, self.filename = True, filename or ""
            self.content_type = self._headers.get(b"content-type", b"").decode("latin-1").strip()

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.data.append(data[start:end])
            return
        self._keep(self._text, data[start:end])

    def _on_part_end(self) -> None:
        if not self._is_file:
            check_repeated((*self.fields, self._name))
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.ended = True


@dataclass(slots=True)
class ReceivedForm:
    """A form whose file is on disk. Without a call to `sink.finish` the file is deleted."""

    sink: UploadWriter
    fields: dict[str, str]
    filename: str
    content_type: str  # of the file, as declared; empty when that is not valid


async def receive_form(
    exchange: Exchange, run: Runtime, file_field: str, user_id: int, session: UploadSession | None = None
) -> ReceivedForm:
    """Receive a form; the caller must call `discard` in the end.

    Too large a form is refused before it is read if its length is announced, and as soon as possible otherwise. Raises
    InvalidRequest, RequestTooLarge, StorageFull, RelayUnavailable.
    """
    try:
        parser = _Parser(boundary_of(exchange.headers.get(b"content-type", b"").decode("latin-1")), file_field)
    except BadRequest as bad:
        raise InvalidRequest(bad.message, code=bad.code) from None
    most = run.config.max_upload_bytes
    # What a compressed form unfolds to is not known.
    announced = None if b"content-encoding" in exchange.headers else exchange.announced_length
    if announced is not None and announced > most + limits.FORM_BYTES:
        await snapshot_cache.in_thread(files.check_file_size, announced)
    reserved = max(0, announced - _FORM_OVERHEAD) if announced is not None else 0
    exchange.total_at = exchange.started + run.config.total_timeout
    sink = await _begin(run, user_id, min(reserved, most), session)
    try:
        await _read(exchange, parser, sink, most, announced is None)
    except BaseException:
        await discard(run, sink)
        raise
    kind = parser.content_type if _TYPE.fullmatch(parser.content_type) else ""
    return ReceivedForm(sink, parser.fields, parser.filename, kind)


async def _begin(run: Runtime, user_id: int, reserved: int, session: UploadSession | None) -> UploadWriter:
    """Reserve space and open the file. What comes of it when nobody waits any more leaves no space reserved."""
    given_up = threading.Event()

    def open_sink() -> UploadWriter:
        upload = files.reserve_upload(user_id, reserved, run.reservations.owner, session)
        try:
            sink = UploadWriter(upload)
        except BaseException:
            files.remove(upload)
            raise
        if given_up.is_set():
            sink.close()
        return sink

    work = asyncio.ensure_future(snapshot_cache.in_file_thread(open_sink))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        run.watchdog.spawn(_abandon(run, work))
        raise
    except RelayUnavailable:
        given_up.set()
        raise


async def _abandon(run: Runtime, work: asyncio.Future[UploadWriter]) -> None:
    try:
        await discard(run, await work)
    except RelayError:
        pass  # nothing was reserved


async def _read(exchange: Exchange, parser: _Parser, sink: UploadWriter, most: int, ahead: bool) -> None:
    """`ahead`: space is reserved before it is needed, since the length is not known."""
    machine = parser.make()
    waiting = received = 0
    try:
        async for piece in exchange.body_pieces():
            parser.check(piece)
            machine.write(piece)
            received += len(piece)
            if received > most + limits.FORM_BYTES:  # of what is ignored: a compressed form unfolds to any size
                await snapshot_cache.in_thread(files.check_file_size, received)
            waiting = sum(map(len, parser.data))
            if sink.size + waiting > most:
                await snapshot_cache.in_thread(files.check_file_size, sink.size + waiting)
            if waiting >= _BLOCK:
                await _write(parser, sink, most, ahead)
        machine.finalize()
    except BadRequest as bad:
        raise InvalidRequest(bad.message, code=bad.code, param=bad.param) from None
    except MultipartParseError:
        raise InvalidRequest(
            "The multipart form is broken. Send it again, with the boundary that its Content-Type names.",
            code="invalid_multipart",
        ) from None
    if not parser.ended:
        raise InvalidRequest("The multipart form is cut off. Send it again.", code="invalid_multipart")
    if not parser.seen:
        raise InvalidRequest(
            f"The file is missing: send it in the field “{parser.file_field}” of a form.",
            code="missing_required_parameter",
            param=parser.file_field,
        )
    await _write(parser, sink, most, ahead)


async def _write(parser: _Parser, sink: UploadWriter, most: int, ahead: bool) -> None:
    data = b"".join(parser.data)
    parser.data.clear()
    needed = sink.size + len(data)
    if needed > sink.upload.size:
        wanted = min(most, max(_BLOCK, 2 * sink.upload.size)) if ahead else needed
        await snapshot_cache.in_thread(files.grow, sink.upload, needed, wanted)
    if data:
        await snapshot_cache.in_file_thread(sink.write, data)


async def discard(run: Runtime, sink: UploadWriter) -> None:
    """Delete the file unless `sink.finish` was called, even if the request is being cancelled.

    Its answer does not wait for a database or a disk that hangs: it has waited for one before.
    """
    closing = run.watchdog.spawn(_close(sink))
    if (await asyncio.wait((closing,), timeout=_DISCARD_SECONDS))[0]:
        closing.result()


async def _close(sink: UploadWriter) -> None:
    try:
        await snapshot_cache.in_file_thread(sink.close)
    except RelayUnavailable:
        pass  # logged; what is left of it goes with the next sweep
