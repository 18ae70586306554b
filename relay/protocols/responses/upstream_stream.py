"""Events of a response as the chunks of a chat completion. Pure; one object follows one stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, encode, int_of, object_of, objects_of, text_of
from relay.protocols.codec import EventCodec
from relay.protocols.events import payload
from relay.protocols.responses.upstream import call_of, finish_of, nested_annotations
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.responses.usage_forms import chat_usage
from relay.protocols.token_estimate import token_units

DONE: Final = b"data: [DONE]\n\n"
_TERMINAL: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))


@dataclass(slots=True)
class ChatFromResponses(EventCodec):
    """Feed it the upstream's bytes; send on what it returns. The members are those that `relay.gateway.stream.Pump` asks of a codec."""

    include_usage: bool = False
    legacy: bool = False
    fallback_id: str = ""
    final: Json | None = None
    _head: Json = field(default_factory=dict)
    _calls: dict[int, int] = field(default_factory=dict)  # output index to the call's own
    _spoken: set[tuple[int, int]] = field(default_factory=set)  # parts that have come as deltas
    _filled: set[int] = field(default_factory=set)  # calls whose arguments have come as deltas
    _ended: set[int] = field(default_factory=set)  # items that have come whole

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return b"data: " + encode({"error": {"message": message, "type": kind, "param": param, "code": code}}) + b"\n\n"

    # -- events ------------------------------------------------------------------------------------------------------

    def take(self, event: bytes) -> bytes:
        found = decode_object(payload(event))
        if found is None:
            return b""
        kind = text_of(found, "type")
        if kind == "error" or (not kind and found.get("error")):
            self.error = encode(
                found if found.get("error") else {"error": {"message": text_of(found, "message"), "type": "server_error", "code": found.get("code"), "param": None}}
            )
            return b""
        if kind in _TERMINAL:
            return self._end(kind, object_of(found, "response"))
        if kind in {"response.created", "response.in_progress", "response.queued"}:
            self._remember(object_of(found, "response"))
            return b""
        return self._delta(kind, found)

    def _delta(self, kind: str, found: Json) -> bytes:
        index, delta = int_of(found, "output_index"), text_of(found, "delta")
        if kind in {"response.output_text.delta", "response.refusal.delta"} and delta:
            self._spoken.add((index, int_of(found, "content_index")))
            member = "content" if kind == "response.output_text.delta" else "refusal"
            return self._say({member: delta}, objects_of(found, "logprobs"))
        if kind in {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"} and delta:
            return self._say({"reasoning_content": delta})
        if kind == "response.reasoning_summary_part.added" and int_of(found, "summary_index"):
            return self._say({"reasoning_content": "\n\n"})
        if kind == "response.output_item.added":
            return self._opened(index, object_of(found, "item"))
        if kind in {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"} and delta and index in self._calls:
            self._filled.add(index)
            return self._arguments(index, delta, "custom" in kind)
        if kind == "response.output_item.done":
            return self._closed(index, object_of(found, "item"))
        return b""

    def _opened(self, index: int, item: Json) -> bytes:
        call = call_of(item)
        if call is None:
            return b""
        self._calls.setdefault(index, len(self._calls))
        if text_of(call, "type") == "custom":
            inner: Json = {**object_of(call, "custom"), "input": ""}
            return self._say({"tool_calls": [{"index": self._calls[index], "id": call["id"], "type": "custom", "custom": inner}]})
        inner = {**object_of(call, "function"), "arguments": ""}
        if self.legacy:
            return self._say({"function_call": inner})
        return self._say({"tool_calls": [{"index": self._calls[index], "id": call["id"], "type": "function", "function": inner}]})

    def _arguments(self, index: int, text: str, custom: bool) -> bytes:
        if self.legacy:
            return self._say({"function_call": {"arguments": text}})
        inner: Json = {"custom": {"input": text}} if custom else {"function": {"arguments": text}}
        return self._say({"tool_calls": [{"index": self._calls[index], **inner}]})

    def _closed(self, index: int, item: Json) -> bytes:
        """A whole item. What has not come as deltas is said now."""
        if index in self._ended:
            return b""
        self._ended.add(index)
        call = call_of(item)
        if call is not None:
            out = self._opened(index, item) if index not in self._calls else b""
            whole = text_of(item, "arguments") or text_of(item, "input")
            if index not in self._filled and whole:
                self._filled.add(index)
                out += self._arguments(index, whole, text_of(call, "type") == "custom")
            return out
        out = b""
        if text_of(item, "type") == "message":
            for number, part in enumerate(objects_of(item, "content")):
                if (index, number) not in self._spoken:
                    self._spoken.add((index, number))
                    member = "refusal" if text_of(part, "type") == "refusal" else "content"
                    text = text_of(part, "refusal") if member == "refusal" else text_of(part, "text")
                    out += self._say({member: text}) if text else b""
                annotations = nested_annotations(part)
                out += self._say({"annotations": annotations}) if annotations else b""
        return out

    def _end(self, kind: str, response: Json) -> bytes:
        self._remember(response)
        usage = response.get("usage")
        if isinstance(usage, dict):
            self.usage = parse_responses_usage(encode(usage))
        if kind == "response.failed":
            self.error = encode(
                {"error": {"type": "server_error", "param": None, **(object_of(response, "error") or {"message": "The upstream failed.", "code": "upstream_error"})}}
            )
            return b""
        out = b""
        for index, item in enumerate(objects_of(response, "output")):
            out += self._closed(index, item)
        if not self.started:
            out += self._say({})
        finish = finish_of(response, bool(self._calls))
        if self.legacy and finish == "tool_calls":
            finish = "function_call"
        self._terminal = self._chunk({}, finish)
        if self.include_usage and isinstance(usage, dict):
            self._terminal += b"data: " + encode({**self._head, "choices": [], "usage": chat_usage(usage)}) + b"\n\n"
        self._terminal += DONE
        self.final, self.done = response, True
        return out

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _remember(self, response: Json) -> None:
        if self._head:
            return
        created = response.get("created_at")
        response_id = text_of(response, "id")
        self._head = {
            "id": f"chatcmpl-{response_id.removeprefix('resp_')}" if response_id else self.fallback_id, "object": "chat.completion.chunk",
            "created": int(created) if isinstance(created, (int, float)) else 0, "model": text_of(response, "model"),
        }  # fmt: skip

    def _say(self, delta: Json, logprobs: list[Json] | None = None) -> bytes:
        self._remember({})
        for said in delta.values():
            if isinstance(said, str):
                self._units += token_units(said.encode())
            elif isinstance(said, list):
                self._units += token_units(encode(said)) / 2
        out = b""
        if not self.started:
            self.started = True
            out = self._chunk({"role": "assistant", "content": "", "refusal": None}, None)
        return out + (self._chunk(delta, None, logprobs) if delta else b"")

    def _chunk(self, delta: Json, finish: str | None, logprobs: list[Json] | None = None) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "logprobs": {"content": logprobs, "refusal": None} if logprobs else None, "finish_reason": finish}
        chunk: Json = {**self._head, "choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        return b"data: " + encode(chunk) + b"\n\n"
