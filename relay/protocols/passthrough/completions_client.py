"""Converts between a client of legacy completions and the hub, for upstreams that have no completions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.contract import ConvertedRequest
from relay.protocols.fields import BadRequest, unsupported

# Members that the answer depends on and a chat lacks, with the values for which that makes no difference.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "echo": (False,),
    "suffix": ("",),
    "best_of": (0, 1),
    "logprobs": (),
    "logit_bias": ({},),
}


def as_chat(request: Json) -> Json:
    """A request of completions as one of chat. Raises BadRequest."""
    for name, harmless in _NEEDED.items():
        if request.get(name) is not None and not any(request[name] is one or request[name] == one for one in harmless):
            message = (
                f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. "
                "Leave it out, or use another model."
            )
            raise unsupported(message, name)
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) <= 1:
        prompt = prompt[0] if prompt else ""
    if prompt is None:
        prompt = ""
    if not isinstance(prompt, str):
        raise BadRequest(
            "The upstream of this model takes one prompt, which is a text. Send a request for each prompt.",
            "prompt",
            "unsupported_parameter",
            422,
        )
    rest = {name: value for name, value in request.items() if name != "prompt" and name not in _NEEDED}
    return {**rest, "messages": [{"role": "user", "content": prompt}]}


@dataclass(slots=True)
class CompletionsClient:
    """One request of a client of completions."""

    request: Json  # as one of chat
    include_usage: bool
    fallback_id: str
    created: int = 0  # seconds since 1970

    def hub_request(self) -> ConvertedRequest:
        return self._chat().hub_request()

    def answer(self, completion: Json) -> Json:
        found = self._chat().answer(completion)
        choices = [
            {
                "index": int_of(choice, "index"),
                "text": _said(object_of(choice, "message")),
                "logprobs": None,
                "finish_reason": choice.get("finish_reason"),
            }
            for choice in objects_of(found, "choices")
        ]
        return {**found, "object": "text_completion", "choices": choices}

    def encoder(self) -> CompletionsEncoder:
        return CompletionsEncoder(self.include_usage, False, self.fallback_id, self.created)

    def _chat(self) -> ChatClient:
        return ChatClient(self.request, self.include_usage, self.fallback_id, self.created)


@dataclass(slots=True)
class CompletionsEncoder(ChatEncoder):
    """Writes the chunks of a stream of completions."""

    def _written(self, index: int, delta: Json, finish: str | None, logprobs: object) -> bytes:
        text = _said(delta)
        if not text and finish is None:
            return b""
        choice: Json = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
        chunk: Json = {**self._head, "object": "text_completion", "choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        return b"data: " + encode(chunk) + b"\n\n"


def _said(message: Json) -> str:
    return text_of(message, "content") or text_of(message, "refusal")
