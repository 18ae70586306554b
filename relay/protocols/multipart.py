"""Locates the parts of a multipart form in memory, so that it can be sent on without copying its files. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from relay.protocols.fields import BadRequest

_MAX_PARTS: Final = 500
_MAX_TEXT: Final = 1 << 20  # bytes of a field that is read as text


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form: a field or a file."""

    name: str
    filename: str | None  # None: a field
    content_type: str
    section: int  # offset of the boundary before the part's headers
    start: int  # offset of the content
    end: int  # offset after the content


@dataclass(frozen=True, slots=True)
class MultipartForm:
    """A form in memory and the positions of its parts."""

    body: bytes
    parts: tuple[Part, ...]

    def text(self, name: str) -> str | None:
        """The first field of this name; files are ignored."""
        for part in self.parts:
            if part.name == name and part.filename is None and part.end - part.start <= _MAX_TEXT:
                return self.body[part.start : part.end].decode("utf-8", "replace")
        return None

    def texts(self) -> dict[str, str]:
        """All fields, without the files; the last one where several share a name."""
        return {
            part.name: self.body[part.start : part.end].decode("utf-8", "replace")
            for part in self.parts
            if part.filename is None and part.end - part.start <= _MAX_TEXT
        }

    def files(self, *names: str) -> list[Part]:
        return [part for part in self.parts if part.filename is not None and part.name in names]

    def content(self, part: Part) -> memoryview:
        return memoryview(self.body)[part.start : part.end]

    def edited(self, replaced: Mapping[str, bytes], dropped: Set[str]) -> list[memoryview | bytes]:
        """The body in pieces, with the content of some fields replaced and some fields removed."""
        view = memoryview(self.body)
        pieces: list[memoryview | bytes] = []
        at = 0
        for part in self.parts:
            if part.name in dropped:
                pieces.append(view[at : part.section])
                at = part.end + 2
            elif part.name in replaced and part.filename is None:
                pieces += (view[at : part.start], replaced[part.name])
                at = part.end
        pieces.append(view[at:])
        return [piece for piece in pieces if len(piece)]


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises BadRequest."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
        message = "Send this request as multipart/form-data; SDKs do so when they are given a file."
        raise BadRequest(message, None, "invalid_multipart")
    return boundary


def disposition(value: bytes) -> tuple[str, str | None]:
    """The name and file name of a part. A file name may be raw UTF-8, or encoded according to RFC 5987."""
    _, options = parse_options_header(value)
    name = options.get(b"name", b"").decode("utf-8", "replace")
    filename = options.get(b"filename")
    return name, filename.decode("utf-8", "replace") if filename is not None else None


@dataclass(slots=True)
class _Found:
    headers: dict[bytes, bytes]
    size: int = 0


def parse_form(body: bytes, content_type: str) -> MultipartForm:
    """Parse the body of a form. Raises BadRequest."""
    boundary = boundary_of(content_type)
    found: list[_Found] = []
    field, value = bytearray(), bytearray()
    ended = False

    def on_part_begin() -> None:
        if len(found) >= _MAX_PARTS:
            raise BadRequest(f"The form has more than {_MAX_PARTS} fields.", None, "invalid_multipart")
        found.append(_Found({}))

    def on_header_end() -> None:
        found[-1].headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def on_part_data(_: bytes, start: int, end: int) -> None:
        found[-1].size += end - start

    def on_end() -> None:
        nonlocal ended
        ended = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": on_part_begin,
            "on_header_field": lambda data, start, end: field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]),
            "on_header_end": on_header_end,
            "on_part_data": on_part_data,
            "on_end": on_end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError:
        raise _broken() from None
    if not ended:
        raise _broken()
    return MultipartForm(body, tuple(_located(body, boundary, found)))


def _broken() -> BadRequest:
    message = "The multipart form is broken or cut off. Send it again, with the boundary that its Content-Type names."
    return BadRequest(message, None, "invalid_multipart")


def _located(body: bytes, boundary: bytes, found: Sequence[_Found]) -> list[Part]:
    """The position of each part, which the parser does not report. Raises BadRequest when the sizes do not add up."""
    parts = []
    section = max(body.find(b"--" + boundary), 0)
    for entry in found:
        start = body.find(b"\r\n\r\n", section) + 4
        end = start + entry.size
        if start < 4 or body[end : end + 4 + len(boundary)] != b"\r\n--" + boundary:
            raise _broken()
        name, filename = disposition(entry.headers.get(b"content-disposition", b""))
        kind = entry.headers.get(b"content-type", b"").decode("latin-1").strip()
        parts.append(Part(name, filename, kind, section, start, end))
        section = end + 2
    return parts


def write_form(fields: Mapping[str, str], files: Sequence[tuple[str, str, str, bytes]]) -> tuple[bytes, str]:
    """Write a form; returns it with its Content-Type. `files`: name, file name, type, content."""
    boundary = f"----airelays{uuid.uuid4().hex}"
    pieces = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, filename, kind, content in files:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: '
            f"{kind}\r\n\r\n"
        )
        pieces += (head.encode(), content, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"
