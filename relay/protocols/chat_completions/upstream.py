"""Converts between the hub and upstreams that speak chat completions, for clients of other APIs. Pure."""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, decode_object, encode, objects_of
from relay.protocols.chat_completions.answer import parse_chat_answer
from relay.protocols.chat_completions.hub import strip_foreign, without_extensions
from relay.protocols.chat_completions.transcript import strict_messages
from relay.protocols.chat_completions.upstream_stream import ChatDecoder
from relay.protocols.contract import Completion, ConvertedRequest, Dialect

_LIMIT: Final = "max_completion_tokens"  # the output limit in the hub form


class ChatUpstream:
    """Upstreams that speak chat completions; the hub form is theirs but for its extension members."""

    api = "chat.completions"
    answer_name = "a chat completion"

    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest:
        messages, dropped = strict_messages(objects_of(hub, "messages"), dialect.late_system)
        body = without_extensions({**hub, "messages": messages})
        if dialect.output_field != _LIMIT and _LIMIT in body:
            body[dialect.output_field] = body.pop(_LIMIT)
        return ConvertedRequest(body, dropped)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        body[dialect.output_field] = tokens

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        extra: Json = {}
        if stream:
            extra["stream"] = True
            if dialect.ask_usage:
                extra["stream_options"] = {"include_usage": True}
        return encode({**body, **extra})

    def completion(self, body: bytes) -> Completion | None:
        answer = parse_chat_answer(body)
        if answer is None:
            return None
        if answer.is_error:
            return Completion(None, error=body)
        decoded = decode_object(body)
        if decoded is None:
            return None
        for choice in objects_of(decoded, "choices"):
            if isinstance(message := choice.get("message"), dict):
                choice["message"] = strip_foreign(message)
        return Completion(decoded, answer.usage)

    def decoder(self, dialect: Dialect) -> ChatDecoder:
        return ChatDecoder(not dialect.sends_done)
