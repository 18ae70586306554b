"""Encodes hub chunks as a stream of generateContent. Pure; one object per stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING
from relay.protocols.chat_completions.signatures.sealed import sealed_thoughts
from relay.protocols.gemini.answer import Framing
from relay.protocols.gemini.errors import stream_error
from relay.protocols.gemini.objects import (
    call_part,
    grounding_metadata,
    image_part,
    logprobs_result,
    malformed_call,
    shown_finish,
    usage_metadata,
)
from relay.protocols.token_estimate import text_units, token_units


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Candidate:
    """What has arrived of one choice."""

    text: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    thoughts: list[Json] = field(default_factory=list)
    annotations: list[Json] = field(default_factory=list)
    finish: str = ""


@dataclass(slots=True)
class GeminiEncoder:
    """Writes texts as they arrive. Calls, which are whole in this API, come in the last response, which is the end
    marker: it has the finishReason and the usage."""

    framing: Framing
    model: str
    response_id: str  # when the upstream sends none
    units: float = 0.0  # estimated tokens of the text written so far
    ending: bytes = b""
    final: Json | None = None  # always None: answers are not stored
    _head: Json = field(default_factory=dict)
    _usage: Json = field(default_factory=dict)
    _candidates: dict[int, _Candidate] = field(default_factory=dict)

    def chunk(self, chunk: Json) -> bytes:
        self._set_head(chunk)
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        return b"".join(self._choice(choice) for choice in objects_of(chunk, "choices"))

    def _set_head(self, chunk: Json) -> None:
        if not self._head:
            self._head = {
                "modelVersion": text_of(chunk, "model") or self.model,
                "responseId": text_of(chunk, "id").removeprefix("chatcmpl-") or self.response_id,
            }

    def _choice(self, choice: Json) -> bytes:
        index, delta = int_of(choice, "index"), object_of(choice, "delta")
        state = self._candidates.get(index)
        if state is None:
            state = self._candidates[index] = _Candidate()
        state.finish = text_of(choice, "finish_reason") or state.finish
        for call in objects_of(delta, "tool_calls"):
            function = object_of(call, "function")
            known = state.calls.setdefault(int_of(call, "index"), _Call())
            known.id, known.name = text_of(call, "id") or known.id, text_of(function, "name") or known.name
            if arguments := text_of(function, "arguments"):
                known.arguments.append(arguments)
                self.units += token_units(arguments.encode("utf-8", "replace"))
        state.thoughts += objects_of(delta, THINKING)
        state.annotations += objects_of(delta, "annotations")
        parts: list[Json] = []
        if thoughts := text_of(delta, "reasoning_content"):
            parts.append({"text": thoughts, "thought": True})
        for name in ("content", "refusal"):
            if text := text_of(delta, name):
                parts.append({"text": text})
                state.text.append(text)
        parts += [image_part(text_of(object_of(image, "image_url"), "url")) for image in objects_of(delta, "images")]
        logprobs = object_of(choice, "logprobs")
        if not parts and not logprobs:
            return b""
        self.units += text_units(encode(parts))
        candidate: Json = {"content": {"role": "model", "parts": parts}, "index": index}
        if logprobs:
            candidate["logprobsResult"] = logprobs_result(logprobs)
        return self._response([candidate], {})

    def _response(self, candidates: list[Json], more: Json) -> bytes:
        return self.framing.entry(encode({"candidates": candidates, **more, **self._head}))

    def _last(self, index: int, state: _Candidate) -> Json:
        """The candidate of the last response."""
        parts: list[Json] = []
        malformed = ""
        for _, call in sorted(state.calls.items()):
            part = call_part(call.id, {"name": call.name, "arguments": "".join(call.arguments)})
            if part is None:
                malformed = call.name
            else:
                parts.append(part)
        if signature := sealed_thoughts(state.thoughts):
            if not parts:
                parts.append({"text": ""})
            parts[0]["thoughtSignature"] = signature
        candidate: Json = {
            "content": {"role": "model", "parts": parts or [{"text": ""}]},
            "finishReason": shown_finish(state.finish),
            "index": index,
        }
        if malformed:
            candidate |= malformed_call(malformed)
        if grounding := grounding_metadata(state.annotations, "".join(state.text)):
            candidate["groundingMetadata"] = grounding
        return candidate

    def end(self) -> tuple[bytes, bytes]:
        self._set_head({})
        candidates = [self._last(index, state) for index, state in sorted(self._candidates.items())]
        more: Json = {"usageMetadata": usage_metadata(self._usage)} if self._usage else {}
        return b"", self._response(candidates, more) + self.framing.end()

    def so_far(self) -> None:
        """Answers are not stored."""

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return self.framing.entry(encode(stream_error(message, kind, code, param))) + self.framing.end()
