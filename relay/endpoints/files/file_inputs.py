"""Inlines files in the input of chat completions and responses: stored files, and raw Base64, become data URLs.

Everything else is left for the upstream to fetch.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, object_of, text_of
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import Upload
from relay.protocols.fields import BadRequest, Fields, unsupported
from relay.storage import files

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
_MARKS: Final = (b'"file_id"', b'"file_data"')


@dataclass(frozen=True, slots=True)
class _File:
    """A stored file with its bytes."""

    id: str
    name: str
    kind: str
    content: bytes

    def data_url(self) -> str:
        return f"data:{self.kind};base64,{base64.b64encode(self.content).decode()}"


async def inline_files(fields: Fields, member: str, caller: Caller) -> Fields | None:
    """The fields of a chat request with its files inlined; None when its messages name none. Raises BadRequest."""
    raw = bytes(fields[member])
    if not any(mark in raw for mark in _MARKS):
        return None
    messages = decode(raw)
    if not isinstance(messages, list):
        return None
    await inline_part_files([message for message in messages if isinstance(message, dict)], member, caller)
    return {**fields, member: msgspec.Raw(encode(messages))}


async def inline_item_files(items: Sequence[Json], where: str, caller: Caller) -> list[Json]:
    """Copies of a response's input items with their files inlined. Raises BadRequest."""
    text = encode(items)
    if not any(mark in text for mark in _MARKS):
        return list(items)
    copy = decode(text)
    found = [item for item in copy if isinstance(item, dict)] if isinstance(copy, list) else []
    await inline_part_files(found, where, caller)
    return found


async def inline_part_files(holders: Sequence[Json], where: str, caller: Caller) -> None:
    """Inline the files in the parts of messages or items, in place. Raises BadRequest."""
    parts: list[tuple[str, Json]] = []
    for index, holder in enumerate(holders):
        for member in ("content", "output"):
            content = holder.get(member)
            if isinstance(content, list):
                parts += [
                    (f"{where}[{index}].{member}[{number}]", part)
                    for number, part in enumerate(content)
                    if isinstance(part, dict)
                ]
    wanted = {
        file_id
        for _, part in parts
        for inner in (part, object_of(part, "file"), object_of(part, "image_url"))
        if (file_id := text_of(inner, "file_id"))
    }
    found = await snapshot_cache.in_slow_thread(_read, caller.user_id, sorted(wanted)) if wanted else {}
    if found or any(b'"file_data"' in encode(part) for _, part in parts):
        await asyncio.to_thread(_inline_parts, parts, found)
    elif wanted:
        _inline_parts(parts, found)


def _read(user_id: int, file_ids: list[str]) -> dict[str, _File]:
    rows = files.find_uploads(user_id, file_ids)
    return {
        file_id: _File(file_id, row.filename, row.content_type or "application/octet-stream", _content(row))
        for file_id, row in rows.items()
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
        _inline_part(part, where, found)


def _inline_part(part: Json, where: str, found: dict[str, _File]) -> None:
    kind = text_of(part, "type")
    if kind == "file" and isinstance(part.get("file"), dict):  # chat
        _file(object_of(part, "file"), f"{where}.file", found)
    elif kind == "input_file":
        _file(part, where, found)
    elif kind == "image_url" and isinstance(part.get("image_url"), dict):
        image = object_of(part, "image_url")
        if text_of(image, "file_id"):
            image["url"] = _image(text_of(image, "file_id"), f"{where}.image_url.file_id", found)
            image.pop("file_id")
    elif kind in {"input_image", "image_url", "image"} and text_of(part, "file_id"):
        url = _image(text_of(part, "file_id"), f"{where}.file_id", found)
        part["image_url"] = {"url": url} if kind == "image_url" else url
        part.pop("file_id")
    elif kind in {"input_text", "text"} and text_of(part, "file_id"):
        part["text"] = _as_text(_known(text_of(part, "file_id"), f"{where}.file_id", found), f"{where}.file_id")
        part.pop("file_id")


def _known(file_id: str, where: str, found: dict[str, _File]) -> _File:
    file = found.get(file_id)
    if file is None:
        raise BadRequest(
            f"There is no file “{file_id[:64]}” of your account here. Upload it first with POST /v1/files.",
            where,
            "file_not_found",
            422,
        )
    return file


def _file(holder: Json, where: str, found: dict[str, _File]) -> None:
    given = [name for name in ("file_id", "file_data", "file_url") if holder.get(name)]
    if len(given) != 1:
        raise BadRequest(
            "A file is given by one of “file_id”, “file_data” and “file_url”.", where, "invalid_value", 422
        )
    if given == ["file_id"]:
        file = _known(text_of(holder, "file_id"), f"{where}.file_id", found)
        holder.pop("file_id")
        holder["filename"] = file.name
        holder["file_data"] = file.data_url()
    elif given == ["file_data"]:
        data = text_of(holder, "file_data")
        if not data.startswith("data:"):
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


def _image(file_id: str, where: str, found: dict[str, _File]) -> str:
    file = _known(file_id, where, found)
    kind = next((kind for mark, kind in _IMAGES if file.content.startswith(mark)), "")
    if not kind:
        raise unsupported(
            f"The file “{file.name[:80]}” is no image (PNG, JPEG, GIF, WebP). Give it as a file instead.", where
        )
    return f"data:{kind};base64,{base64.b64encode(file.content).decode()}"


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
