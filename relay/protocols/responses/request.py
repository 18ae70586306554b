"""OpenAI's Responses API: what must be understood of a request and of a plain answer. All other fields pass through as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, text_of
from relay.protocols.fields import BadRequest, Fields, absent, optional_bool, read, read_fields, read_model, string, token_limit

PROTOCOL: Final = "responses"  # the name of this API where several are told apart
_OURS: Final = ("previous_response_id", "conversation", "background")  # what the portal may do in the upstream's place


@dataclass(frozen=True, slots=True)
class Target:
    """The upstream that a request is sent to."""

    model: str  # as it calls it
    stores: bool  # it may keep the response
    clamp: int | None  # at most so many tokens of answer
    knows_previous: bool  # it keeps the previous response, and is told its name


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A parsed request. `previous_id`, `conversation_id`: empty when it names none. `store`: the client wants the response to be kept."""

    body: bytes
    fields: Fields
    model: str
    stream: bool
    store: bool
    background: bool
    previous_id: str
    conversation_id: str
    output_limit: int | None

    def items(self) -> list[Json]:
        """The input of this turn as a list of items. Raises BadRequest."""
        return input_items(self.fields.get("input"))

    def upstream_body(self, target: Target, fields: Fields, items: Sequence[Json] | None) -> bytes:
        """The body for an upstream that speaks responses; the client's own bytes when nothing has to change.

        `fields`: those that may be sent. `items`: the input in place of the client's own.
        """
        keeps = target.stores and self.store
        stateless = target.knows_previous or not (self.previous_id or self.conversation_id)
        unchanged = target.model == self.model and items is None and target.clamp is None and fields is self.fields
        if unchanged and stateless and not self.background and (keeps or not self.store):
            return self.body
        out = dict(fields)
        if not target.knows_previous:
            for name in _OURS:
                out.pop(name, None)
        if items is not None:
            out["input"] = msgspec.Raw(encode(items))
        out.pop("background", None)
        out["model"] = msgspec.Raw(encode(target.model))
        out["stream"] = msgspec.Raw(b"true" if self.stream else b"false")
        if not self.stream:
            out.pop("stream_options", None)
        if not keeps:
            out["store"] = msgspec.Raw(b"false")
        if target.clamp is not None:
            out["max_output_tokens"] = msgspec.Raw(b"%d" % target.clamp)
        return encode(out)


def parse_responses_request(body: bytes) -> ResponsesRequest:
    """Raises BadRequest."""
    fields = read_fields(body)
    model = read_model(fields)
    previous = "" if absent(fields.get("previous_response_id")) else read(string, fields["previous_response_id"], "previous_response_id", "the id of a response") or ""
    conversation = _conversation(fields.get("conversation"))
    if previous and conversation:
        raise BadRequest("Send “previous_response_id” or “conversation”, one of the two: both say what came before.", "previous_response_id")
    if absent(fields.get("input")) and not previous and not conversation and absent(fields.get("prompt")):
        raise BadRequest("The field “input” is missing: send a text, or a list of items.", "input", "missing_required_parameter")
    stream = read(optional_bool, fields.get("stream"), "stream", "true or false") or False
    background = read(optional_bool, fields.get("background"), "background", "true or false") or False
    stored = read(optional_bool, fields.get("store"), "store", "true or false")
    limit = token_limit(fields["max_output_tokens"]) if "max_output_tokens" in fields else None
    if background and stored is False:
        raise BadRequest("A response that is made in the background must be stored: leave “store” out, or set it to true.", "background")
    return ResponsesRequest(body, fields, model, stream, stored is not False, background, previous, conversation, limit)


def _conversation(raw: msgspec.Raw | None) -> str:
    if absent(raw) or raw is None:
        return ""
    found = decode(raw)
    name = found if isinstance(found, str) else text_of(found, "id") if isinstance(found, dict) else ""
    if not name:
        raise BadRequest("The field “conversation” must be the id of a conversation, or an object with its “id”.", "conversation")
    return name


def input_items(raw: msgspec.Raw | None) -> list[Json]:
    """A text or a list of items as a list of items. Raises BadRequest."""
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


def for_another_store(items: Sequence[Json]) -> list[Json]:
    """Items that came from one upstream, for one that does not know them: without the ids that it would look up, and without thoughts that only ids stand for."""
    found: list[Json] = []
    for item in items:
        kind = text_of(item, "type")
        if kind == "item_reference" or (kind == "reasoning" and not item.get("encrypted_content") and not item.get("content")):
            continue
        found.append({name: value for name, value in item.items() if name not in {"id", "status"}} if kind != "reasoning" else {k: v for k, v in item.items() if k != "id"})
    return found
