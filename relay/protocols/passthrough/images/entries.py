"""The entries of answers with images, and the events that stand for one: images, and errors in place of one. Pure.

Source: OpenAI's image API; Volcengine's and BytePlus' image generation API, whose `data` has an entry with an `error`
for each image that failed, and whose stream has `partial_succeeded` and `partial_failed` before one `completed` without
an image; MiniMax's streaming events, which are the same and may end with an `error` that has the usage. November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode, decode_object, encode
from relay.protocols.error_objects import error_of_entry, told_entry
from relay.protocols.errors import Told

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_EMPTY: Final = (b"null", b'""', b"[]", b"{}")
_IMAGES: Final = ("url", "b64_json")
# Members that hold no image, of vendors that call theirs otherwise.
_NO_IMAGE: Final = frozenset(
    (
        "background", "base_resp", "code", "content_filter_results", "created", "created_at", "detail", "error",
        "error_code", "error_msg", "errors", "finishReason", "finish_reason", "height", "id", "image_index", "index",
        "message", "model", "msg", "object", "output_format", "prompt_filter_results", "quality", "request_id",
        "revised_prompt", "seed", "size", "status", "tools", "type", "usage", "width",
    )
)  # fmt: skip
_LARGEST_ERROR: Final = 64 * 1024  # bytes of a member that may be one
SUCCEEDED: Final = frozenset((b"image_generation.partial_succeeded", b"image_edit.partial_succeeded"))
FAILED: Final = frozenset((b"image_generation.partial_failed", b"image_edit.partial_failed"))
COMPLETED: Final = frozenset((b"image_generation.completed", b"image_edit.completed"))


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """What an entry, or an event, has."""

    is_image: bool
    error: bytes | None = None  # as a body of its own


def read_entry(raw: bytes | msgspec.Raw) -> ImageEntry:
    """Read an entry of an answer's list, or the data of an event. Images are not decoded.

    An image is in `url` or `b64_json`, or under a name of the vendor's; or the entry is an address or Base64 itself.
    """
    try:
        entry = _members.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return ImageEntry(bytes(raw) not in _EMPTY)
    values = [entry[name] for name in _IMAGES if name in entry]
    if not values:
        values = [value for name, value in entry.items() if name not in _NO_IMAGE]
    is_image = any(bytes(value) not in _EMPTY for value in values)
    said: Json = {
        name: decode(value)
        for name, value in entry.items()
        if name in _NO_IMAGE and len(memoryview(value)) <= _LARGEST_ERROR
    }
    return ImageEntry(is_image, error_of_entry(said, is_image))


def read_entries(data: msgspec.Raw) -> list[ImageEntry] | None:
    """Read the list of an answer; None when it is none."""
    try:
        return [read_entry(raw) for raw in _raws.decode(data)]
    except (msgspec.DecodeError, ValueError):
        return None


def clean_entries(body: bytes, told: Told) -> bytes:
    """An answer whose entries that are errors say what the client is told of them."""
    try:
        whole = _members.decode(body)
        entries = _raws.decode(whole.get("data", b"null"))
    except (msgspec.DecodeError, ValueError):
        return body
    whole["data"] = msgspec.Raw(encode([_cleaned(raw, told) for raw in entries]))
    return encode(whole)


def _cleaned(raw: msgspec.Raw, told: Told) -> object:
    error = read_entry(raw).error
    entry = decode_object(raw) if error is not None else None
    if entry is None or error is None:
        return raw
    images = {name: entry[name] for name in _IMAGES if entry.get(name)}
    return {**images, **told_entry(entry, error, told)}
