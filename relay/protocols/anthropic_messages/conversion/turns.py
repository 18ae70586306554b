"""Messages of the hub as turns of the Messages API, which demands more of their order than others. Pure.

- The system prompt stands apart, and user and assistant take turns; the user begins.
- The results of all calls of a turn stand first in the next one of the user.
- No text is blank, and no message is empty; the last text of an assistant ends without a space.
- Ids of calls are letters, digits, `_` and `-`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import unquote_to_bytes

from portal.lib.json import Json, decode_object, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.thoughts import signed_blocks
from relay.protocols.chat_completions.hub import (
    CACHE_CONTROL,
    DOCUMENT,
    EXTENSIONS,
    FAILED_TOOL,
    RAW,
    unsupported_block_error,
)
from relay.protocols.chat_completions.transcript import strict_messages
from relay.protocols.fields import BadRequest, lost_members, unsupported
from relay.protocols.naming.call_ids import CallIds

_SYSTEM: Final = frozenset(("system", "developer"))
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL: Final = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?)(;base64)?,", re.S)
_NO_OUTPUT: Final = "(no output)"
_BEGIN: Final = "(The conversation begins with the assistant.)"
_MARK: Final = "cache_control"  # as clients of chat completions write it for Anthropic's models, too
_IMAGES: Final = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
_MESSAGE: Final = EXTENSIONS.union((
    "role", "content", "refusal", "tool_calls", "tool_call_id", "annotations", "reasoning_content", "reasoning", "id",
    "thinking_blocks", _MARK,
))  # fmt: skip
_PART: Final = EXTENSIONS.union(("type", "text", "refusal", "image_url", "file", "where", _MARK))
_KINDS: Final = {"text": "text", "input_text": "text", "refusal": "refusal"}


def _call_ids() -> CallIds:
    return CallIds(partial(_FOREIGN.sub, "_"))


def turns_of(messages: Sequence[Json], vendor: str) -> tuple[list[Json], list[Json], list[str]]:
    """The system prompt as blocks, the turns, and what is dropped of the messages. Raises BadRequest.

    `vendor`: the upstream's, for the thoughts that it wants back.
    """
    leading = next((n for n, one in enumerate(messages) if text_of(one, "role") not in _SYSTEM), len(messages))
    system = [block for message in messages[:leading] for block in _system_blocks(message)]
    rest, dropped = strict_messages(messages[leading:], late_system=False)
    dropped += _lost(rest, vendor)
    ids = _call_ids()
    turns: list[Json] = []
    for number, message in enumerate(rest, leading):
        role, where = text_of(message, "role"), f"messages[{number}]"
        if role == "assistant":
            _add(turns, "assistant", _assistant(message, vendor, ids, where))
        elif role == "tool":
            _add(turns, "user", [_result(message, ids, where)])
        elif role == "user":
            _add(turns, "user", _marked(_user_blocks(message.get("content"), where), message))
        else:
            error = f"The role of {where} must be system, developer, user, assistant or tool."
            raise BadRequest(error, f"{where}.role")
    if not turns and system:
        return [], [{"role": "user", "content": system}], dropped
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": _BEGIN}]})
    if turns and turns[-1]["role"] == "assistant":
        _strip_end(turns[-1])
    return system, [turn for turn in turns if turn["content"]], dropped


def _add(turns: list[Json], role: str, blocks: list[Json]) -> None:
    """Add blocks to the turn of a role: to the last one, if it is of the same, so that results stay first in it."""
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] = [*objects_of(turns[-1], "content"), *blocks]
    else:
        turns.append({"role": role, "content": blocks})


def _strip_end(turn: Json) -> None:
    """The API refuses an answer to be continued that ends with a space."""
    blocks = objects_of(turn, "content")
    if blocks and text_of(blocks[-1], "type") == "text":
        text = text_of(blocks[-1], "text").rstrip()
        turn["content"] = [*blocks[:-1], {**blocks[-1], "text": text}] if text else blocks[:-1]


def _lost(messages: Sequence[Json], vendor: str) -> list[str]:
    found: list[str] = []
    for message in messages:
        known = _MESSAGE.union(("name",)) if text_of(message, "role") == "tool" else _MESSAGE
        found += lost_members([message], known, "messages[].")
        parts = objects_of(message, "content")
        found += lost_members(parts, _PART, "messages[].content[].")
        images = [
            {**image, "detail": ""} if image.get("detail") == "auto" else image
            for image in (object_of(part, "image_url") for part in parts)
        ]
        found += [name for name in lost_members(images, ("url",), "messages[].content[].image_url.")]
        unsigned = text_of(message, "role") == "assistant" and text_of(message, "reasoning_content")
        found += ["messages[].reasoning_content"] if unsigned and not signed_blocks(message, vendor) else []
    return list(dict.fromkeys(found))


# -- blocks ------------------------------------------------------------------------------------------------------------


def _mark_of(holder: Json) -> Json:
    mark = holder.get(CACHE_CONTROL) or holder.get(_MARK)
    return {_MARK: mark} if mark else {}


def _marked(blocks: list[Json], message: Json) -> list[Json]:
    """Blocks of which the last ends a cached prefix, where the message does."""
    mark = _mark_of(message)
    return [*blocks[:-1], {**blocks[-1], **mark}] if mark and blocks else blocks


def _text_block(text: str, holder: Json) -> list[Json]:
    return [{"type": "text", "text": text, **_mark_of(holder)}] if text.strip() else []


def _system_blocks(message: Json) -> list[Json]:
    content = message.get("content")
    if isinstance(content, str):
        return _text_block(content, message)
    blocks: list[Json] = []
    for part in objects_of(message, "content"):
        if text_of(part, "type") not in _KINDS:
            raise BadRequest("The content of a system message must be text.", "messages")
        blocks += _text_block(text_of(part, "text"), part)
    return _marked(blocks, message)


def _user_blocks(content: object, where: str) -> list[Json]:
    if isinstance(content, str) or content is None:
        return _text_block(content or "", {})
    if not isinstance(content, list):
        raise BadRequest(f"The content of {where} must be a text or a list of parts.", f"{where}.content")
    return [
        block
        for number, part in enumerate(content)
        if isinstance(part, dict)
        for block in _part(part, f"{where}.content[{number}]")
    ]


def _part(part: Json, where: str) -> list[Json]:
    kind = text_of(part, "type")
    if kind in _KINDS:
        return _text_block(text_of(part, _KINDS[kind]), part)
    if kind == "image_url":
        image = part.get("image_url")
        url = image if isinstance(image, str) else text_of(object_of(part, "image_url"), "url")
        if url[:21].lower() == "data:application/pdf;":
            return [{**_document({"file_data": url}, where), **_mark_of(part)}]
        return [{"type": "image", "source": _image_source(url, where), **_mark_of(part)}]
    if kind == "file":
        return [{**_document(object_of(part, "file"), where), **_mark_of(part)}]
    if DOCUMENT in part:
        document = object_of(part, DOCUMENT)
        title: Json = {"title": document["filename"]} if document.get("filename") else {}
        source: Json = {"type": "url", "url": document.get("url")}
        return [{"type": "document", "source": source, **title, **_mark_of(part)}]
    if RAW in part:
        raise unsupported_block_error(part)
    message = (
        f"The upstream of this model cannot be given a content part of the type “{kind[:60]}”. Leave it out, or use "
        "another model."
    )
    raise unsupported(message, f"{where}.type")


def _image_source(url: str, where: str) -> Json:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    found = _DATA_URL.match(url)
    media = found[1].lower() if found is not None else ""
    media = "image/jpeg" if media == "image/jpg" else media
    if found is None or not found[3] or media not in _IMAGES:
        message = "The upstream of this model takes JPEG, PNG, GIF and WebP images, as Base64 in a data URL."
        raise unsupported(message, f"{where}.image_url")
    return {"type": "base64", "media_type": media, "data": url[found.end() :]}


def _document(file: Json, where: str) -> Json:
    """A file within the request as a document: a PDF as it is, and text as text."""
    data, title = text_of(file, "file_data"), text_of(file, "filename")
    found = _DATA_URL.match(data)
    named: Json = {"title": title} if title else {}
    if found is not None and found[3] and found[1].lower() == "application/pdf":
        source: Json = {"type": "base64", "media_type": "application/pdf", "data": data[found.end() :]}
        return {"type": "document", "source": source, **named}
    if found is not None and found[3] and found[1].lower() in _IMAGES:
        return {"type": "image", "source": _image_source(data, where)}
    if found is not None and found[1].lower().startswith("text/") and (text := _text_in(data[found.end() :], found[3])):
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **named}
    raise unsupported(
        "The upstream of this model takes PDF documents and files of text, in the data URL “file_data”. Send others as "
        "text.",
        f"{where}.file",
    )


def _text_in(data: str, encoded: str | None) -> str:
    """The text in the data of a URL; empty where it is none, or blank. `encoded`: it is Base64."""
    try:
        text = (base64.b64decode(data, validate=True) if encoded else unquote_to_bytes(data)).decode()
    except (binascii.Error, ValueError):
        return ""
    return text if text.strip() else ""


def _result(message: Json, ids: CallIds, where: str) -> Json:
    """A tool's message as the result of its call. One without output says so: the API refuses an empty text."""
    content = message.get("content")
    blocks = _user_blocks(content, where)
    plain = isinstance(content, str) or (len(blocks) == 1 and blocks[0].keys() == {"type", "text"})
    found: Json = {"type": "tool_result", "tool_use_id": ids.of(text_of(message, "tool_call_id"))}
    found["content"] = (text_of(blocks[0], "text") if plain else blocks) if blocks else _NO_OUTPUT
    if message.get(FAILED_TOOL):
        found["is_error"] = True
    return {**found, **_mark_of(message)}


def _assistant(message: Json, vendor: str, ids: CallIds, where: str) -> list[Json]:
    blocks = signed_blocks(message, vendor)
    content = message.get("content")
    texts: list[Json] = []
    if isinstance(content, list):
        known = [part for part in content if isinstance(part, dict) and text_of(part, "type") not in {"thinking"}]
        texts = _user_blocks(known, where)
    elif content is not None:
        texts = _user_blocks(content, where)
    if refusal := text_of(message, "refusal"):
        texts += _text_block(refusal, {})
    calls = [_tool_use(call, ids) for call in objects_of(message, "tool_calls")]
    return [*blocks, *_marked([*texts, *calls], message)]


def _tool_use(call: Json, ids: CallIds) -> Json:
    function = object_of(call, "function")
    arguments = text_of(function, "arguments")
    return {
        "type": "tool_use",
        "id": ids.begin(text_of(call, "id")),
        "name": text_of(function, "name"),
        "input": decode_object(arguments) or {},
        **_mark_of(call),
    }
