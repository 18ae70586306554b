"""Encodes hub chunks as the chunks of a chat completion. Pure; one object per stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING, made_call_id, strip_extensions
from relay.protocols.chat_completions.signatures.sealed import sealed_thoughts, with_seal
from relay.protocols.codec import DONE
from relay.protocols.token_estimate import text_units

_HEAD: Final = ("id", "object", "created", "model")


@dataclass(slots=True)
class ChatEncoder:
    """Writes each chunk as it arrives. The chunks with the finish_reasons are sent at the end, with the end marker."""

    include_usage: bool  # whether the stream ends with a usage chunk
    legacy: bool  # tool calls are written as the deprecated `function_call`
    fallback_id: str  # of the completion, when the upstream sends none
    created: int = 0  # seconds since 1970, when the upstream sends none
    units: float = 0.0  # estimated tokens of the text written so far
    ending: bytes = DONE
    final: Json | None = None  # always None: chat completions are not stored
    _finishes: dict[int, bytes] = field(default_factory=dict)  # by choice
    _usage: bytes = b""
    _opened: set[int] = field(default_factory=set)  # choices that have begun
    _head: Json = field(default_factory=dict)
    _thoughts: dict[int, list[Json]] = field(default_factory=dict)  # of choices, until the call that they led to

    def chunk(self, chunk: Json) -> bytes:
        if not self._head:
            self._head = {
                "id": "",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "",
                **{name: chunk[name] for name in _HEAD if name in chunk},
            }
            self._head["id"] = self._head["id"] or self.fallback_id
            self._head["created"] = self._head["created"] or self.created
        usage = chunk.get("usage")
        choices = objects_of(chunk, "choices")
        if isinstance(usage, dict) and not choices:
            if self.include_usage:
                self._usage = b"data: " + encode({**self._head, "choices": [], "usage": usage}) + b"\n\n"
            return b""
        return b"".join(self._choice(choice) for choice in choices)

    def so_far(self) -> None:
        """Chat completions are not stored."""

    def _choice(self, choice: Json) -> bytes:
        out, index = b"", int_of(choice, "index")
        if index not in self._opened:
            self._opened.add(index)
            out = self._written(index, {"role": "assistant", "content": "", "refusal": None}, None, None)
        delta = object_of(choice, "delta")
        if THINKING in delta:
            self._thoughts.setdefault(index, []).extend(objects_of(delta, THINKING))
            delta = strip_extensions(delta)
        finish = text_of(choice, "finish_reason")
        if finish:
            told = "function_call" if self.legacy and finish == "tool_calls" else finish
            self._finishes[index] = self._written(index, {}, told, None)
        if not delta:
            return out
        calls = objects_of(delta, "tool_calls")
        if self.legacy and calls:
            if int_of(calls[0], "index"):
                return out  # the deprecated form has one call
            delta = {"function_call": object_of(calls[0], "function")}
        if calls and (sealed := sealed_thoughts(self._thoughts.pop(index, []))):
            delta = {**delta, "tool_calls": (calls := [with_seal(calls[0], sealed), *calls[1:]])}
        for call in calls:
            if call.get("type") and not call.get("id"):
                call["id"] = made_call_id(self.fallback_id, int_of(call, "index"))
        self.units += text_units(encode(delta))
        return out + self._written(index, delta, None, choice.get("logprobs"))

    def _written(self, index: int, delta: Json, finish: str | None, logprobs: object) -> bytes:
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk: Json = {**self._head, "choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        return b"data: " + encode(chunk) + b"\n\n"

    def end(self) -> tuple[bytes, bytes]:
        return b"", b"".join(self._finishes.values()) + self._usage + DONE

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The error event that ends a stream which cannot continue."""
        return b"data: " + encode({"error": {"message": message, "type": kind, "param": param, "code": code}}) + b"\n\n"
