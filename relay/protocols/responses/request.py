"""Parses the fields of a /v1/responses request that the portal needs; all others pass through as bytes. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, objects_of, text_of
from relay.protocols.chat_completions.signatures.packed import is_packed
from relay.protocols.fields import (
    BadRequest,
    Fields,
    absent,
    decode_field,
    optional_bool,
    read_document,
    read_model,
    string,
    token_limit,
)
from relay.protocols.naming.references import Reference
from relay.protocols.prompts.content import OWN_ITEMS, OWN_TOOLS, TEXT, Content, content_of, names_foreign_tools
from relay.protocols.prompts.lengths import hold_to, one_limit
from relay.protocols.prompts.thinking import thinking_budget
from relay.protocols.token_estimate import least_units, texts_in
from relay.protocols.usage import ADDED_TO_CHAT

PROTOCOL: Final = "responses"  # the name of this API in the hub's raw blocks
_TOLD: Final = frozenset(("user", "system", "developer"))  # roles whose messages count as input for certain
# The portal may do these in the upstream's place.
_HANDLED: Final = ("previous_response_id", "conversation", "background")
# Members of items that say nothing to a model of another vendor.
_UNTOLD: Final = frozenset(("type", "id", "execution", "encrypted_content"))
# The names that items with a summary have had.
COMPACTIONS: Final = frozenset(("compaction", "compaction_summary", "context_compaction"))
# Encoded data, such as an image: a text without a space, longer than any name or address.
_DATA: Final = re.compile(r"data:[^,\s]{0,200},\S*|[A-Za-z0-9+/_=-]{1024,}")
_SEALED_PART: Final = "encrypted_content"  # the type of a part of a tool's result
LONGEST_ID: Final = 64
_DEEPEST: Final = 20  # levels of an item
_MOST_TOLD: Final = 20_000  # characters of an item; the outputs of shells are shortened to fewer by their clients
# Members and parts of items that add nothing to the input beyond what a request contains.
_INERT: Final = frozenset((
    "model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "temperature", "top_p",
    "top_logprobs", "text", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "reasoning",
    "include", "store", "background", "truncation", "user", "metadata", "client_metadata", "service_tier",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
))  # fmt: skip
_TEXT_PARTS: Final = frozenset(("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"))


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """The properties of an upstream that decide about the request's body."""

    model: str  # the upstream's name for it
    stores: bool  # it may store the response
    clamp: int | None  # limit of the answer in tokens, None: no limit
    previous_id: str = ""  # by which it knows the previous response, so that naming it is enough; empty: it does not


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A parsed request of /v1/responses."""

    body: bytes  # as the client sent it, but for a model that the path names
    fields: Fields  # its top-level members, undecoded
    model: str
    stream: bool
    store: bool  # the client wants the response to be stored
    background: bool
    previous_id: str  # empty: none
    conversation_id: str  # empty: none
    output_limit: int | None  # tokens of the answer; None: no limit
    content: Content = TEXT  # of its own input
    named: Sequence[Reference] = ()  # objects of an account that may be the user's own, beside items of the input

    def items(self) -> list[Json]:
        """The request's own input as a list of items. Raises BadRequest."""
        return input_items(self.fields.get("input"))

    def at_most(self, tokens: int, content: Content | None = None) -> int | None:
        """These tokens, those of all its bytes; None where something may add to them.

        That is a file or film by its URL, a hosted tool, or an item, a part or a member that is not known.
        `content`: of the whole conversation, if that is more than its own input.
        """
        fields = self.fields
        if (content or self.content).unbounded or any(
            name not in _INERT and name not in _HANDLED and not absent(raw) for name, raw in fields.items()
        ):
            return None
        return None if names_foreign_tools(fields.get("tools"), OWN_TOOLS) else tokens

    def thinking(self) -> int | None:
        """The tokens of thinking that it names; None: it names none."""
        return thinking_budget(self.fields)

    def most_input(self) -> int | None:
        """The tokens of input that a request cannot exceed; None where something can add to what it contains.

        That is an earlier response, a conversation, a stored prompt, a file, an image, audio, a hosted tool, or what
        is not known. A token is a byte at least. This decodes the input, so it is for reports that are in doubt.
        """
        fields = self.fields
        if any(name not in _INERT and not absent(raw) for name, raw in fields.items()):
            return None
        values: Json = {name: decode(fields[name]) for name in ("input", "tools") if name in fields}
        items = objects_of(values, "input")
        tools = objects_of(values, "tools") + [tool for item in items for tool in objects_of(item, "tools")]
        if any(tool.get("type") not in OWN_TOOLS for tool in tools):
            return None
        for item in items:
            if item.get("type", "message") not in OWN_ITEMS:
                return None
            parts = [part for name in ("content", "output", "summary") for part in objects_of(item, name)]
            if any(part.get("type") not in _TEXT_PARTS for part in parts):
                return None
        return len(self.body) + ADDED_TO_CHAT

    def least_input(self, enough: float) -> float:
        """The estimated tokens of its own input that are certain, counted until there are `enough`."""
        fields = self.fields
        if any(name not in _INERT.union(_HANDLED) and not absent(raw) for name, raw in fields.items()):
            return 0.0
        if not absent(fields.get("truncation")) and decode(fields["truncation"]) != "disabled":
            return 0.0
        items = [item for item in self.items() if text_of(item, "role") in _TOLD or "output" in item]
        texts = [text for item in items for name in ("content", "output") for text in texts_in(item.get(name))]
        return least_units([decode(fields.get("instructions", b"null")), *texts], enough)

    def upstream_body(self, target: UpstreamTarget, fields: Fields, items: Sequence[Json] | None) -> bytes:
        """The body for an upstream that speaks the Responses API; the client's own bytes when nothing has to change.

        `fields`: those that may be sent. `items`: replaces the client's own input.
        """
        stored = target.stores and self.store
        stateless = not (self.previous_id or self.conversation_id)
        unchanged = target.model == self.model and items is None and target.clamp is None and fields is self.fields
        if unchanged and stateless and not self.background and (stored or not self.store):
            return self.body
        out = dict(fields)
        for name in _HANDLED:
            out.pop(name, None)
        if target.previous_id:
            out["previous_response_id"] = msgspec.Raw(encode(target.previous_id))
        if items is not None:
            out["input"] = msgspec.Raw(encode(items))
        out["model"] = msgspec.Raw(encode(target.model))
        out["stream"] = msgspec.Raw(b"true" if self.stream else b"false")
        if not self.stream:
            out.pop("stream_options", None)
        if not stored:
            out["store"] = msgspec.Raw(b"false")
        if target.clamp is not None:
            hold_to(out, ("max_output_tokens",), target.clamp)
        return encode(out)


def parse_responses_request(body: bytes, model_in_path: str = "") -> ResponsesRequest:
    """Parse the body of a request. Raises BadRequest. `model_in_path`: stands before the body's."""
    named: list[Reference] = []
    body, fields, decoded = read_document(body, model_in_path, named)
    body, fields = one_limit(body, fields, "max_output_tokens")
    model = read_model(fields)
    previous = ""
    if not absent(raw := fields.get("previous_response_id")):
        previous = decode_field(string, raw, "previous_response_id", "the id of a response") or ""
    conversation = _conversation(fields.get("conversation"))
    if previous and conversation:
        message = "Send “previous_response_id” or “conversation”, one of the two: both say what came before."
        raise BadRequest(message, "previous_response_id")
    if absent(fields.get("input")) and not previous and not conversation and absent(fields.get("prompt")):
        message = "The field “input” is missing: send a text, or a list of items."
        raise BadRequest(message, "input", "missing_required_parameter")
    stream = decode_field(optional_bool, fields.get("stream"), "stream", "true or false") or False
    background = decode_field(optional_bool, fields.get("background"), "background", "true or false") or False
    stored = decode_field(optional_bool, fields.get("store"), "store", "true or false")
    limit = token_limit(fields["max_output_tokens"]) if "max_output_tokens" in fields else None
    if background and stored is False:
        message = "A response that is made in the background must be stored: leave “store” out, or set it to true."
        raise BadRequest(message, "background")
    return ResponsesRequest(
        body,
        fields,
        model,
        stream,
        stored is not False,
        background,
        previous,
        conversation,
        limit,
        content_of(decoded.get("input")),
        named,
    )


def _conversation(raw: msgspec.Raw | None) -> str:
    if absent(raw) or raw is None:
        return ""
    found = decode(raw)
    name = found if isinstance(found, str) else text_of(found, "id") if isinstance(found, dict) else ""
    if not name:
        message = "The field “conversation” must be the id of a conversation, or an object with its “id”."
        raise BadRequest(message, "conversation")
    return name


def input_items(raw: msgspec.Raw | None) -> list[Json]:
    """The input of a request, which may be a text, as a list of items. Raises BadRequest."""
    if raw is None or absent(raw):
        return []
    found = decode(raw)
    if isinstance(found, str):
        return [user_item(found)]
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise BadRequest("The field “input” must be a text, or a list of items.", "input")
    return found


def user_item(text: str) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def without_packed_reasoning(items: Sequence[Json]) -> list[Json]:
    """Items without the reasoning of upstreams that speak another API."""
    return [item for item in items if not is_packed(item.get("encrypted_content"))]


# Items that are told by their content alone. Others (hosted calls) are told with their id, which their form requires.
_TOLD_BY_CONTENT: Final = frozenset(
    ("", "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning")
)


def without_upstream_ids(items: Sequence[Json]) -> list[Json]:
    """Items of one upstream in a form for another, which does not store them.

    Removes the ids that the other upstream would look up, references, and reasoning items without content.
    """
    found: list[Json] = []
    for item in items:
        kind = text_of(item, "type")
        if kind == "item_reference":
            continue
        if kind == "reasoning" and not item.get("encrypted_content") and not item.get("content"):
            continue
        if kind not in _TOLD_BY_CONTENT:
            found.append(item)
            continue
        removed = {"id"} if kind == "reasoning" else {"id", "status"}
        found.append({name: value for name, value in item.items() if name not in removed})
    return found


def _developer_item(text: str) -> Json:
    return {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]}


def item_as_text(item: Json) -> str:
    """An item that only the Responses API has, such as the call of a hosted tool, for a model behind another API.

    Encoded data is left out.
    """
    kind = text_of(item, "type")
    if kind in COMPACTIONS:
        return (
            "[An earlier part of this conversation was replaced by a summary that only the service which wrote it can "
            "read.]"
        )
    told = {name: _told(value) for name, value in item.items() if name not in _UNTOLD and value not in (None, [], {})}
    text = encode(told).decode()
    if len(text) > _MOST_TOLD:
        text = f"{text[:_MOST_TOLD]} … ({len(text) - _MOST_TOLD} characters left out)"
    return f"[An earlier step of this conversation, not written by the user: {kind[:60]} {text}]"


def _told(value: object, depth: int = 0) -> object:
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, str):
        return _DATA.sub(lambda found: f"({len(found[0])} characters of data left out)", value)
    if isinstance(value, list):
        return [_told(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {name: _told(entry, depth + 1) for name, entry in value.items()}
    return value


def sealed_content(item: Json) -> str:
    """The content of an item that only the account that made it can read; empty: none.

    What the portal packed for a vendor is none: every account of the vendor reads it.
    """
    found = text_of(item, "encrypted_content")
    return "" if is_packed(found) else found


def is_reasoning(item: Json) -> bool:
    """Whether an item holds what a model has thought, or what only its account can read."""
    return text_of(item, "type") == "reasoning" or bool(sealed_content(item)) or bool(_sealed_parts(item))


def _sealed_parts(item: Json) -> list[str]:
    """The encrypted parts of a tool's result (Codex: FunctionCallOutputContentItem::EncryptedContent)."""
    parts = objects_of(item, "output") if isinstance(item.get("output"), list) else []
    return [text_of(part, "encrypted_content") for part in parts if text_of(part, "type") == _SEALED_PART]


def _without_sealed_parts(item: Json, foreign: Collection[str] | None) -> Json:
    """An item without encrypted parts. `foreign`: those that are left out; None: all."""
    if not any(foreign is None or sealed in foreign for sealed in _sealed_parts(item)):
        return item
    parts = [
        part
        for part in objects_of(item, "output")
        if text_of(part, "type") != _SEALED_PART
        or not (foreign is None or text_of(part, "encrypted_content") in foreign)
    ]
    return {**item, "output": parts or "(The result is encrypted, and cannot be read here.)"}


def with_short_ids(items: Sequence[Json]) -> list[Json]:
    """Items with call ids of at most 64 characters, the same for a call and its output, and without longer ids.

    OpenAI takes no longer ones; LiteLLM writes Gemini's signatures into them, and Copilot's items have others.
    """
    return list(map(_with_short_ids, items))


def _with_short_ids(item: Json) -> Json:
    found = item
    if len(call_id := text_of(item, "call_id")) > LONGEST_ID:
        found = {**found, "call_id": f"call_{hashlib.sha256(encode(call_id)).hexdigest()[:32]}"}
    if len(text_of(item, "id")) > LONGEST_ID:
        found = {name: value for name, value in found.items() if name != "id"}
    return found


def _without_readable_reasoning(items: Sequence[Json]) -> tuple[list[Json], list[str]]:
    """Items without reasoning that can be read, which OpenAI refuses in its input; and the names of what is left out.

    OpenAI: "Invalid 'input[2].content': array too long. Expected an array with maximum length 0" (querymt #976).
    """
    found: list[Json] = []
    for item in items:
        if text_of(item, "type") != "reasoning" or not item.get("content"):
            found.append(item)
        elif sealed_content(item):
            found.append({name: value for name, value in item.items() if name != "content"})
    return found, ["input[reasoning]"] if len(found) < len(items) else []


def without_sealed(
    items: Sequence[Json], foreign: Collection[str] | None, readable: bool = True, converted: bool = False
) -> tuple[list[Json], list[str]]:
    """Items without the encrypted content of other accounts, and the names of what is left out.

    `foreign`: the content that is left out; None: all, and reasoning that says nothing without it. Ids of the other
    items are left out as well: an upstream that looks them up would miss the reasoning that belongs to them.
    `readable`: the upstream takes reasoning that can be read. `converted`: for another API, which has no place for any
    encrypted reasoning, and is told the summaries.
    """
    names: list[str] = []
    if not readable:
        items, names = _without_readable_reasoning(items)
    if foreign is not None and not foreign and not converted:
        return list(items), names
    opened = [_without_sealed_parts(item, None if converted else foreign) for item in items]
    if any(new is not item for new, item in zip(opened, items, strict=True)):
        items = opened
        names.append(f"input[{_SEALED_PART}]")
    found: list[Json] = []
    for item in items:
        kind, sealed = text_of(item, "type"), sealed_content(item)
        can_be_told = item.get("content") or (converted and item.get("summary"))
        if sealed and (foreign is None or sealed in foreign or (converted and kind == "reasoning")):
            names.append("input[reasoning.encrypted_content]" if kind == "reasoning" else f"input[{kind}]")
            if kind in COMPACTIONS:
                found.append(_developer_item(item_as_text(item)))
            elif can_be_told:
                found.append({name: value for name, value in item.items() if name != "encrypted_content"})
        elif kind != "reasoning" or sealed or foreign is not None or can_be_told:
            found.append(item)
    if not names:
        return (list(items), names) if len(found) == len(items) else (found, ["input[reasoning]"])
    told = [
        {name: value for name, value in item.items() if name != "id"}
        if text_of(item, "type") in _TOLD_BY_CONTENT and not sealed_content(item)
        else item
        for item in found
    ]
    return told, list(dict.fromkeys(names))
