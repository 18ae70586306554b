"""The hub form: what every text API converts to and from. Pure.

It is the form of chat completions, plus extension members for features that chat completions lack. Extension members
carry a feature from one API to another that supports it as well. An API that lacks the feature ignores them; chat
completions, which lack all of them, remove them (`without_extensions`). Their names begin with `hub_`, so that no
vendor's member is mistaken for one.

    hub_thinking       of a message or a delta: the model's reasoning, a list of {"id", "text", "summary", "signature"};
                       text and summary are lists of strings, signature is what the vendor needs to accept it again
    hub_budget         of a request: the tokens that the model may think for, beside the `reasoning_effort` that comes
                       nearest to it; 0: it shall not think
    hub_top_k          of a request: from how many of the likeliest tokens the next is chosen; others report `top_k`
                       among the dropped parameters
    hub_error          of a tool's message: true where the tool failed; others say so in words (`failure_in_words`)
    hub_stop           of a choice: {"reason", "sequence", "details"}, why the model stopped in the words of its API,
                       where these say more than the `finish_reason`
    hub_cache_control  of a message, a content part or a tool: the end of a cached prefix, as the client wrote it
    hub_citations      of an assistant's message: the sources of its text, in the annotation form of the Responses API
    hub_document       a content part: {"type": "hub_document", "hub_document": {"url", "filename"}, "where"}
    hub_raw            a message or content part that only one API defines: {"role" or "type": "hub_raw",
                       "hub_raw": {"protocol", "value", "name", "text", "ignored"}, "where"}; a message's text, which
                       may be missing, says the same in words for APIs that have no such message; these then report
                       `ignored` among the dropped parameters

`where` is the client's field, for error messages. Refusals use chat's own member `refusal`.
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
BUDGET: Final = "hub_budget"
TOP_K: Final = "hub_top_k"
FAILED_TOOL: Final = "hub_error"
STOP: Final = "hub_stop"
EXTENSIONS: Final = frozenset((THINKING, CACHE_CONTROL, CITATIONS, DOCUMENT, RAW, BUDGET, TOP_K, FAILED_TOOL, STOP))
# Request members that are reported as dropped by APIs that lack them, under the client's name.
_REPORTED: Final = {TOP_K: "top_k"}
THOUGHTS: Final = "messages[].reasoning_content"  # as it is reported where thoughts are not sent
_UNTHINKING: Final = "thinking"  # what clients turn off without naming an effort
_FAILED: Final = "[The tool failed.]"


def thinking_entry(ident: str, text: list[str], summary: list[str], signature: object) -> Json:
    """One entry of `hub_thinking`."""
    return {"id": ident, "text": text, "summary": summary, "signature": signature}


def made_call_id(completion_id: str, number: int) -> str:
    """An id for a tool call of which the upstream sent none."""
    return f"call_{completion_id.removeprefix('chatcmpl-')}_{number}"


def document_part(url: str, filename: object, where: str) -> Json:
    """A content part for a document that the upstream fetches from a URL."""
    return {"type": DOCUMENT, DOCUMENT: {"url": url, "filename": filename}, "where": where}


def raw_part(protocol: str, value: Json, name: str, where: str) -> Json:
    """A content part that only one API defines. `name`: what it is, for error messages."""
    return {"type": RAW, RAW: {"protocol": protocol, "value": value, "name": name}, "where": where}


def raw_message(protocol: str, value: Json, name: str, where: str, text: str = "") -> Json:
    """An item among the messages that only one API defines.

    `name`: what it is, for error messages. `text`: the same in words; empty: the item cannot be left out.
    """
    field, kind = where.partition("[")[0], text_of(value, "type")[:60]
    raw = {"protocol": protocol, "value": value, "name": name, "text": text, "ignored": f"{field}[{kind}]"}
    return {"role": RAW, RAW: raw, "where": where}


def unsupported_block_error(block: Json) -> BadRequest:
    """The error for a `hub_document` or `hub_raw` that an API does not support."""
    where = text_of(block, "where")
    if DOCUMENT in block:
        return unsupported(
            "The upstream of this model cannot fetch files by “file_url”: send the file as “file_data”, or upload it "
            "and name its “file_id”.",
            where,
        )
    name = text_of(object_of(block, RAW), "name")
    advice = " Leave it out, or use another model." if "role" in block else ""
    return unsupported(f"The upstream of this model cannot be given {name}.{advice}", where)


def without_extensions(request: Json) -> Json:
    """A hub request without extension members, as chat completions accept it.

    Raises BadRequest for a document or a raw block, unless it says the same in words (`chat_completions.transcript`):
    dropping either would change the answer.
    """
    found = strip_extensions(
        {**request, "messages": [_message(message) for message in objects_of(request, "messages")]}
    )
    if any(CACHE_CONTROL in tool for tool in objects_of(request, "tools")):
        found["tools"] = [strip_extensions(tool) for tool in objects_of(request, "tools")]
    return found


def reported_extensions(request: Json) -> list[str]:
    """The extension members of a request itself that an API without them reports as dropped, by the client's names.

    A budget has an effort beside it, but for one that turns thinking off: models without thinking refuse any effort.
    """
    found = [name for member, name in _REPORTED.items() if request.get(member) is not None]
    return [*found, _UNTHINKING] if request.get(BUDGET) == 0 and not request.get("reasoning_effort") else found


def complete_parameters(request: Json) -> Json:
    """A request whose functions have a list of parameters, be it empty: OpenAI refuses an object without one."""
    tools = objects_of(request, "tools")
    lacking = [_lacks_list(object_of(object_of(tool, "function"), "parameters")) for tool in tools]
    if not any(lacking):
        return request
    complete = [_with_list(tool) if lacks else tool for tool, lacks in zip(tools, lacking, strict=True)]
    return {**request, "tools": complete}


def _lacks_list(parameters: Json) -> bool:
    return parameters.get("type") == "object" and "properties" not in parameters


def _with_list(tool: Json) -> Json:
    function = object_of(tool, "function")
    return {**tool, "function": {**function, "parameters": {**object_of(function, "parameters"), "properties": {}}}}


def without_thoughts(request: Json) -> Json:
    """A hub request without the thoughts that models have sealed."""
    messages = [
        {name: value for name, value in message.items() if name != THINKING}
        for message in objects_of(request, "messages")
    ]
    return {**request, "messages": messages}


def failure_in_words(message: Json) -> Json:
    """A tool's message that says in words that the tool failed, where it did."""
    if not message.get(FAILED_TOOL):
        return message
    content = message.get("content")
    if isinstance(content, list):
        told: object = [{"type": "text", "text": _FAILED}, *content]
    else:
        told = f"{_FAILED}\n{content}" if content else _FAILED
    return {**message, "content": told}


def _message(message: Json) -> Json:
    if RAW in message:
        raise unsupported_block_error(message)
    if FAILED_TOOL in message:
        message = failure_in_words(message)
    content = message.get("content")
    if isinstance(content, list):
        message = {**message, "content": [_part(part) if isinstance(part, dict) else part for part in content]}
    return strip_extensions(message)


def _part(part: Json) -> Json:
    if DOCUMENT in part or RAW in part:
        raise unsupported_block_error(part)
    return strip_extensions(part)


def strip_foreign(message: Json) -> Json:
    """A chat message that a client or an upstream wrote, without members by the names of extensions.

    Only the portal sets extension members: others would be sent on as raw blocks and signatures.
    """
    content = message.get("content")
    if isinstance(content, list) and any(
        isinstance(part, dict) and not EXTENSIONS.isdisjoint(part) for part in content
    ):
        parts = [strip_extensions(part) if isinstance(part, dict) else part for part in content]
        message = {**message, "content": parts}
    return strip_extensions(message)


def strip_extensions(holder: Json) -> Json:
    """A message, content part, tool or delta without its extension members; the same object when it has none."""
    if EXTENSIONS.isdisjoint(holder):
        return holder
    return {name: value for name, value in holder.items() if name not in EXTENSIONS}
