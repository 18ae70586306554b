"""Locates the parts of a multipart form in memory, so that it can be sent on without copying its files. Pure.

A form is refused unless every parser reads its fields alike: each once, unless it is a list, under one name, and
between boundaries that stand nowhere else.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from relay.protocols.fields import BadRequest, check_names

_MAX_PARTS: Final = 500
_MAX_TEXT: Final = 1 << 20  # bytes of a field that is read as text
# Parameters whose value is a list (OpenAI's API reference, November 2026); SDKs add “[]” to the name, other clients
# repeat it as it is.
_LISTS: Final = frozenset(
    ("image", "include", "known_speaker_names", "known_speaker_references", "timestamp_granularities")
)
_PARAMETER: Final = re.compile(rb';[ \t]*([^\s;="]+)[ \t]*=[ \t]*(?:"(?:[^"\\]|\\.)*"|[^;"]*)')
# Encodings of a part that leave its bytes as they are. Others are forbidden since RFC 7578, and read by some parsers.
_AS_IS: Final = (b"", b"7bit", b"8bit", b"binary")


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
    boundary: bytes

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

    def parameters(self, names: Set[str]) -> dict[str, str]:
        """All fields as `texts` has them, once it is sure that every parser finds the same. Raises BadRequest.

        `names`: those that are read here.
        """
        check_repeated(part.name for part in self.parts if part.filename is None)
        texts = self.texts()
        check_names([part.name for part in self.parts])
        for part in self.parts:
            if part.name in names and (part.filename is not None or part.name not in texts):
                message = f"The field “{part.name[:64]}” must be a short text, not a file."
                raise BadRequest(message, part.name[:64], "invalid_multipart")
        return texts

    def files(self, *names: str) -> list[Part]:
        return [part for part in self.parts if part.filename is not None and part.name in names]

    def content(self, part: Part) -> memoryview:
        return memoryview(self.body)[part.start : part.end]

    def edited(self, replaced: Mapping[str, bytes], dropped: Set[str]) -> list[memoryview | bytes]:
        """The body in pieces, with the content of some fields replaced, or added, and some fields removed."""
        view = memoryview(self.body)
        at = self.parts[0].section if self.parts else 0
        pieces: list[memoryview | bytes] = [view[:at]]
        there = {part.name for part in self.parts if part.filename is None}
        for name, value in replaced.items():
            if name not in there:
                pieces.append(_field(self.boundary, name, value))
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


def part_names(headers: Mapping[bytes, bytes]) -> tuple[str, str | None]:
    """The name and file name of a part. A file name may be raw UTF-8, or encoded according to RFC 5987.

    Raises BadRequest for a part that some parsers read in another way.
    """
    value = headers.get(b"content-disposition", b"")
    kind, options = parse_options_header(value)
    given = [name.lower() for name in _PARAMETER.findall(value)]
    name = options.get(b"name", b"")
    if (
        kind != b"form-data"
        or not name
        or b"\\" in name
        or len(set(given)) != len(given)
        or any(other.startswith(b"name*") for other in given)
        or headers.get(b"content-transfer-encoding", b"").strip().lower() not in _AS_IS
    ):
        raise BadRequest(
            "A part of the form needs exactly one plain name (Content-Disposition: form-data; name=…), and its content "
            "as it is, without a Content-Transfer-Encoding.",
            None,
            "invalid_multipart",
        )
    filename = options.get(b"filename")
    if filename is None and b"filename*" in given:
        filename = unquote_to_bytes(value.partition(b"filename*")[2].rpartition(b"''")[2].partition(b";")[0].strip())
    return name.decode("utf-8", "replace"), filename.decode("utf-8", "replace") if filename is not None else None


def check_repeated(names: Iterable[str]) -> None:
    """Raises BadRequest when a field that is no list is in a form more than once."""
    seen: set[str] = set()
    for name in names:
        if name in seen and not name.endswith("[]") and name not in _LISTS:
            message = (
                f"The field “{name[:64]}” is more than once in the form. Send it once, so that it means one thing."
            )
            raise BadRequest(message, name[:64], "invalid_multipart")
        seen.add(name)


def put_header(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Add a header of a part. Raises BadRequest if it is there already."""
    if name.lower() in headers:
        raise BadRequest("A part of the form has a header twice. Send it once.", None, "invalid_multipart")
    headers[name.lower()] = value


@dataclass(slots=True)
class _Found:
    headers: dict[bytes, bytes]
    size: int = 0


def parse_form(body: bytes, content_type: str) -> MultipartForm:
    """Parse the body of a form. Raises BadRequest."""
    boundary = boundary_of(content_type)
    if body.count(b"--" + boundary) > _MAX_PARTS + 1:  # the parser takes a microsecond for each, also inside a file
        raise BadRequest(f"The form has more than {_MAX_PARTS} fields.", None, "invalid_multipart")
    found: list[_Found] = []
    field, value = bytearray(), bytearray()
    ended = False

    def on_part_begin() -> None:
        if len(found) >= _MAX_PARTS:
            raise BadRequest(f"The form has more than {_MAX_PARTS} fields.", None, "invalid_multipart")
        found.append(_Found({}))

    def on_header_end() -> None:
        put_header(found[-1].headers, bytes(field), bytes(value))
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
    parts = _located(body, boundary, found)
    return MultipartForm(_without_rest(body, boundary, parts), tuple(parts), boundary)


def _without_rest(body: bytes, boundary: bytes, parts: Sequence[Part]) -> bytes:
    """The form without what follows its closing boundary, which some parsers read as more parts.

    Raises BadRequest for a boundary anywhere else, such as in the middle of a line: Django's parser takes it for one.
    """
    mark = b"--" + boundary
    end = (parts[-1].end + 2 if parts else body.find(mark)) + len(mark) + 2
    if body.count(mark) != len(parts) + 1 or body[end - 2 : end] != b"--":
        raise _broken()
    return body if body[end:] in {b"", b"\r\n"} else body[:end] + b"\r\n"


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
        name, filename = part_names(entry.headers)
        kind = entry.headers.get(b"content-type", b"").decode("latin-1").strip()
        parts.append(Part(name, filename, kind, section, start, end))
        section = end + 2
    return parts


def _field(boundary: bytes, name: str, value: bytes) -> bytes:
    head = f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
    return b"--" + boundary + head + value + b"\r\n"


def write_parts(parts: Sequence[tuple[str, str, bytes]]) -> tuple[bytes, str]:
    """Write a form of fields that have a type; returns it with its Content-Type. `parts`: name, type, content."""
    boundary = f"----airelays{uuid.uuid4().hex}"
    pieces = []
    for name, kind, content in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}\r\n\r\n'
        pieces += [head.encode(), content, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def write_form(fields: Mapping[str, str], files: Sequence[tuple[str, str, str, bytes]]) -> tuple[bytes, str]:
    """Write a form; returns it with its Content-Type. `files`: name, file name, type, content."""
    boundary = f"----airelays{uuid.uuid4().hex}"
    pieces = [_field(boundary.encode(), name, value.encode()) for name, value in fields.items()]
    for name, filename, kind, content in files:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: '
            f"{kind}\r\n\r\n"
        )
        pieces += (head.encode(), content, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"
