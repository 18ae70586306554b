"""Inlines files in the input of chat completions, responses and images: stored files, and raw Base64, become data URLs.

Addresses are left for the upstream to fetch. An id that cannot be put in is refused: at an upstream it would name a
file of the portal's own account.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, object_of, text_of
from portal.services.timeouts import on_disk
from relay.billing.estimate import PromptSize, estimate_file
from relay.endpoints.files.file_ids import check_item, check_no_ids
from relay.errors import RequestTooLarge
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import Upload
from relay.protocols.fields import BadRequest, Fields, unsupported
from relay.storage import files
from relay.storage.room import show_bytes

_MAX_TEXT: Final = 1_000_000  # bytes of a file that is inlined as text; a longer one is refused, never truncated
_TEXTUAL: Final = (
    "application/json",
    "application/xml",
    "application/yaml",
    "application/x-yaml",
    "application/csv",
    "application/x-ndjson",
    "application/jsonl",
)
_MARKS: Final = (b'"file_id"', b'"file_ids"', b'"file_data"')
# Types of parts: whose file is put in as text, as a file, and that name a file themselves.
_TEXTS: Final = frozenset(("input_text", "text"))
_FILES: Final = frozenset(("file", "input_file"))
_HOLDERS: Final = frozenset((*_TEXTS, "input_file", "input_image", "image_url", "image", "computer_screenshot"))
_SCREENSHOT: Final = "computer_call_output"  # an item
_EXPANSION: Final = 2  # bytes in memory for each of a file: itself or its Base64, and the request with it
_MOST_NAMED: Final = 500  # times that one request may name stored files: each is looked at, however small it is


Hold = Callable[[int], None]  # counts bytes in memory (`Exchange.hold`)


@dataclass(frozen=True)
class _File:
    """A stored file with its bytes."""

    id: str
    name: str
    kind: str
    content: bytes

    @cached_property
    def base64(self) -> str:
        """The content in Base64, made once however often the file is named."""
        return base64.b64encode(self.content).decode()

    def data_url(self) -> str:
        return f"data:{self.kind};base64,{self.base64}"


class FileInputs:
    """The stored files that one request names.

    `find` looks their rows up, refuses what is too much and estimates the tokens; nothing is read before the request
    has been admitted and can be paid for, and the caller calls `put_in`.
    """

    def __init__(self, caller: Caller, most: int) -> None:
        """`most`: bytes that the files may have together, each as often as it is named."""
        self.size = PromptSize(0, 0)  # of all files that were found
        self._caller, self._most, self._left, self._named = caller, most, most, 0
        self._rows: dict[str, Upload] = {}
        self._read: dict[str, _File] = {}

    @property
    def waiting(self) -> bool:
        """Whether the request names stored files, which are to be put in."""
        return self._named > 0

    async def find_in_fields(self, fields: Fields, member: str) -> Fields:
        """As `find`, for the messages of a chat request."""
        messages = decode(bytes(fields[member]))
        if not isinstance(messages, list):
            return fields
        await self._find([message for message in messages if isinstance(message, dict)], member)
        return {**fields, member: msgspec.Raw(encode(messages))}

    async def find(self, items: Sequence[Json], where: str) -> list[Json]:
        """Look up the files that input items name. Returns copies in which raw Base64 is a data URL.

        `where`: the field of the request that they are from, for errors.

        Raises BadRequest, RequestTooLarge, RelayUnavailable.
        """
        copy = _copy(items)
        await self._find(copy, where)
        return copy

    async def _find(self, holders: Sequence[Json], where: str) -> None:
        parts = _parts(holders, where)
        if any(part.get("file_data") or object_of(part, "file").get("file_data") for _, part in parts):
            await asyncio.to_thread(_check_files, parts)
        else:
            _check_files(parts)
        named = [found for place, part in parts if (found := _named_in(part, place)) is not None]
        known = {id(found.holder) for found in named}
        for place, part in parts:
            check_no_ids(part, place, known)
        for index, item in enumerate(holders):
            check_item(item, f"{where}[{index}]")
        await self._look_up(named, where)

    async def find_pictures(self, pictures: Sequence[tuple[str, Json]]) -> None:
        """Look up the files of pictures, each with its place in the request. Raises BadRequest, RequestTooLarge."""
        if pictures:
            await self._look_up([_picture(place, holder) for place, holder in pictures], pictures[0][0])

    async def put_in_pictures(self, pictures: Sequence[tuple[str, Json]], hold: Hold) -> None:
        """Put the files of these pictures in, as data URLs in `image_url`. Raises BadRequest, RelayUnavailable."""
        named = [_picture(place, holder) for place, holder in pictures]
        await self._read_in([one.id for one in named], hold)

        def put() -> None:
            for one in named:
                url = _image(self._read[one.id], one.where)
                one.holder.pop("file_id")
                one.holder["image_url"] = url

        await asyncio.to_thread(put)

    async def _look_up(self, named: Sequence[_Named], where: str) -> None:
        self._named += len(named)
        if self._named > _MOST_NAMED:
            message = f"The request names stored files {self._named} times; {_MOST_NAMED} is the most. Name fewer."
            raise BadRequest(message, where, "too_many_files")
        wanted = sorted({found.id for found in named} - self._rows.keys())
        if wanted:
            self._rows |= await snapshot_cache.in_thread(files.find_uploads, self._caller.user_id, wanted)
        for found in named:
            row = self._rows.get(found.id)
            if row is None:
                raise _not_found(found)
            self._left -= row.size
            self.size = self.size.plus(*estimate_file(row.size, "text/plain" if found.as_text else row.content_type))
        if self._left < 0:
            raise RequestTooLarge(
                f"The stored files that the request names are larger than the {show_bytes(self._most)} that one "
                "request may bring along; a file counts as often as it is named. Name fewer.",
                code="files_too_large",
                param=where,
            )

    async def put_in_fields(self, fields: Fields, member: str, hold: Hold) -> Fields:
        """The fields of a chat request with its files inlined; `hold` counts their bytes.

        Raises BadRequest, RelayUnavailable.
        """
        messages = decode(bytes(fields[member]))
        if not isinstance(messages, list):
            return fields
        await self._put_in([message for message in messages if isinstance(message, dict)], member, hold)
        return {**fields, member: msgspec.Raw(await asyncio.to_thread(encode, messages))}

    async def put_in(self, items: Sequence[Json], where: str, hold: Hold) -> list[Json]:
        """Copies of input items with their files inlined. Raises BadRequest, RelayUnavailable."""
        copy = _copy(items)
        await self._put_in(copy, where, hold)
        return copy

    async def _put_in(self, holders: Sequence[Json], where: str, hold: Hold) -> None:
        parts = _parts(holders, where)
        named = [found.id for place, part in parts if (found := _named_in(part, place)) is not None]
        await self._read_in(named, hold)
        if named:
            await asyncio.to_thread(_inline_parts, parts, self._read)

    async def _read_in(self, named: Sequence[str], hold: Hold) -> None:
        """Read the files with these ids, each as often as it is named."""
        wanted = set(named)
        hold(sum(_EXPANSION * self._rows[file_id].size for file_id in named if file_id in self._rows))
        rows = [row for file_id, row in self._rows.items() if file_id in wanted and file_id not in self._read]
        if rows:
            self._read |= await snapshot_cache.in_file_thread(_read, rows)


def names_files(text: bytes) -> bool:
    """Whether JSON may name a stored file, or hold one in raw Base64."""
    return any(mark in text for mark in _MARKS)


def _picture(where: str, holder: Json) -> _Named:
    return _Named(text_of(holder, "file_id"), f"{where}.file_id", holder, False)


def _parts(holders: Sequence[Json], where: str) -> list[tuple[str, Json]]:
    """The parts of messages or items, each with its place. A screenshot is the only part of its item."""
    parts: list[tuple[str, Json]] = []
    for index, holder in enumerate(holders):
        for member in ("content", "output"):
            content = holder.get(member)
            if isinstance(content, dict) and text_of(holder, "type") == _SCREENSHOT:
                parts.append((f"{where}[{index}].{member}", content))
            elif isinstance(content, list):
                parts += [
                    (f"{where}[{index}].{member}[{number}]", part)
                    for number, part in enumerate(content)
                    if isinstance(part, dict)
                ]
    return parts


def _copy(items: Sequence[Json]) -> list[Json]:
    copy = decode(encode(items))
    return [item for item in copy if isinstance(item, dict)] if isinstance(copy, list) else []


@dataclass(frozen=True, slots=True)
class _Named:
    """A stored file that a part names."""

    id: str
    where: str  # the field with the id
    holder: Json  # the object with the id
    as_text: bool  # it is put in as text


def _named_in(part: Json, where: str) -> _Named | None:
    """The stored file that a part names; None for other parts, and for kinds of part that are left to the upstream."""
    kind = text_of(part, "type")
    holder = part
    if kind == "file" or (kind == "image_url" and isinstance(part.get("image_url"), dict)):
        holder, where = object_of(part, kind), f"{where}.{kind}"
    elif kind not in _HOLDERS:
        return None
    file_id = text_of(holder, "file_id")
    return _Named(file_id, f"{where}.file_id", holder, kind in _TEXTS) if file_id else None


@on_disk()
def _read(rows: Sequence[Upload]) -> dict[str, _File]:
    return {
        row.file_id: _File(row.file_id, row.filename, row.content_type or "application/octet-stream", _content(row))
        for row in rows
    }


def _content(row: Upload) -> bytes:
    try:
        return files.path_of(row.storage_name).read_bytes()
    except FileNotFoundError:  # deleted after it was found
        raise BadRequest(
            f"The file “{row.file_id}” has been deleted. Upload it again.", None, "file_not_found", 422
        ) from None


def _inline_parts(parts: Sequence[tuple[str, Json]], found: dict[str, _File]) -> None:
    for where, part in parts:
        named = _named_in(part, where)
        if named is not None:
            if named.id not in found:
                raise _not_found(named)
            _inline(part, named, found[named.id])


def _inline(part: Json, named: _Named, file: _File) -> None:
    kind, holder = text_of(part, "type"), named.holder
    holder.pop("file_id")
    if kind in _FILES:
        holder["filename"], holder["file_data"] = file.name, file.data_url()
    elif named.as_text:
        part["text"] = _as_text(file, named.where)
    elif holder is not part:
        holder["url"] = _image(file, named.where)
    else:
        url = _image(file, named.where)
        part["image_url"] = {"url": url} if kind == "image_url" else url


def _not_found(named: _Named) -> BadRequest:
    message = f"There is no file “{named.id[:64]}” of your account here. Upload it first with POST /v1/files."
    return BadRequest(message, named.where, "file_not_found", 422)


def _check_files(parts: Sequence[tuple[str, Json]]) -> None:
    """Check how files are given, and make data URLs of raw Base64. Raises BadRequest."""
    for where, part in parts:
        kind = text_of(part, "type")
        if kind == "file" and isinstance(part.get("file"), dict):  # chat
            _check_file(object_of(part, "file"), f"{where}.file")
        elif kind == "input_file":
            _check_file(part, where)


def _check_file(holder: Json, where: str) -> None:
    given = [name for name in ("file_id", "file_data", "file_url") if holder.get(name)]
    if len(given) != 1:
        raise BadRequest(
            "A file is given by one of “file_id”, “file_data” and “file_url”.", where, "invalid_value", 422
        )
    data = text_of(holder, "file_data")
    if data and not data.startswith("data:"):
        holder["file_data"] = _data_url(data, text_of(holder, "filename"), where)


def _data_url(data: str, filename: str, where: str) -> str:
    """Raw Base64 as a data URL with the type of the file name. Raises BadRequest."""
    kind, _ = mimetypes.guess_type(filename, strict=False) if filename else (None, None)
    if kind is None:
        message = (
            "Raw Base64 in “file_data” needs a “filename” whose ending tells the type, such as report.pdf; or send a "
            "data URL (data:application/pdf;base64,…)."
        )
        raise BadRequest(message, f"{where}.filename", "invalid_value", 422)
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(
            "The “file_data” is neither a data URL nor Base64.", f"{where}.file_data", "invalid_value", 422
        ) from None
    return f"data:{kind};base64,{data}"


_IMAGES: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
)


def _image(file: _File, where: str) -> str:
    kind = next((kind for mark, kind in _IMAGES if file.content.startswith(mark)), "")
    if not kind:
        raise unsupported(
            f"The file “{file.name[:80]}” is no image (PNG, JPEG, GIF, WebP). Give it as a file instead.", where
        )
    return f"data:{kind};base64,{file.base64}"


def _as_text(file: _File, where: str) -> str:
    if not (file.kind.startswith("text/") or file.kind.partition(";")[0] in _TEXTUAL):
        raise unsupported(
            f"The file “{file.name[:80]}” ({file.kind[:60]}) is no text. Give it as a file instead.", where
        )
    if len(file.content) > _MAX_TEXT:
        raise unsupported(
            f"The file “{file.name[:80]}” is too long to be put in as text: {len(file.content):,} bytes, "
            f"{_MAX_TEXT:,} at most.",
            where,
        )
    try:
        return f"Uploaded file “{file.name}” ({file.kind}):\n\n{file.content.decode()}"
    except UnicodeDecodeError:
        raise unsupported(f"The file “{file.name[:80]}” is not written in UTF-8.", where) from None
