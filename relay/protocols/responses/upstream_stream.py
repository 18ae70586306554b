"""Decodes the events of a response into hub chunks. Pure; one object per stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.hub import THINKING
from relay.protocols.error_objects import event_name, is_error_object, named_error, unreadable_error
from relay.protocols.events import NOTHING_MADE, UNREADABLE, Unreadable, payload
from relay.protocols.output_items import ARGUMENTS, CALLS, INPUT, OutputItem, OutputItems
from relay.protocols.responses.answer import (
    call_of,
    cancelled_error,
    finish_of,
    generated_image,
    is_unknown_call,
    message_break,
    nested_annotation,
    reasoning_summary,
    thinking_of,
)
from relay.protocols.responses.objects import (
    DONE_ALIAS,
    ERRORS,
    TERMINAL,
    event_error,
    in_full_form,
    is_nothing,
    terminal_kind,
)
from relay.protocols.responses.usage import chat_usage, is_search, parse_responses_usage, with_tools
from relay.protocols.usage import Usage

_OPENING: Final = frozenset(("response.created", "response.in_progress", "response.queued"))
# Events with text: the type of their item, the member of the hub's delta, and where a `done` event has the whole.
_TEXTS: Final[dict[str, tuple[str, str, str]]] = {
    "response.output_text": ("message", "content", "text"),
    "response.refusal": ("message", "refusal", "refusal"),
    "response.reasoning_summary_text": ("reasoning", "reasoning_content", "text"),
    "response.reasoning_text": ("reasoning", "reasoning_content", "text"),
    ARGUMENTS: ("function_call", "arguments", "arguments"),
    INPUT: ("custom_tool_call", "input", "input"),
}
# The texts that the types of content parts have.
_PARTS: Final = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "summary_text": "response.reasoning_summary_text",
    "reasoning_text": "response.reasoning_text",
}


@dataclass(slots=True)
class ResponsesDecoder:
    """The decoder of one stream. A complete text or item adds only what did not arrive before."""

    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the final event has arrived
    _head: Json = field(default_factory=dict)  # members that every chunk has
    _items: OutputItems = field(default_factory=OutputItems)
    _says: bool = False  # something of it is in a chunk
    _searches: int = 0  # on the web, that the upstream has made
    _unread: bool = False  # a delta of an unknown kind had text
    _calls: int = 0  # calls that are in a chunk
    _call_ids: set[str] = field(default_factory=set)  # of them
    _said: dict[str, tuple[OutputItem, str]] = field(default_factory=dict)  # by member: whose text was last, its end

    def chunks(self, event: bytes) -> list[Json]:
        data = payload(event)
        found, broken = read_object(data)
        if found is None:
            self.error = unreadable_error(event, data) if data else named_error(event)
            return []
        kind = text_of(found, "type") or event_name(event)
        if kind == DONE_ALIAS:
            kind = terminal_kind(object_of(found, "response"))
        if kind in ERRORS or (not kind.startswith("response.") and is_error_object(found, False)):
            shown = {"error": event_error(found)} if kind in ERRORS and not found.get("error") else found
            self.error = encode(clean(shown) if broken else shown)
            return []
        try:
            out = self._event(kind, found)
        except Unreadable:
            self.error = UNREADABLE
            return []
        if broken:
            whole = clean(out)
            return whole if isinstance(whole, list) else []
        return out

    def finish(self, clean: bool) -> None:
        """Does nothing: a response without its final event is truncated."""

    def _event(self, kind: str, found: Json) -> list[Json]:
        base, _, change = kind.rpartition(".")
        if base in _TEXTS and change in {"delta", "done"}:
            return self._text(base, change, found)
        if not kind and found:
            raise Unreadable  # an event of another API
        if kind in TERMINAL:
            return self._end(kind, _object(found, "response"))
        if kind in _OPENING:
            self._set_head(object_of(found, "response"))
            return []
        if kind in {"response.output_item.added", "response.output_item.done"}:
            item = _object(found, "item")
            if not item:
                raise Unreadable
            item = in_full_form(item)
            record = self._items.find(found, text_of(item, "type"), item, begins=kind.endswith("added"))
            return self._open_call(record, item) if kind.endswith("added") else self._complete(record, item)
        if kind in {"response.content_part.done", "response.reasoning_summary_part.done"}:
            part = _object(found, "part")
            base = _PARTS.get(text_of(part, "type"), "")
            return self._text(base, "done", {**found, **part}) if base else []
        if kind == "response.reasoning_summary_part.added" and int_of(found, "summary_index"):
            begun = self._items.find(found, "reasoning", {}).begun
            return [self._chunk({"reasoning_content": "\n\n"})] if begun else []
        if kind == "response.output_text.annotation.added":
            return self._cite(self._items.find(found, "message", {}), [object_of(found, "annotation")])
        self._unread = self._unread or (change == "delta" and bool(text_of(found, "delta")))
        return []

    # -- texts -------------------------------------------------------------------------------------------------------

    def _text(self, base: str, change: str, found: Json) -> list[Json]:
        kind, member, whole_name = _TEXTS[base]
        value = found.get("delta" if change == "delta" else whole_name)
        if value is not None and not isinstance(value, str):
            raise Unreadable
        record = self._items.find(found, kind, {})
        part = int_of(found, "summary_index" if "summary" in base else "content_index")
        if change == "delta":
            return self._say(record, base, member, part, value or "", found)
        opened = self._open_call(record, {**found, "type": kind, "id": ""}) if kind in CALLS else []
        return opened + self._fill(record, base, member, part, value or "", found)

    def _say(self, item: OutputItem, base: str, member: str, part: int, text: str, found: Json) -> list[Json]:
        """The chunks of a piece of text."""
        whole = item.join((base, part), text)
        logprobs = objects_of(found, "logprobs") if found.get("logprobs") else []
        if not whole:  # logprobs may come with half a character
            return [self._chunk({"content": ""}, logprobs=logprobs)] if logprobs and member == "content" else []
        if item.is_said_otherwise(base, member):
            return []
        if member in {"arguments", "input"}:
            return [self._arguments(item, whole)] if item.said_call else []
        out: list[Json] = []
        if member == "reasoning_content":
            if not item.begun and self._items.any_reasoning():
                out.append(self._chunk({member: "\n\n"}))
        else:
            last, end = self._said.get(member, (item, ""))
            if last is not item and (between := message_break(end, whole)):
                out.append(self._chunk({member: between}))
            self._said[member] = item, whole[-1]
        item.begun = True
        out.append(self._chunk({member: whole}, logprobs=logprobs))
        return out

    def _fill(self, item: OutputItem, base: str, member: str, part: int, whole: str, found: Json) -> list[Json]:
        """The chunks of a complete text, for what did not arrive as deltas."""
        rest = item.missing((base, part), whole)
        out = self._say(item, base, member, part, rest, found) if rest else []
        half = item.halves.rest((base, part))
        return [*out, *self._say(item, base, member, part, half, {})] if half else out

    # -- items -------------------------------------------------------------------------------------------------------

    def _open_call(self, record: OutputItem, item: Json) -> list[Json]:
        """The chunk with a call's id and name, once its name is known, and with the arguments that came before."""
        call = call_of(item)
        if call is None or record.said_call:
            return []
        kind, member = ("custom", "input") if text_of(call, "type") == "custom" else ("function", "arguments")
        record.name = text_of(object_of(call, kind), "name") or record.name
        name = record.name
        if not name or record.shares_id:
            return []
        record.said_call, record.number, record.custom = True, self._calls, kind == "custom"
        self._calls += 1
        made = text_of(call, "id")
        call_id: Json = {"id": made} if made and made not in self._call_ids else {}  # the client's code makes another
        self._call_ids.add(made)
        inner: Json = {"name": name, member: ""}
        out = [self._chunk({"tool_calls": [{"index": record.number, **call_id, "type": kind, kind: inner}]})]
        early = record.said_of(_call_base(record))
        return [*out, self._arguments(record, early)] if early else out

    def _arguments(self, item: OutputItem, text: str) -> Json:
        inner: Json = {"custom": {"input": text}} if item.custom else {"function": {"arguments": text}}
        return self._chunk({"tool_calls": [{"index": item.number, **inner}]})

    def _complete(self, record: OutputItem, item: Json) -> list[Json]:
        """The chunks of a complete item, for the content that did not arrive before."""
        kind, first = text_of(item, "type"), not record.done
        if self._items.repeats(record, item) and not (record.said_call or record.begun):
            return []
        self._searches += first and is_search(kind, item.get("action"))
        if is_unknown_call(item):
            raise Unreadable
        if kind in CALLS:
            return self._complete_call(record, item)
        if kind == "message":
            return self._complete_message(record, item)
        if kind == "reasoning" and first:
            out: list[Json] = []
            if not record.begun and (text := reasoning_summary(item)):
                out += self._say(record, "response.reasoning_text", "reasoning_content", 0, text, {})
            out += self._halves(record)
            return [*out, self._chunk({THINKING: [thinking_of(item)]})] if item.get("encrypted_content") else out
        if first and (image := generated_image(item)) is not None:
            return [self._chunk({"images": [image]})]
        return []

    def _complete_call(self, record: OutputItem, item: Json) -> list[Json]:
        out = self._open_call(record, item)
        if not record.said_call:
            raise Unreadable  # a call without a name cannot be made
        member = "input" if record.custom else "arguments"
        whole = item.get(member)
        if whole is not None and not isinstance(whole, str):
            whole = encode(whole).decode()
        out += self._fill(record, _call_base(record), member, 0, whole or "", {})
        return out if text_of(item, "status") == "incomplete" else out + self._empty_call(record)

    def _empty_call(self, record: OutputItem) -> list[Json]:
        """The arguments of a call that was made with nothing at all: an empty object."""
        if record.custom or record.filled or record.said_of(_call_base(record)).strip(" \t\r\n"):
            return []
        record.filled = True
        return [self._arguments(record, "{}")]

    def _complete_message(self, record: OutputItem, item: Json) -> list[Json]:
        if item.get("content") and not isinstance(item["content"], list):
            raise Unreadable
        out: list[Json] = []
        for base, name in (("response.output_text", "text"), ("response.refusal", "refusal")):
            member = _TEXTS[base][1]
            parts = [part for part in objects_of(item, "content") if isinstance(part.get(name), str)]
            rest = record.missing_of_all(base, "".join(text_of(part, name) for part in parts))
            logprobs: list[Json] = [entry for part in parts for entry in objects_of(part, "logprobs")]
            if rest:
                out += self._say(record, base, member, record.last_part(base), rest, {"logprobs": logprobs})
        out += self._halves(record)
        annotations = [entry for part in objects_of(item, "content") for entry in objects_of(part, "annotations")]
        return out + self._cite(record, annotations)

    def _halves(self, record: OutputItem) -> list[Json]:
        """Replacements for the halves of characters that the item's texts end with."""
        out: list[Json] = []
        for base, part in [text for text in record.texts if record.halves]:
            if half := record.halves.rest((base, part)):
                out += self._say(record, base, _TEXTS[base][1], part, half, {})
        return out

    def _cite(self, record: OutputItem, annotations: list[Json]) -> list[Json]:
        new = [entry for entry in annotations if entry and entry not in record.cited]
        record.cited += new
        nested = [cited for entry in new if (cited := nested_annotation(entry)) is not None]
        return [self._chunk({"annotations": nested})] if nested else []

    def _end(self, kind: str, response: Json) -> list[Json]:
        self._set_head(response)
        usage = response.get("usage")
        tools = encode(clean(response.get("tool_usage")))
        reported = parse_responses_usage(encode(clean(usage))) if isinstance(usage, dict) else self.usage
        self.usage = with_tools(reported, tools, self._searches)
        status = text_of(response, "status")
        if "failed" in {kind.removeprefix("response."), status}:
            error = object_of(response, "error") or {"message": "The upstream failed.", "code": "upstream_error"}
            self.error = encode(clean({"error": {"type": "server_error", "param": None, **error}}))
            return []
        if "cancelled" in {kind.removeprefix("response."), status}:
            self.error = cancelled_error()
            return []
        output = response.get("output")
        if output and (not isinstance(output, list) or not all(isinstance(item, dict) for item in output)):
            raise Unreadable
        found: list[Json] = []
        for record, item in self._items.match(list(map(in_full_form, objects_of(response, "output")))):
            found += self._complete(record, item)
        self.usage = with_tools(reported, tools, self._searches)
        incomplete = kind == "response.incomplete" or status == "incomplete"
        for record in self._items.open():
            if record.kind in CALLS:
                call = record.as_call()
                if self._items.repeats(record, call) and not record.said_call:
                    continue
                found += self._open_call(record, call)
                if not record.said_call:
                    raise Unreadable
            found += self._halves(record)
            if record.kind in CALLS and not incomplete:
                found += self._empty_call(record)
        if self._unread and not self._says and self._items.only(("message", "reasoning")):
            raise Unreadable  # all of its text is under a name that is not known
        if self._items.is_empty() and output == [] and is_nothing(status, b"[]", self.usage):
            self.error = NOTHING_MADE
            return []
        found.append(self._chunk({}, finish_of(response, self._calls > 0, incomplete)))
        if isinstance(usage, dict):
            found.append({**self._head, "choices": [], "usage": chat_usage(usage)})
        self.done = True
        return found

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _set_head(self, response: Json) -> None:
        if self._head:
            return
        created = response.get("created_at")
        response_id = text_of(response, "id")
        self._head = {
            "id": f"chatcmpl-{response_id.removeprefix('resp_')}" if response_id else "",
            "object": "chat.completion.chunk",
            "created": int(created) if isinstance(created, (int, float)) else 0,
            "model": text_of(response, "model"),
        }

    def _chunk(self, delta: Json, finish: str | None = None, logprobs: list[Json] | None = None) -> Json:
        self._set_head({})
        self._says = self._says or bool(delta)
        shown: Json | None = {"content": logprobs, "refusal": None} if logprobs else None
        return {**self._head, "choices": [{"index": 0, "delta": delta, "logprobs": shown, "finish_reason": finish}]}


def _call_base(record: OutputItem) -> str:
    return INPUT if record.kind == "custom_tool_call" else ARGUMENTS


def _object(holder: Json, name: str) -> Json:
    """An object member; empty when it is missing. Raises Unreadable for anything else."""
    found = holder.get(name)
    if found is not None and not isinstance(found, dict):
        raise Unreadable
    return found or {}
