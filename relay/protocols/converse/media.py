"""Images, documents, films and recordings of the hub as blocks of the Converse API. Pure.

It takes data within the request; files at Amazon S3 would be read with the account of the channel.

Source: botocore 1.44's model of bedrock-runtime and Bedrock's user guide, November 2026.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from portal.lib.json import Json, object_of, text_of
from relay.protocols.fields import BadRequest, unsupported

_DATA_URL: Final = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?)(;base64)?,", re.S)
_IMAGES: Final = {
    "image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp",
}  # fmt: skip
_FILMS: Final = {
    "video/mp4": "mp4", "video/quicktime": "mov", "video/x-matroska": "mkv", "video/webm": "webm",
    "video/x-flv": "flv", "video/mpeg": "mpeg", "video/x-ms-wmv": "wmv", "video/3gpp": "three_gp",
}  # fmt: skip
_SOUNDS: Final = frozenset(("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "m4a", "webm", "pcm"))
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_FORMATS: Final = frozenset(_DOCUMENTS.values())
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")  # in a name, which others could take for instructions
_LONGEST_NAME: Final = 180


@dataclass(slots=True)
class Names:
    """Names of the documents of a request, each of them once."""

    _taken: set[str] = field(default_factory=set)

    def of(self, filename: str) -> str:
        """A name in letters that the API takes, without its ending."""
        stem = filename.rpartition(".")[0] or filename
        name = " ".join(_FOREIGN.sub(" ", stem).split())[:_LONGEST_NAME].strip() or "document"
        found, number = name, 1
        while found in self._taken:
            number += 1
            found = f"{name} {number}"
        self._taken.add(found)
        return found


def image_block(url: str, where: str) -> Json:
    """An image of a data URL. Raises BadRequest."""
    kind, data = _read(url, where, "images")
    if kind not in _IMAGES:
        raise unsupported("The upstream of this model takes JPEG, PNG, GIF and WebP images.", where)
    return {"image": {"format": _IMAGES[kind], "source": {"bytes": data}}}


def film_block(url: str, where: str) -> Json:
    """A film of a data URL. Raises BadRequest."""
    kind, data = _read(url, where, "films")
    if kind not in _FILMS:
        raise unsupported("The upstream of this model takes MP4, MOV, MKV, WebM, FLV, MPEG, WMV and 3GP films.", where)
    return {"video": {"format": _FILMS[kind], "source": {"bytes": data}}}


def sound_block(audio: Json, where: str) -> Json:
    """A recording (`input_audio`). Raises BadRequest."""
    form = text_of(audio, "format") or "wav"
    if form not in _SOUNDS:
        raise unsupported(f"The upstream of this model takes no recordings in “{form[:20]}”.", where)
    data = text_of(audio, "data")
    return {
        "audio": {"format": form, "source": {"bytes": _read(data, where, "recordings")[1] if ":" in data else data}}
    }


def file_block(file: Json, names: Names, where: str) -> Json:
    """A file of a data URL: an image, a film, or a document of a kind that the API takes. Raises BadRequest."""
    filename = text_of(file, "filename")
    url = text_of(file, "file_data")
    if not url:
        raise unsupported("Send the file as “file_data”, or upload it here and name its “file_id”.", where)
    kind, data = _read(url if url.startswith("data:") else f"data:application/pdf;base64,{url}", where, "files")
    if kind in _IMAGES:
        return image_block(url, where)
    if kind in _FILMS:
        return film_block(url, where)
    ending = filename.rpartition(".")[2].lower() if "." in filename else ""
    form = _DOCUMENTS.get(kind) or (ending if ending in _FORMATS else "") or ("txt" if kind.startswith("text/") else "")
    if not form:
        raise unsupported(
            "The upstream of this model takes PDF, Word, Excel, CSV, HTML, Markdown and text files. Send others as "
            "text.",
            where,
        )
    return {"document": {"format": form, "name": names.of(filename), "source": {"bytes": data}}}


def url_of(part: Json, name: str) -> str:
    """The address in a part such as `image_url`, which may be the member itself."""
    value = part.get(name)
    return value if isinstance(value, str) else text_of(object_of(part, name), "url")


def _read(url: str, where: str, what: str) -> tuple[str, str]:
    """The media type and the data, in Base64, of a data URL. Raises BadRequest."""
    found = _DATA_URL.match(url)
    if found is None:
        raise unsupported(
            f"The upstream of this model fetches no {what}: send them within the request, as a data URL.", where
        )
    data = url[found.end() :]
    try:
        whole = data if found[3] else base64.b64encode(unquote_to_bytes(data)).decode()
        if not whole or (found[3] and len(data) < 4096 and not base64.b64decode(data, validate=True)):
            raise ValueError
    except (binascii.Error, ValueError):
        raise BadRequest("The data of the data URL cannot be read.", where) from None
    return found[1].strip().lower(), whole
