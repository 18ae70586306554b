"""What the messages or items of a request have beside their text: images, files, and what may add to them. Pure.

Whatever is not known may stand for more tokens than its bytes: a document by its address, a film as a list of frames,
a reference to something that the upstream stores. Each costs a look at its members: 0.1 µs for a part that is text.

Source: the API references of OpenAI, Mistral, Anthropic, DashScope and vLLM, November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from portal.lib.json import Json, object_of, text_of


class Content(NamedTuple):
    """What the messages or items of a request have beside their text."""

    images: int = 0  # by their address or in the request
    media: bool = False  # there may be data URLs or Base64 in it, which count otherwise than texts do
    unbounded: bool = False  # something may add to it, so that it can fill the model's context


TEXT: Final = Content()
_UNKNOWN: Final = Content(0, media=True, unbounded=True)

# Items of the Responses API that add nothing to what the request contains.
OWN_ITEMS: Final = frozenset((
    "message", "reasoning", "function_call", "function_call_output", "custom_tool_call",
    "custom_tool_call_output", "local_shell_call", "local_shell_call_output", "apply_patch_call",
    "apply_patch_call_output", "additional_tools",
))  # fmt: skip
OWN_TOOLS: Final = frozenset(("function", "custom", "namespace", "local_shell", "apply_patch"))
# Members of messages of chat completions and of those items. Of any other it is not known what it brings along, such
# as the `audio` of an earlier answer by its id, or the `attachments` of other servers.
_MESSAGE: Final = frozenset((
    "role", "content", "name", "tool_calls", "tool_call_id", "tool_name", "function_call", "refusal",
    "reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks", "annotations",
    "cache_control", "prompt_cache_breakpoint", "extra_content", "provider_specific_fields", "prefix", "partial", "id",
))  # fmt: skip
_ITEM: Final = frozenset((
    "type", "id", "role", "status", "phase", "content", "summary", "name", "namespace", "call_id", "arguments",
    "input", "output", "tools", "encrypted_content", "action", "operation", "execution", "created_by", "caller",
    "cache_control", "prompt_cache_breakpoint",
))  # fmt: skip
_PARTS: Final = ("content", "output", "summary")

_TEXTS: Final = frozenset((
    "text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text", "encrypted_content",
))  # fmt: skip
_SAID: Final = frozenset((
    "type", "text", "refusal", "encrypted_content", "annotations", "logprobs", "cache_control",
    "prompt_cache_breakpoint", "id", "citations",
))  # fmt: skip
_IMAGES: Final = frozenset(("image_url", "input_image", "image", "computer_screenshot"))
_BESIDE: Final = frozenset(("type", "cache_control", "prompt_cache_breakpoint", "uuid", "id"))
# Members of parts whose size is known, by their type.
_MEDIA: Final = {
    "image_url": _BESIDE | {"image_url"},
    "input_image": _BESIDE | {"image_url", "file_id", "detail"},
    "input_audio": _BESIDE | {"input_audio"},
    "video_url": _BESIDE | {"video_url"},
    "audio_url": _BESIDE | {"audio_url"},
    "file": _BESIDE | {"file"},
    "input_file": _BESIDE | {"file_data", "file_id", "filename", "detail"},
}
# Blocks of Anthropic's messages whose size is known, and their members.
_BLOCKS: Final = {
    "image": _BESIDE | {"source", "transformations"},
    "document": _BESIDE | {"source", "citations", "context", "title"},
    "redacted_thinking": _BESIDE | {"data"},
    "tool_use": _BESIDE | {"name", "input", "caller", "toolset_name"},
    "tool_result": _BESIDE | {"tool_use_id", "content", "is_error", "toolset_name"},
    "search_result": _BESIDE | {"source", "title", "content", "citations"},
}
_SOURCES: Final = frozenset(("base64", "text"))  # types of sources whose data is in the request
# Members of the objects in them.
_HOLDERS: Final = frozenset(("url", "detail", "file_data", "file_id", "filename", "format", "data", "uuid"))
# An address that does not say that it is of something else than a picture: behind others, upstreams that fetch by
# themselves may find films and documents.
_PICTURE: Final = re.compile(
    r"https?://(?![^/?#]*youtu)[^/?#]+(?:/(?:[^?#]*/)?"
    r"(?:[^./?#]*|[^/?#]*\.(?:png|jpe?g|gif|webp|bmp|avif|hei[cf]|tiff?|svg)))?(?:[?#].*)?",
    re.I | re.S,
)
_LONGEST: Final = 8192  # characters of an address that is looked at
_kind: Final = itemgetter("type")


def content_of(items: object) -> Content:
    """What decoded messages or input items have beside their text. Long strings may have been emptied, addresses not
    (`portal.lib.json.without_long_strings`).
    """
    if items is None or isinstance(items, str):
        return TEXT
    if not isinstance(items, list):
        return _UNKNOWN
    parts: list[object] = []
    unbounded = False
    for item in items:
        if type(item) is not dict:
            return _UNKNOWN
        content = item.get("content")
        if type(content) is list:
            parts += content
        elif content is not None and type(content) is not str:
            unbounded = True
        if "type" in item:
            unbounded = _of_item(item, parts) or unbounded
        elif not _MESSAGE.issuperset(item):
            unbounded = _has_more(item, _MESSAGE) or unbounded
    return _of_parts(parts, unbounded) if parts or unbounded else TEXT


def _of_item(item: Json, parts: list[object]) -> bool:
    """Whether an item of the Responses API may add to its content; adds what it has beside `content` to the parts."""
    for name in ("output", "summary"):
        found = item.get(name)
        if isinstance(found, list):
            parts += found
        elif found is not None and not isinstance(found, str):
            return True
    kind = item["type"]
    if not isinstance(kind, str) or kind not in OWN_ITEMS or _has_more(item, _ITEM):
        return True
    return "tools" in item and _is_foreign("namespace", item["tools"], OWN_TOOLS)


def _has_more(holder: Json, known: frozenset[str]) -> bool:
    return not known.issuperset(holder) and any(
        name not in known and value not in (None, False, "", [], {}) for name, value in holder.items()
    )


def _of_parts(parts: list[object], unbounded: bool) -> Content:
    try:
        plain = _TEXTS.issuperset(map(_kind, parts)) and all(map(_SAID.issuperset, parts))  # type: ignore[arg-type]
    except (KeyError, TypeError):  # a part without a type, or that is no object
        plain = False
    if plain:
        return Content(0, unbounded, unbounded) if unbounded else TEXT
    images = 0
    for part in parts:
        if isinstance(part, str):
            continue
        if not isinstance(part, dict):
            unbounded = True
            continue
        images += _is_image(part)
        unbounded = unbounded or not _is_bounded(part)
        if isinstance(part.get("content"), list):  # of a tool's result
            inner = _of_parts(part["content"], unbounded=False)
            images, unbounded = images + inner.images, unbounded or inner.unbounded
    return Content(images, True, unbounded)


def _is_image(part: Json) -> bool:
    """By its type or its members: servers go by either."""
    kind = part.get("type")
    return "image_url" in part or "image" in part or (isinstance(kind, str) and kind in _IMAGES)


def _is_bounded(part: Json) -> bool:
    """Whether a part is text, or a file whose size is in the request."""
    kind = text_of(part, "type")
    if kind in _TEXTS:
        return not _has_more(part, _SAID)
    if kind == "thinking":
        thought = part.get("thinking")
        texts = _of_parts(thought, unbounded=False) if isinstance(thought, list) else TEXT
        return not texts.media and not _has_more(part, _SAID.union(("thinking", "signature", "closed")))
    if kind in _BLOCKS:
        return not _has_more(part, _BLOCKS[kind]) and _has_own_source(part)
    if kind not in _MEDIA or _has_more(part, _MEDIA[kind]):
        return False
    holder = object_of(part, kind) or part
    if holder is not part and _has_more(holder, _HOLDERS):
        return False
    if kind in {"image_url", "input_image"}:
        found = holder.get("url") if holder is not part else part.get("image_url")
        return found is None or (isinstance(found, str) and (_is_inline(found) or _shows_picture(found)))
    sources = [holder[name] for name in ("url", "data", "file_data", kind) if name in holder and holder is not part]
    sources += [part[name] for name in ("file_data", kind) if name in part and holder is part]
    return all(source is None or (isinstance(source, str) and _is_inline(source)) for source in sources)


def _has_own_source(part: Json) -> bool:
    """Whether the source of a block of Anthropic's messages is in the request, or the address of a picture."""
    source = part.get("source")
    if not isinstance(source, dict):
        return source is None or isinstance(source, str)
    kind = text_of(source, "type")
    if kind == "content":
        inner = source.get("content")
        return isinstance(inner, str) or (isinstance(inner, list) and not _of_parts(inner, unbounded=False).unbounded)
    return kind in _SOURCES or (
        kind == "url" and part.get("type") == "image" and _shows_picture(text_of(source, "url"))
    )


def _is_inline(text: str) -> bool:
    """Whether it is a data URL or Base64, and no address."""
    return text.startswith("data:") or ":" not in text


def _shows_picture(address: str) -> bool:
    return len(address) <= _LONGEST and _PICTURE.fullmatch(address) is not None


# -- tools -----------------------------------------------------------------------------------------------------------


class _Tool(msgspec.Struct):
    type: object = None
    tools: object = None
    model: object = None


_tools: Final = msgspec.json.Decoder(list[_Tool] | None)


def names_foreign_tools(tools: msgspec.Raw | None, own: Collection[str]) -> bool:
    """Whether the `tools` of a request, or those in a namespace of them, are not all of its `own` kinds: others are
    hosted, and bring what they find into the prompt.
    """
    if tools is None:
        return False
    try:
        found = _tools.decode(tools)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return True
    return any(_is_foreign(tool.type, tool.tools, own) for tool in found or ())


def models_in_tools(tools: msgspec.Raw | None) -> tuple[str, ...]:
    """The models that the `tools` of a request name, such as one that makes images. Most requests have no such tool."""
    if tools is None or b'"model"' not in bytes(tools):
        return ()
    try:
        found = _tools.decode(tools)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ()
    return tuple(tool.model for tool in found or () if isinstance(tool.model, str))


def _is_foreign(kind: object, inner: object, own: Collection[str]) -> bool:
    if not isinstance(kind, str) or kind not in own:
        return True
    if inner in (None, []):
        return False
    if not isinstance(inner, list):
        return True
    return any(not isinstance(one, dict) or _is_foreign(one.get("type"), one.get("tools"), own) for one in inner)
