"""Converts between the hub and upstreams that speak Gemini's generateContent, for clients of other APIs. Pure."""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.hub import BUDGET, CACHE_CONTROL, THINKING, TOP_K
from relay.protocols.chat_completions.signatures.returned import returned_messages
from relay.protocols.chat_completions.transcript import strict_messages
from relay.protocols.contract import Completion, ConvertedRequest, Dialect
from relay.protocols.error_objects import is_error_object
from relay.protocols.fields import lower_limit, unsupported
from relay.protocols.gemini.answer import whole_events
from relay.protocols.gemini.contents.from_hub import Contents, lost_of_messages
from relay.protocols.gemini.contents.schemas import gemini_schema
from relay.protocols.gemini.contents.signatures import generation
from relay.protocols.gemini.upstream_stream import GeminiDecoder, merged
from relay.protocols.naming.tool_names import accepted_names

# Members with the same meaning, by their names in `generationConfig`.
_SAME: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    TOP_K: "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
# Members that are converted below, or that mean nothing to Gemini.
_HANDLED: Final = frozenset(
    (
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "stop",
        "response_format", "reasoning_effort", "tools", "tool_choice", "functions", "function_call", "logprobs",
        "top_logprobs", "parallel_tool_calls", "service_tier", "modalities", BUDGET, TOP_K,
    )
)  # fmt: skip
# Members that the answer depends on and Gemini lacks, with the values for which that makes no difference.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "logit_bias": ({},),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
}
_MOST_STOPS: Final = 5  # stopSequences
_EMPTY: Final[tuple[object, ...]] = (None, False, 0, "", [], {})
_MODALITIES: Final = {"text": "TEXT", "image": "IMAGE"}
_TIERS: Final = {"flex": "FLEX", "priority": "PRIORITY"}
_UNNAMED_TIERS: Final = frozenset(("auto", "default", "standard"))
# As Google's own API in OpenAI's form maps them (ai.google.dev/gemini-api/docs/openai).
_LEVELS: Final = {
    "none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH",
    "max": "HIGH",
}  # fmt: skip
_BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_LEAST_OF_PRO: Final = 128  # tokens of thinking, which cannot be turned off there
_FIRST_THAT_THINKS: Final = 2  # generation; Gemma and others do not think on request
_FIRST_WITH_LEVELS: Final = 3  # generation that takes thinkingLevel, and functions with a response schema


class GeminiUpstream:
    """Upstreams that speak generateContent."""

    api = "generate_content"
    answer_name = "a GenerateContentResponse"
    refuses_longer = True

    def address(self, stream: bool) -> tuple[str, str]:
        """A stream has a path of its own, and is one of events on request only."""
        return (f"{self.api}.stream", "alt=sse") if stream else (self.api, "")

    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest:
        return gemini_request(hub, dialect)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        config = object_of(body, "generationConfig")
        limit = lower_limit(config.get("maxOutputTokens"), max(tokens, dialect.least_output))
        body["generationConfig"] = {**config, "maxOutputTokens": limit}

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        """The body, without the model and the stream, which are in the path."""
        return encode({name: value for name, value in body.items() if name != "model"})

    def completion(self, body: bytes, dialect: Dialect) -> Completion | None:
        decoder = self.decoder(dialect)
        chunks: list[Json] = []
        for event in whole_events(body):
            found, broken = read_object(event)
            if found is None:
                return None
            answered = "candidates" in found or "promptFeedback" in found
            if is_error_object(found, answered):
                return Completion(None, decoder.usage, encode(clean(found)) if broken else event)
            if not answered and "usageMetadata" not in found:
                return None
            chunks += decoder.chunks_of(found, broken)
            if decoder.error is not None:
                return Completion(None, decoder.usage, decoder.error)
        if not decoder.ended:
            return None
        return Completion(merged(chunks, decoder.head), decoder.usage)

    def decoder(self, dialect: Dialect) -> GeminiDecoder:
        return GeminiDecoder(dialect.vendor)


def gemini_request(hub: Json, dialect: Dialect) -> ConvertedRequest:
    """Convert a hub request to a request of generateContent. Raises BadRequest."""
    for name, harmless in _NEEDED.items():
        if hub.get(name) is not None and hub[name] not in harmless:
            raise unsupported(
                f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. "
                "Leave it out, or use another model.",
                name,
            )
    model = text_of(hub, "model")
    known = generation(model)
    messages = returned_messages(objects_of(hub, "messages"), THINKING, dialect.vendor)
    strict, dropped = strict_messages(messages, late_system=False)
    tools = objects_of(hub, "tools")
    names = accepted_names(_names(tools, strict))
    contents = Contents(known, names)
    contents.add(strict)
    body: Json = {"model": hub.get("model"), "contents": contents.contents}
    if contents.system is not None:
        body["systemInstruction"] = contents.system
    declared, lost = _declarations(tools, names)
    declared, config, lost_choice = _chosen(hub, declared, names)
    if declared:
        body["tools"] = [{"functionDeclarations": declared}]
        if config:
            body["toolConfig"] = {"functionCallingConfig": config}
    dropped += [*lost, *lost_choice, *lost_of_messages(messages)]
    generated = _generation_config(hub, model, bool(declared), dropped)
    if generated:
        body["generationConfig"] = generated
    tier = hub.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        body["serviceTier"] = _TIERS[tier]
    elif tier is not None and tier not in _UNNAMED_TIERS:
        dropped.append("service_tier")
    handled = _HANDLED.union(_SAME, _NEEDED)
    dropped += [name for name, value in hub.items() if name not in handled and value not in _EMPTY]
    changed = {told: name for name, told in names.items() if told != name}
    return ConvertedRequest(body, list(dict.fromkeys(dropped)), changed)


def _names(tools: list[Json], messages: list[Json]) -> list[str]:
    """The names of the functions that can be called, and of those that were."""
    calls = [call for message in messages for call in objects_of(message, "tool_calls")]
    return [name for holder in (*tools, *calls) if (name := text_of(object_of(holder, "function"), "name"))]


def _declarations(tools: list[Json], names: dict[str, str]) -> tuple[list[Json], list[str]]:
    found: list[Json] = []
    lost: list[str] = []
    for number, tool in enumerate(tools):
        function = object_of(tool, "function")
        if not (name := text_of(function, "name")):
            kind = text_of(tool, "type")[:60]
            raise unsupported(
                f"The upstream of this model cannot be given a tool of the type “{kind}”. Leave it out, or use another "
                "model.",
                f"tools[{number}].type",
            )
        declared: Json = {"name": names[name]}
        if description := text_of(function, "description"):
            declared["description"] = description
        parameters = object_of(function, "parameters")
        if object_of(parameters, "properties") or (parameters and set(parameters) - {"type", "properties"}):
            declared["parametersJsonSchema"], words = gemini_schema(parameters)
            lost += [f"tools[].function.parameters.{word}" for word in words]
        found.append(declared)
        lost += [f"tools[].function.{other}" for other in ("strict",) if function.get(other)]
        lost += [f"tools[].{other}" for other in tool if other not in {"type", "function", CACHE_CONTROL}]
    return found, list(dict.fromkeys(lost))


def _chosen(hub: Json, declared: list[Json], names: dict[str, str]) -> tuple[list[Json], Json, list[str]]:
    """The functions that may be called, their `functionCallingConfig`, and what is lost of how they are called."""
    if not declared:
        return [], {}, []
    lost = ["parallel_tool_calls"] if hub.get("parallel_tool_calls") is False else []
    choice = hub.get("tool_choice")
    if isinstance(choice, str):
        mode = {"none": "NONE", "required": "ANY", "any": "ANY"}.get(choice)
        return declared, {"mode": mode} if mode else {}, lost
    if not isinstance(choice, dict):
        return declared, {}, lost
    if text_of(choice, "type") == "allowed_tools":
        allowed = object_of(choice, "allowed_tools") or choice
        wanted = [
            text_of(object_of(tool, "function"), "name") or text_of(tool, "name")
            for tool in objects_of(allowed, "tools")
        ]
        told = [names[name] for name in wanted if name in names]
        config: Json = {"mode": "ANY", "allowedFunctionNames": told} if text_of(allowed, "mode") == "required" else {}
        return [one for one in declared if one["name"] in told], config, lost
    name = text_of(object_of(choice, "function"), "name") or text_of(choice, "name")
    if name not in names or names[name] not in {one["name"] for one in declared}:
        raise unsupported(f"“tool_choice” names the function “{name[:64]}”, which is not in “tools”.", "tool_choice")
    return declared, {"mode": "ANY", "allowedFunctionNames": [names[name]]}, lost


def _generation_config(hub: Json, model: str, has_tools: bool, dropped: list[str]) -> Json:
    found: Json = {told: hub[name] for name, told in _SAME.items() if hub.get(name) is not None}
    limits = [limit for name in _LIMITS if isinstance(limit := hub.get(name), int) and limit >= 0]
    if limits:
        found["maxOutputTokens"] = max(1, min(limits))
    if isinstance(count := hub.get("n"), int) and count > 1:
        found["candidateCount"] = count
    stops = hub.get("stop")
    stops = [stops] if isinstance(stops, str) else stops
    if isinstance(stops, list) and any(stops):
        if len(stops) > _MOST_STOPS:
            raise unsupported(f"The upstream of this model takes at most {_MOST_STOPS} texts in “stop”.", "stop")
        found["stopSequences"] = [stop for stop in stops if stop]
    if hub.get("logprobs"):
        found["responseLogprobs"] = True
        if hub.get("top_logprobs"):
            found["logprobs"] = hub["top_logprobs"]
    modalities = hub.get("modalities")
    if isinstance(modalities, list) and modalities != ["text"]:
        if not all(isinstance(kind, str) and kind in _MODALITIES for kind in modalities):
            raise unsupported("The upstream of this model answers in text and images only.", "modalities")
        found["responseModalities"] = [_MODALITIES[str(kind)] for kind in modalities]
    found |= _response_format(object_of(hub, "response_format"), model, has_tools, dropped)
    if thinking := _thinking(hub, model, dropped):
        found["thinkingConfig"] = thinking
    return found


def _response_format(shape: Json, model: str, has_tools: bool, dropped: list[str]) -> Json:
    kind = text_of(shape, "type")
    if kind not in {"json_object", "json_schema"}:
        return {}
    if has_tools and 0 < generation(model) < _FIRST_WITH_LEVELS:
        raise unsupported(
            "The upstream of this model cannot call tools and answer in JSON at once. Leave “response_format” or "
            "“tools” out, or use another model.",
            "response_format",
        )
    found: Json = {"responseMimeType": "application/json"}
    if kind == "json_schema":
        described = object_of(shape, "json_schema")
        schema, words = gemini_schema(object_of(described, "schema"))
        found["responseJsonSchema"] = schema
        dropped += [f"response_format.json_schema.schema.{word}" for word in words]
    return found


def _thinking(hub: Json, model: str, dropped: list[str]) -> Json:
    """The `thinkingConfig` for an effort, or for a budget. Thoughts are shown to whoever asks for some."""
    effort, budget = hub.get("reasoning_effort"), hub.get(BUDGET)
    known, name = generation(model), "reasoning_effort"
    if effort is None and budget == 0:
        effort, name = "none", "thinking"
    if not isinstance(effort, str):
        return {}
    if effort not in _LEVELS or known < _FIRST_THAT_THINKS:
        dropped.append(name)
        return {}
    shown: Json = {} if effort == "none" else {"includeThoughts": True}
    if known >= _FIRST_WITH_LEVELS:
        return {"thinkingLevel": _LEVELS[effort], **shown}
    wanted = budget if isinstance(budget, int) else _BUDGETS[effort]
    return {"thinkingBudget": max(wanted, _LEAST_OF_PRO) if "pro" in model else wanted, **shown}
