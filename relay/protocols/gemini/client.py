"""Converts between a client of Gemini's generateContent and the hub, for upstreams that speak another API. Pure.

A feature that no other API supports is refused with a 422 that names it when the answer depends on it; otherwise it is
dropped and reported among the dropped parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import BUDGET, THINKING, TOP_K
from relay.protocols.chat_completions.signatures.sealed import sealed_thoughts
from relay.protocols.contract import ConvertedRequest
from relay.protocols.fields import unsupported
from relay.protocols.gemini.answer import Framing
from relay.protocols.gemini.client_stream import GeminiEncoder
from relay.protocols.gemini.contents.schemas import parameters_of
from relay.protocols.gemini.contents.to_hub import Messages
from relay.protocols.gemini.objects import (
    call_part,
    grounding_metadata,
    image_part,
    logprobs_result,
    malformed_call,
    shown_finish,
    usage_metadata,
)
from relay.protocols.gemini.request import camel, member, object_in, objects_in, text_in

# Members of `generationConfig` with the same meaning, by their names in the hub form.
_SAME: Final = {
    "temperature": "temperature",
    "topP": "top_p",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "maxOutputTokens": "max_completion_tokens",
}
_CONFIG: Final = frozenset(_SAME) | frozenset(
    (
        "topK", "candidateCount", "stopSequences", "responseLogprobs", "logprobs", "responseMimeType",
        "responseSchema", "responseJsonSchema", "thinkingConfig", "responseModalities",
    )
)  # fmt: skip
# Members of `generationConfig` that the answer depends on, and that other APIs lack.
_NEEDED: Final = frozenset(("speechConfig", "audioTranscriptionConfig", "imageConfig"))
_TOP: Final = frozenset(
    ("contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "model", "serviceTier", "store")
)
_MODES: Final = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
_TIERS: Final = {"flex": "flex", "priority": "priority"}
_LEVELS: Final = frozenset(("minimal", "low", "medium", "high", "xhigh"))
# The effort that comes nearest to a budget of thinking, as Google's own API in OpenAI's form has them.
_EFFORTS: Final = ((1024, "low"), (8192, "medium"))
_DYNAMIC: Final = -1
_JSON: Final = "application/json"
# What the hub calls otherwise.
MEMBERS: Final[Mapping[str, str]] = {
    **{hub: f"generationConfig.{name}" for name, hub in _SAME.items()},
    "messages": "contents",
    "messages[].content[image_url]": "contents[].parts[].inlineData",
    "messages[].reasoning_content": "contents[].parts[].thought",
    "top_k": "generationConfig.topK",
    "n": "generationConfig.candidateCount",
    "stop": "generationConfig.stopSequences",
    "logprobs": "generationConfig.responseLogprobs",
    "top_logprobs": "generationConfig.logprobs",
    "response_format": "generationConfig.responseMimeType",
    "response_format.json_schema.schema": "generationConfig.responseSchema",
    "tools[].function.parameters": "tools[].functionDeclarations[].parameters",
    "modalities": "generationConfig.responseModalities",
    "reasoning_effort": "generationConfig.thinkingConfig",
    "tool_choice": "toolConfig.functionCallingConfig",
    "service_tier": "serviceTier",
}
_NO_VALUES: Final[tuple[object, ...]] = (None, False, "", [], {})


@dataclass(slots=True)
class GeminiClient:
    """One request of a Gemini client."""

    request: Json  # decoded
    model: str
    response_id: str  # of the answer, when the upstream sends none
    sse: bool = True
    _hub: ConvertedRequest | None = field(default=None)

    def hub_request(self) -> ConvertedRequest:
        if self._hub is None:
            self._hub = hub_request(self.request, self.model)
        return self._hub

    def answer(self, completion: Json) -> Json:
        return response_of(completion, self.model, self.response_id)

    def encoder(self) -> GeminiEncoder:
        return GeminiEncoder(Framing(self.sse), self.model, self.response_id)


def hub_request(request: Json, model: str) -> ConvertedRequest:
    """Convert a request to the hub form. Raises BadRequest."""
    found = Messages()
    if system := text_in(object_in(request, "systemInstruction")):
        found.messages.append({"role": "system", "content": system})
    elif isinstance(text := member(request, "systemInstruction"), str) and text:
        found.messages.append({"role": "system", "content": text})
    found.add(objects_in(request, "contents"))
    dropped = found.dropped
    body: Json = {"model": model, "messages": found.messages}
    tools = _tools(request, dropped)
    choice, tools = _choice(object_in(request, "toolConfig"), tools, dropped)
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
    _config(object_in(request, "generationConfig"), body, dropped)
    tier = member(request, "serviceTier")
    if isinstance(tier, str) and tier.lower() in _TIERS:
        body["service_tier"] = _TIERS[tier.lower()]
    dropped += [name for name, value in request.items() if camel(name) not in _TOP and value not in _NO_VALUES]
    return ConvertedRequest(body, list(dict.fromkeys(dropped)))


def _tools(request: Json, dropped: list[str]) -> list[Json]:
    found: list[Json] = []
    for number, tool in enumerate(objects_in(request, "tools")):
        for name, value in tool.items():
            if camel(name) != "functionDeclarations" and value is not None:
                raise unsupported(
                    f"The upstream of this model cannot be given the tool “{name[:60]}”. Leave it out, or use another "
                    "model.",
                    f"tools[{number}].{name[:60]}",
                )
        for declared in objects_in(tool, "functionDeclarations"):
            function: Json = {"name": text_of(declared, "name")}
            if description := text_of(declared, "description"):
                function["description"] = description
            json_names = ("parametersJsonSchema", "parameters_json_schema")
            parameters = parameters_of(declared, ("parameters", "parameters"), json_names)
            function["parameters"] = parameters or {"type": "object", "properties": {}}
            found.append({"type": "function", "function": function})
            dropped += [
                f"tools[].functionDeclarations[].{name}"
                for name in declared
                if camel(name) in {"response", "responseJsonSchema", "behavior"}
            ]
    return found


def _choice(config: Json, tools: list[Json], dropped: list[str]) -> tuple[object, list[Json]]:
    """The `tool_choice`, and the tools that may be called."""
    dropped += [
        f"toolConfig.{name}" for name, value in config.items() if camel(name) != "functionCallingConfig" and value
    ]
    calling = object_in(config, "functionCallingConfig")
    mode = text_of(calling, "mode").upper()
    listed = member(calling, "allowedFunctionNames")
    allowed = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    choice = _MODES.get(mode)
    if not allowed or choice in {None, "none"}:
        return choice, tools
    kept = [tool for tool in tools if text_of(object_of(tool, "function"), "name") in allowed]
    if not kept:
        raise unsupported(
            "“toolConfig.functionCallingConfig.allowedFunctionNames” names no function of “tools”.",
            "toolConfig.functionCallingConfig.allowedFunctionNames",
        )
    if choice == "required" and len(kept) == 1:
        return {"type": "function", "function": {"name": text_of(object_of(kept[0], "function"), "name")}}, kept
    return choice, kept


def _config(config: Json, body: Json, dropped: list[str]) -> None:
    """Add what a `generationConfig` says. Raises BadRequest."""
    for name, value in config.items():
        plain = camel(name)
        if value in _NO_VALUES and plain not in _SAME:
            continue
        if plain in _NEEDED:
            raise unsupported(
                f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. Leave "
                "it out, or use another model.",
                f"generationConfig.{name}",
            )
        if plain in _SAME:
            if value is not None:
                body[_SAME[plain]] = value
        elif plain not in _CONFIG:
            dropped.append(f"generationConfig.{name}")
    if (top_k := member(config, "topK")) is not None:
        body[TOP_K] = top_k
    if isinstance(count := member(config, "candidateCount"), int) and count > 1:
        body["n"] = count
    if stops := member(config, "stopSequences"):
        body["stop"] = stops
    if member(config, "responseLogprobs"):
        body["logprobs"] = True
        if top := member(config, "logprobs"):
            body["top_logprobs"] = top
    modalities = member(config, "responseModalities")
    if isinstance(modalities, list) and any(str(kind).upper() != "TEXT" for kind in modalities):
        body["modalities"] = [str(kind).lower() for kind in modalities]
    _response_format(config, body)
    _thinking(object_in(config, "thinkingConfig"), body, dropped)


def _response_format(config: Json, body: Json) -> None:
    kind = member(config, "responseMimeType")
    schema = parameters_of(
        config, ("responseSchema", "response_schema"), ("responseJsonSchema", "response_json_schema")
    )
    if kind in (None, "", "text/plain") and schema is None:
        return
    if kind not in (None, "", "text/plain", _JSON):  # such as text/x.enum
        raise unsupported(
            f"The upstream of this model cannot answer as “{str(kind)[:60]}”. Use “{_JSON}”, or another model.",
            "generationConfig.responseMimeType",
        )
    if schema is None:
        body["response_format"] = {"type": "json_object"}
    else:
        shape: Json = {"name": "answer", "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}


def _thinking(config: Json, body: Json, dropped: list[str]) -> None:
    level, budget = member(config, "thinkingLevel"), member(config, "thinkingBudget")
    if isinstance(level, str) and level.lower() in _LEVELS:
        body["reasoning_effort"] = level.lower()
    elif isinstance(budget, int) and not isinstance(budget, bool) and budget != _DYNAMIC:
        body[BUDGET] = budget
        effort = next((effort for most, effort in _EFFORTS if budget <= most), "high")
        body["reasoning_effort"] = effort if budget > 0 else "none"
    elif level is not None:
        dropped.append("generationConfig.thinkingConfig.thinkingLevel")


# -- the answer --------------------------------------------------------------------------------------------------------


def response_of(completion: Json, model: str, response_id: str) -> Json:
    """A hub completion as a GenerateContentResponse."""
    found: Json = {"candidates": [_candidate(choice) for choice in objects_of(completion, "choices")]}
    usage = completion.get("usage")
    if isinstance(usage, dict):
        found["usageMetadata"] = usage_metadata(usage)
    found["modelVersion"] = text_of(completion, "model") or model
    found["responseId"] = text_of(completion, "id").removeprefix("chatcmpl-") or response_id
    return found


def _candidate(choice: Json) -> Json:
    message = object_of(choice, "message")
    finish, malformed = shown_finish(text_of(choice, "finish_reason")), ""
    parts: list[Json] = []
    if thoughts := text_of(message, "reasoning_content"):
        parts.append({"text": thoughts, "thought": True})
    text = text_of(message, "content")
    refusal = text_of(message, "refusal")
    if said := text or refusal:
        parts.append({"text": said})
    for image in objects_of(message, "images"):
        parts.append(image_part(text_of(object_of(image, "image_url"), "url")))
    calls: list[Json] = []
    for call in objects_of(message, "tool_calls"):
        part = call_part(text_of(call, "id"), object_of(call, "function"))
        if part is None:
            malformed = text_of(object_of(call, "function"), "name")
        else:
            calls.append(part)
    signature = sealed_thoughts(objects_of(message, THINKING))
    if signature:
        if calls:
            calls[0]["thoughtSignature"] = signature
        else:
            parts.append({"text": "", "thoughtSignature": signature})
    parts += calls
    found: Json = {"content": {"role": "model", "parts": parts}, "finishReason": finish, "index": choice.get("index")}
    if malformed:
        found |= malformed_call(malformed)
    if logprobs := object_of(choice, "logprobs"):
        found["logprobsResult"] = logprobs_result(logprobs)
    if grounding := grounding_metadata(objects_of(message, "annotations"), text):
        found["groundingMetadata"] = grounding
    return found
