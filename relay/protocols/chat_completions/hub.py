"""The hub: the form through which all APIs for text convert. It is that of chat completions, with extension members for what chat lacks. Pure.

Extension members carry a feature from one API to another that has it, too. An API that lacks the feature passes over them; chat
completions, which lack all of them, take them out (`without_extensions`). Their names begin with `hub_`, so that no vendor's member is
mistaken for one.

    hub_thinking       of a message or a delta: the model's thoughts, a list of {"id", "text", "summary", "signature"}; text and summary
                       are lists of strings, signature is what the vendor wants back to believe them
    hub_cache_control  of a message, a content part or a tool: where the vendor shall end a cached prefix, as its client wrote it
    hub_citations      of an assistant's message: the sources of its text, as the Responses API writes annotations
    hub_document       a content part: {"type": "hub_document", "hub_document": {"url", "filename"}, "where"}
    hub_raw            a message or content part that only one API knows: {"role" or "type": "hub_raw", "hub_raw": {"protocol", "value",
                       "name"}, "where"}

`where` names the client's field, for errors. Refusals have their own member in chat (`refusal`) and need none.
"""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.fields import BadRequest, unsupported

THINKING: Final = "hub_thinking"
CACHE_CONTROL: Final = "hub_cache_control"
CITATIONS: Final = "hub_citations"
DOCUMENT: Final = "hub_document"
RAW: Final = "hub_raw"
EXTENSIONS: Final = frozenset((THINKING, CACHE_CONTROL, CITATIONS, DOCUMENT, RAW))


def thoughts(ident: str, text: list[str], summary: list[str], signature: object) -> Json:
    """One entry of `hub_thinking`."""
    return {"id": ident, "text": text, "summary": summary, "signature": signature}


def document(url: str, filename: object, where: str) -> Json:
    """A content part for a document that is to be fetched from an address."""
    return {"type": DOCUMENT, DOCUMENT: {"url": url, "filename": filename}, "where": where}


def raw_part(protocol: str, value: Json, name: str, where: str) -> Json:
    """A content part that only one API knows. `name`: what it is, in words."""
    return {"type": RAW, RAW: {"protocol": protocol, "value": value, "name": name}, "where": where}


def raw_message(protocol: str, value: Json, name: str, where: str) -> Json:
    """An item among the messages that only one API knows."""
    return {"role": RAW, RAW: {"protocol": protocol, "value": value, "name": name}, "where": where}


def refusal_of(block: Json) -> BadRequest:
    """Why an API cannot be given a `hub_document` or `hub_raw`."""
    where = text_of(block, "where")
    if DOCUMENT in block:
        return unsupported("The upstream of this model cannot fetch files by “file_url”: send the file as “file_data”, or upload it and name its “file_id”.", where)
    name = text_of(object_of(block, RAW), "name")
    return unsupported(f"The upstream of this model cannot be given {name}. Leave it out, or use another model.", where)


def without_extensions(request: Json) -> Json:
    """A hub request as chat completions are. Raises BadRequest for a document or a raw block, without which the answer would be another."""
    found = {**request, "messages": [_message(message) for message in objects_of(request, "messages")]}
    if any(CACHE_CONTROL in tool for tool in objects_of(request, "tools")):
        found["tools"] = [_bare(tool) for tool in objects_of(request, "tools")]
    return found


def _message(message: Json) -> Json:
    if RAW in message:
        raise refusal_of(message)
    content = message.get("content")
    if isinstance(content, list):
        message = {**message, "content": [_part(part) if isinstance(part, dict) else part for part in content]}
    return _bare(message)


def _part(part: Json) -> Json:
    if DOCUMENT in part or RAW in part:
        raise refusal_of(part)
    return _bare(part)


def _bare(holder: Json) -> Json:
    return holder if EXTENSIONS.isdisjoint(holder) else {name: value for name, value in holder.items() if name not in EXTENSIONS}


def bare_message(message: Json) -> Json:
    """An answer's message, or a delta, without extensions."""
    return _bare(message)
