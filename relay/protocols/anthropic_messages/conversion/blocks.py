"""Messages of a /v1/messages request in the hub form, for upstreams that speak another API. Pure.

Blocks that no other API has are told in words where they say something to the model, and refused where it would miss
what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, json_text, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.conversion.tools import ToolNames, changed_tool
from relay.protocols.anthropic_messages.request import PROTOCOL
from relay.protocols.anthropic_messages.thoughts import KINDS, thought_of_block
from relay.protocols.chat_completions.hub import (
    CACHE_CONTROL,
    CITATIONS,
    FAILED_TOOL,
    THINKING,
    document_part,
    raw_message,
)
from relay.protocols.fields import BadRequest, lost_members, unsupported

# What Claude Code writes at the head of its system prompt for Anthropic's books. It says nothing to a model, and is
# another with every request, so that no upstream could use its cache.
_BILLING: Final = "x-anthropic-billing-header:"
_MOST_TOLD: Final = 20_000  # characters of a block
_UNTOLD: Final = frozenset(("encrypted_content", "encrypted_index", "cache_control", "caller", "encrypted_stdout"))
_DEEPEST: Final = 20
_ANY: Final = ("type", "cache_control")
_CHANGES: Final = {"tool_addition": "can be called now", "tool_removal": "can no longer be called"}
# Members of blocks that are converted, or say nothing to the model.
_KNOWN: Final = {
    "text": (*_ANY, "text", "citations"),
    "image": (*_ANY, "source"),
    "document": (*_ANY, "source", "title", "context"),
    "tool_use": (*_ANY, "id", "name", "input", "caller"),
    "tool_result": (*_ANY, "tool_use_id", "content", "is_error"),
}


@dataclass(slots=True)
class _Turns:
    """The hub messages of a conversation that is converted."""

    names: ToolNames
    messages: list[Json] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def hub_messages(request: Json, names: ToolNames) -> tuple[list[Json], list[str]]:
    """The system prompt and the messages of a request, and the members that are not carried. Raises BadRequest."""
    turns = _Turns(names)
    _add_system(turns, request.get("system"), "system")
    messages = objects_of(request, "messages")
    last = max((index for index, one in enumerate(messages) if text_of(one, "role") == "user"), default=-1)
    for index, message in enumerate(messages):
        where, role = f"messages[{index}]", text_of(message, "role")
        content = message.get("content")
        if not isinstance(content, (str, list)):
            raise BadRequest(f"The content of {where} must be a text or a list of blocks.", f"{where}.content")
        turns.dropped += lost_members([message], ("role", "content", "clear_at"), "messages[].")
        if role == "system":
            if text_of(message, "clear_at") != "next_user_message" or index > last:
                _add_system(turns, content, where)
        elif role == "user":
            _add_user(turns, content, where)
        elif role == "assistant":
            _add_assistant(turns, content, where)
        else:
            raise BadRequest(f"The role of {where} must be user, assistant or system.", f"{where}.role")
    return turns.messages, list(dict.fromkeys(turns.dropped))


def _marked(part: Json, block: Json) -> Json:
    return {**part, CACHE_CONTROL: block["cache_control"]} if block.get("cache_control") else part


def _add_system(turns: _Turns, content: object, where: str) -> None:
    if isinstance(content, str):
        if content.strip():
            turns.messages.append({"role": "system", "content": content})
        return
    parts: list[Json] = []
    for number, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict) and text_of(block, "type") in _CHANGES and where != "system":
            parts += _tool_change(turns, block)
            continue
        if not isinstance(block, dict) or text_of(block, "type") != "text":
            raise BadRequest("The system prompt must be a text, or a list of text blocks.", f"{where}[{number}]")
        if text_of(block, "text").startswith(_BILLING):
            turns.dropped.append(f"system[{_BILLING[:-1]}]")
        elif text_of(block, "text").strip():
            parts.append(_marked({"type": "text", "text": block["text"]}, block))
    if parts:
        turns.messages.append({"role": "system", "content": _joined(parts)})


def _tool_change(turns: _Turns, block: Json) -> list[Json]:
    """What a block says that makes a tool available from there on, or takes it away."""
    kind = text_of(block, "type")
    name = changed_tool(block)
    if not name:
        turns.dropped.append(f"messages[].content[{kind}]")
        return []
    return [_marked({"type": "text", "text": f"The tool {turns.names.offered(name)} {_CHANGES[kind]}."}, block)]


def _joined(parts: list[Json]) -> object:
    """Content as a string where it is text only: not every upstream accepts lists of parts."""
    if parts and all(part["type"] == "text" and CACHE_CONTROL not in part for part in parts):
        return "\n".join(text_of(part, "text") for part in parts)
    return parts


def _lose(turns: _Turns, block: Json) -> None:
    if known := _KNOWN.get(text_of(block, "type")):
        turns.dropped += lost_members([block], known, "messages[].content[].")


# -- the user ----------------------------------------------------------------------------------------------------------


def _add_user(turns: _Turns, content: object, where: str) -> None:
    """The results of tools stand before what the user says, and images of them with it."""
    if isinstance(content, str):
        turns.messages.append({"role": "user", "content": content})
        return
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    results: list[Json] = []
    parts: list[Json] = []
    for number, block in enumerate(blocks):
        place = f"{where}.content[{number}]"
        _lose(turns, block)
        if text_of(block, "type") == "tool_result":
            message, others = _result(block, place)
            results.append(message)
            if others:
                label = f"Images and files of the result of {message['tool_call_id']}:"
                parts += [{"type": "text", "text": label}, *others]
        elif text_of(block, "type") in _CHANGES:
            parts += _tool_change(turns, block)
        else:
            parts += _user_parts(block, place)
    turns.messages += results
    if parts or not results:
        turns.messages.append({"role": "user", "content": _joined(parts) if parts else ""})


def _result(block: Json, where: str) -> tuple[Json, list[Json]]:
    """A tool's message, and the images and files of its result."""
    content, others = block.get("content"), []
    if isinstance(content, list):
        texts: list[str] = []
        for number, inner in enumerate(one for one in content if isinstance(one, dict)):
            for part in _user_parts(inner, f"{where}.content[{number}]"):
                if part["type"] == "text":
                    texts.append(text_of(part, "text"))
                else:
                    others.append(part)
        text = "\n".join(texts) or ("See the next message." if others else "")
    else:
        text = content if isinstance(content, str) else json_text(content) if content is not None else ""
    message: Json = {"role": "tool", "tool_call_id": text_of(block, "tool_use_id"), "content": text}
    if block.get("is_error") is True:
        message[FAILED_TOOL] = True
    return _marked(message, block), others


def _user_parts(block: Json, where: str) -> list[Json]:
    kind = text_of(block, "type")
    if kind == "text":
        return [_marked({"type": "text", "text": text_of(block, "text")}, block)] if text_of(block, "text") else []
    if kind == "image":
        return [_marked(_image(object_of(block, "source"), where), block)]
    if kind == "document":
        return _document(block, where)
    if kind == "search_result":
        lines = [f"Search result: {text_of(block, 'title')}", f"Source: {text_of(block, 'source')}"]
        return [{"type": "text", "text": "\n".join((*lines, *_texts(block)))}]
    if kind == "tool_reference":
        return [{"type": "text", "text": f"The tool {text_of(block, 'tool_name')} can be called now."}]
    if kind in {"container_upload", ""}:
        raise unsupported(f"The upstream of this model cannot be given a block of the type “{kind}”.", f"{where}.type")
    return [{"type": "text", "text": block_as_text(block)}]


def _texts(block: Json) -> list[str]:
    return [text_of(inner, "text") for inner in objects_of(block, "content")]


def _image(source: Json, where: str) -> Json:
    kind = text_of(source, "type")
    if kind == "base64":
        url = f"data:{text_of(source, 'media_type')};base64,{text_of(source, 'data')}"
    elif kind == "url":
        url = text_of(source, "url")
    else:
        raise _stored_file(where)
    return {"type": "image_url", "image_url": {"url": url}}


def _stored_file(where: str) -> BadRequest:
    return unsupported(
        "The upstream of this model cannot read files that are stored at another one: send the file itself, as "
        "“base64”.",
        f"{where}.source",
    )


def _document(block: Json, where: str) -> list[Json]:
    """A document as a file, or as what is written in it; its title and context stand before it."""
    source, title = object_of(block, "source"), text_of(block, "title")
    kind, context = text_of(source, "type"), text_of(block, "context")
    head: list[Json] = [{"type": "text", "text": f"About the next document: {context}"}] if context else []
    if kind == "base64":
        media = text_of(source, "media_type") or "application/pdf"
        name = title or f"document.{media.rpartition('/')[2]}"
        file: Json = {"filename": name, "file_data": f"data:{media};base64,{text_of(source, 'data')}"}
        return [*head, _marked({"type": "file", "file": file}, block)]
    if kind == "url":
        return [*head, _marked(document_part(text_of(source, "url"), title or None, f"{where}.source"), block)]
    named: list[Json] = [{"type": "text", "text": f"Document: {title}"}] if title else []
    if kind == "text":
        return [*head, *named, _marked({"type": "text", "text": text_of(source, "data")}, block)]
    if kind == "content":
        content = source.get("content")
        inner: list[Json] = [{"type": "text", "text": content}] if isinstance(content, str) else []
        for number, one in enumerate(objects_of(source, "content")):
            inner += _user_parts(one, f"{where}.source.content[{number}]")
        return [*head, *named, *inner]
    raise _stored_file(where)


# -- the assistant -----------------------------------------------------------------------------------------------------


def _add_assistant(turns: _Turns, content: object, where: str) -> None:
    """What the assistant said. A block that only this API has divides its message, and is told between its parts."""
    if isinstance(content, str):
        turns.messages.append({"role": "assistant", "content": content})
        return
    message: Json = {"role": "assistant", "content": None}
    for number, block in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(block, dict):
            continue
        kind, place = text_of(block, "type"), f"{where}.content[{number}]"
        _lose(turns, block)
        if kind == "text":
            _add_text(message, block)
        elif kind in KINDS:
            _add_thought(message, block)
        elif kind == "tool_use":
            calls = message.setdefault("tool_calls", [])
            assert isinstance(calls, list)  # noqa: S101  # made here
            calls.append(_call(block, turns.names))
        else:
            _end_message(turns, message)
            message = {"role": "assistant", "content": None}
            name = f"a content block of the type “{kind[:60]}”"
            told = block_as_text(block) if kind and kind != "container_upload" else ""
            turns.messages.append(raw_message(PROTOCOL, block, name, f"{place}.type", told))
    _end_message(turns, message)


def _end_message(turns: _Turns, message: Json) -> None:
    if any(message.get(name) for name in ("content", "tool_calls", "reasoning_content", THINKING)):
        turns.messages.append(message)


def _add_text(message: Json, block: Json) -> None:
    message["content"] = (text_of(message, "content") + text_of(block, "text")) or None
    if block.get("cache_control"):
        message[CACHE_CONTROL] = block["cache_control"]
    cited = [flat for citation in objects_of(block, "citations") if (flat := flat_citation(citation))]
    if cited:
        message[CITATIONS] = [*objects_of(message, CITATIONS), *cited]


def _add_thought(message: Json, block: Json) -> None:
    thought = thought_of_block(block)
    if text := text_of(block, "thinking"):
        message["reasoning_content"] = "\n\n".join(filter(None, (text_of(message, "reasoning_content"), text)))
    if thought["signature"]:
        message[THINKING] = [*objects_of(message, THINKING), thought]


def _call(block: Json, names: ToolNames) -> Json:
    arguments = block.get("input")
    called = {
        "name": names.offered(text_of(block, "name")),
        "arguments": json_text(arguments) if arguments is not None else "{}",
    }
    return _marked({"id": text_of(block, "id"), "type": "function", "function": called}, block)


def flat_citation(citation: Json) -> Json:
    """A citation of the web in the annotation form of the Responses API; empty for one of a document."""
    url = text_of(citation, "url")
    return {"type": "url_citation", "url": url, "title": text_of(citation, "title") or url} if url else {}


# -- in words ----------------------------------------------------------------------------------------------------------


def block_as_text(block: Json) -> str:
    """A block that only this API has, such as what a server tool has found, in words. Encoded data is left out."""
    kind = text_of(block, "type")
    told = {name: _told(value) for name, value in block.items() if name not in _UNTOLD and name not in {"type", "id"}}
    text = encode(told).decode()
    if len(text) > _MOST_TOLD:
        text = f"{text[:_MOST_TOLD]} … ({len(text) - _MOST_TOLD} characters left out)"
    return f"[An earlier step of this conversation, not written by the user: {kind[:60]} {text}]"


def _told(value: object, depth: int = 0) -> object:
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, list):
        return [_told(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {name: _told(entry, depth + 1) for name, entry in value.items() if name not in _UNTOLD}
    return value


def texts_of(blocks: Sequence[Json]) -> str:
    """The texts of blocks, one after another."""
    return "".join(text_of(block, "text") for block in blocks if text_of(block, "type") == "text")
