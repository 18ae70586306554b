"""Decodes a stream of chat chunks into hub chunks, and finds usage, errors and the end. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from portal.lib.json import Json, decode_object, encode, int_of, objects_of, text_of
from relay.protocols.chat_completions.hub import strip_foreign
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.events import payload
from relay.protocols.usage import Usage


@dataclass(slots=True)
class ChatDecoder:
    """The decoder of one stream. Usage inside a choice (Moonshot) moves to the chunk, where the hub form has it."""

    watch_finish: bool = False  # for upstreams without an end marker: the first choice's finish_reason is the end
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the stream reached its end
    _finished: bool = False  # the first choice has a finish_reason

    def chunks(self, event: bytes) -> list[Json]:
        data = payload(event)
        if not data:
            return []
        if data == b"[DONE]":
            self.done = True
            return []
        chunk = decode_object(data)
        if chunk is None:
            return []
        if chunk.get("error"):
            self.error = data
            return []
        choices = objects_of(chunk, "choices")
        usage = chunk.get("usage") or (choices[0].get("usage") if choices else None)
        found = parse_chat_usage(encode(usage)) if isinstance(usage, dict) else None
        if found is None:
            chunk.pop("usage", None)
        else:
            self.usage, chunk["usage"] = found, usage
        for choice in choices:
            for name in ("delta", "message"):
                if isinstance(message := choice.get(name), dict):
                    choice[name] = strip_foreign(message)
        self._finished = self._finished or any(
            int_of(choice, "index") == 0 and text_of(choice, "finish_reason") for choice in choices
        )
        return [chunk]

    def finish(self) -> None:
        if self.watch_finish and self._finished:
            self.done = True
