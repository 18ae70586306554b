"""What is known of a model from its name, and from its entry in an upstream's list of models. Pure.

The entries of lists differ by vendor; the members read here are documented by OpenRouter (`context_length`,
`architecture`, `supported_parameters`, `top_provider`, `reasoning`, `expiration_date`), Mistral (`max_context_length`,
`capabilities`), Groq (`context_window`, `max_completion_tokens`), Google (`inputTokenLimit`,
`supportedGenerationMethods`), Anthropic (`max_input_tokens`, `max_tokens`, `capabilities`, `retires_at`), Together
(`type`), vLLM (`max_model_len`), and this portal itself (`abilities`, `max_output_tokens`, `reasoning_levels`); read in
November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final, TypeGuard

import msgspec

from portal import limits

_MOST_TOKENS: Final = 100_000_000  # what a list says beyond this is nonsense
_YEARS: Final = range(2020, 2100)  # in which a model may be retired
_LONGEST_NAME: Final = 160  # characters, as a channel can keep of a model's name
_LEAST_OUTPUT: Final = 256  # tokens; a smaller limit would cut answers short, whatever the list means by it

ABILITIES: Final = frozenset(
    (
        "chat", "vision", "audio", "files", "tools", "structured_output", "reasoning", "embeddings", "moderation",
        "image_generation", "speech", "transcription", "rerank", "realtime",
    )
)  # fmt: skip

# Models of video and music, and those of /v1/completions alone: they have none of the abilities, and do not chat.
_NEITHER: Final = (
    r"^(sora|veo|kling|hailuo|runway|luma|suno|vidu|midjourney|mj)\b|^cogvideo|seedance|[-.]t2v|[-.]i2v"
    r"|^gpt-3\.5-turbo-instruct|^(davinci|babbage)-"
)
# What a name says, the first that fits; searched in the part behind the last slash, in lower case.
_NAMES: Final[tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]] = tuple(
    (re.compile(pattern), abilities)
    for pattern, abilities in (
        (r"embed|^bge-(?!reranker)|^(gte|e5|m3e|voyage)-|^text-similarity-", ("embeddings",)),
        (r"rerank", ("rerank",)),
        (r"moderation", ("moderation",)),
        (r"realtime", ("realtime",)),
        (r"whisper|transcri|-asr\b|^(paraformer|sensevoice)", ("transcription",)),
        (r"(^|-)tts\b|^cosyvoice|^speech-", ("speech",)),
        (r"^(gemini|gpt-5).*-image", ("chat", "vision", "image_generation")),
        (
            r"^dall-?e|^(chat)?gpt-image|^(flux|sdxl|sd3|imagen|seedream|kolors|cogview|ideogram|recraft|wanx)\b"
            r"|^stable-diffusion|^black-forest|^qwen-image|-seedream-",
            ("image_generation",),
        ),
        (_NEITHER, ()),
        (r"^(gpt-audio|gpt-4o(-mini)?-audio)", ("chat", "audio", "tools")),
        (r"^o1-(mini|preview)", ("chat", "reasoning")),
        (r"^(o1|o3|o4-mini)\b(?!-mini)|^gpt-[5-9]", ("chat", "vision", "tools", "structured_output", "reasoning")),
        (r"^o3-mini", ("chat", "tools", "structured_output", "reasoning")),
        (r"^(gpt-4o|gpt-4\.|chatgpt-4o)", ("chat", "vision", "tools", "structured_output")),
        (r"^gpt-4-turbo", ("chat", "vision", "tools")),
        (r"^gpt-oss", ("chat", "tools", "reasoning")),
        (r"^gpt-(3\.5|4)", ("chat", "tools")),
        (r"^claude-(opus|sonnet|haiku|3)", ("chat", "vision", "tools")),
        (r"^gemini-(2\.5|[3-9])", ("chat", "vision", "audio", "files", "tools", "structured_output", "reasoning")),
        (r"^gemini-", ("chat", "vision", "tools")),
        (r"^deepseek-(r\d|reasoner)|^qwq", ("chat", "reasoning")),
        (r"^grok-4", ("chat", "vision", "tools", "reasoning")),
        (r"\bvl\b|vision|^pixtral|^llava|^gemma-?3|^llama-?4|^glm-[\d.]+v", ("chat", "vision")),
        (
            r"^(claude|deepseek|qwen|llama|mistral|mixtral|ministral|codestral|magistral|devstral|glm|kimi|moonshot"
            r"|grok|command|yi|ernie|hunyuan|doubao|phi|gemma|minimax|abab|step|baichuan|nova|granite)",
            ("chat",),
        ),
    )
)

REASONING_LEVELS: Final = ("minimal", "low", "medium", "high", "xhigh", "max")  # of `reasoning_effort`, the least first
_USUAL: Final = ("low", "medium", "high")
_FINE: Final = (*_USUAL, "xhigh")
_FULL: Final = (*_FINE, "max")
# Efforts that a model takes, by its name, the first that fits; searched as above. Sources: the catalogue within Codex
# 0.171, OpenAI's and Anthropic's documentation of efforts, read in November 2026. Earlier models of Claude and Gemini
# are given a budget for each by the portal.
_LEVELS: Final[tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]] = tuple(
    (re.compile(pattern), levels)
    for pattern, levels in (
        (r"-chat-latest|^o1-(mini|preview)", ()),
        (r"^gpt-5\.[2-5](?!\d)", _FINE),
        (r"^gpt-(5\.([6-9]|\d\d)|[6-9]\b)", _FULL),
        (r"^gpt-5\.1(?!\d)", _USUAL),
        (r"^gpt-5(?![.\d])", ("minimal", *_USUAL)),
        (r"^(o1|o3|o4)\b|^gpt-oss", _USUAL),
        (r"^claude-[a-z]+-(4[-.]([7-9]|\d\d)|[5-9])(?!\d)|^claude-(fable|mythos)-", _FULL),
        (r"^claude-|^gemini-(2\.5|[3-9])", _USUAL),
    )
)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of a model. None and an empty tuple: unknown."""

    context_window: int | None = None  # tokens of prompt and answer together
    max_output_tokens: int | None = None
    abilities: tuple[str, ...] = ()  # of ABILITIES
    reasoning_levels: tuple[str, ...] = ()  # of REASONING_LEVELS, in their order
    retires_on: date | None = None  # when its vendor takes it out of service


# The region of a profile and the maker, before the names of Bedrock's models: `us.amazon.nova-lite-v1:0`.
_MAKER: Final = re.compile(
    r"^(?:(?:us|eu|ap|apac|jp|au|ca|sa|us-gov|global)\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax"
    r"|mistral|moonshot|moonshotai|nvidia|openai|qwen|writer|zai)\.(?=[a-z])"
)


def _bare(name: str) -> str:
    """The part of a name that says which model it is, in lower case."""
    return _MAKER.sub("", name.rpartition("/")[2].lower())


def abilities_of_name(name: str) -> tuple[str, ...]:
    """Return the abilities that a model's name tells, empty when it tells none that the relay knows."""
    last = _bare(name)
    return next((abilities for pattern, abilities in _NAMES if pattern.search(last)), ())


def levels_of_name(name: str) -> tuple[str, ...]:
    """Return the values of `reasoning_effort` that a model of this name takes if it reasons, the least first.

    Empty where they are not known.
    """
    last = _bare(name)
    return next((levels for pattern, levels in _LEVELS if pattern.search(last)), ())


def modalities(abilities: tuple[str, ...]) -> dict[str, list[str]]:
    """Return what a model of these abilities reads and writes, as OpenRouter tells it."""
    into = {"transcription": "audio"} if "chat" not in abilities else {"vision": "image", "audio": "audio"}
    into |= {"files": "file", "realtime": "audio"}
    out = {"image_generation": "image", "speech": "audio", "realtime": "audio", "embeddings": "embeddings"}
    writes = {"chat", "transcription", "moderation", "rerank", "realtime"} & set(abilities)
    return {
        "input_modalities": list(dict.fromkeys(["text", *(into[one] for one in abilities if one in into)])),
        "output_modalities": list(
            dict.fromkeys([*(["text"] if writes else []), *(out[one] for one in abilities if one in out)])
        ),
    }


def may_chat(name: str, abilities: tuple[str, ...]) -> bool:
    """Whether a model takes chat requests, as far as its abilities and its name say."""
    if abilities:
        return "chat" in abilities
    return re.search(_NEITHER, name.rpartition("/")[2].lower()) is None


class _List(msgspec.Struct, rename="camel"):
    data: list[dict[str, object]] | None = None
    models: list[dict[str, object]] | None = None  # Google's, which have names such as “models/gemini-3-pro”
    publisher_models: list[dict[str, object]] | None = None  # Google's cloud's: “publishers/google/models/gemini-3-pro”
    inference_profile_summaries: list[dict[str, object]] | None = None  # Bedrock's
    model_summaries: list[dict[str, object]] | None = None  # Bedrock's, of models that may need a profile to be called


def is_name(name: object) -> TypeGuard[str]:
    """Whether what an upstream calls a model can be kept: as a text of one line, in every database."""
    return isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()


def listed_models(body: bytes) -> dict[str, Mapping[str, object]] | None:
    """Return the entries of an upstream's list of models by their names; None when it is no list of a known form."""
    try:
        found = msgspec.json.decode(body, type=_List)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if all(entries is None for entries in msgspec.structs.astuple(found)):
        return None
    callable_ones = [
        one
        for one in found.model_summaries or ()
        if "ON_DEMAND" in _words(one.get("inferenceTypesSupported")) and "TEXT" in _words(one.get("outputModalities"))
    ]
    listed: dict[str, Mapping[str, object]] = {}
    for entries, member in (
        (found.data, "id"),
        (found.models, "name"),
        (found.publisher_models, "name"),
        (found.inference_profile_summaries, "inferenceProfileId"),
        (callable_ones, "modelId"),
    ):
        for entry in entries or ():
            name = entry.get(member)
            if is_name(name) and len(listed) < limits.LISTED_MODELS:
                if entries is found.publisher_models:
                    name = name.rpartition("/")[2]
                listed[name.removeprefix("models/") if entries is found.models else name] = entry
    return listed


def facts_of_entry(entry: Mapping[str, object]) -> ModelFacts:
    """Return what an entry of an upstream's list of models says. Values that cannot be true are passed over."""
    top = _object(entry.get("top_provider"))
    context = _first_tokens(
        entry, "context_window", "context_length", "max_context_length", "max_model_len", "max_input_tokens"
    )
    context = context or _first_tokens(entry, "inputTokenLimit")
    limits: tuple[str, ...] = ("max_output_tokens", "max_completion_tokens", "output_token_limit", "outputTokenLimit")
    if "max_input_tokens" in entry:
        limits = (*limits, "max_tokens")
    output = _first_tokens(entry, *limits) or _first_tokens(top, "max_completion_tokens")
    if output is not None and (output < _LEAST_OUTPUT or (context is not None and output > context)):
        output = None
    return ModelFacts(context, output, _listed_abilities(entry), _listed_levels(entry), _retires_on(entry))


def _listed_levels(entry: Mapping[str, object]) -> tuple[str, ...]:
    """The efforts in an entry: ours, those that OpenRouter lists, or those that Anthropic says are supported."""
    words = _words(entry.get("reasoning_levels")) or _words(_object(entry.get("reasoning")).get("supported_efforts"))
    if not words:
        effort = _object(_object(entry.get("capabilities")).get("effort"))
        words = [level for level in REASONING_LEVELS if _object(effort.get(level)).get("supported") is True]
    return tuple(level for level in REASONING_LEVELS if level in words)


def _retires_on(entry: Mapping[str, object]) -> date | None:
    """The day in an entry: Anthropic and this portal give a time, OpenRouter a day."""
    for name in ("retires_at", "expiration_date"):
        found = entry.get(name)
        try:
            day = date.fromisoformat(found[:10]) if isinstance(found, str) else None
        except ValueError:
            continue
        if day is not None and day.year in _YEARS:
            return day
    return None


def _listed_abilities(entry: Mapping[str, object]) -> tuple[str, ...]:
    """The abilities in an entry: ours as they are, else what its modalities, parameters, capabilities and type say."""
    ours = [word for word in _words(entry.get("abilities")) if word in ABILITIES]
    if ours:
        return tuple(dict.fromkeys(ours))
    architecture, capabilities = _object(entry.get("architecture")), _object(entry.get("capabilities"))
    into, out = _words(architecture.get("input_modalities")), _words(architecture.get("output_modalities"))
    parameters = _words(entry.get("supported_parameters"))
    kind = found if isinstance(found := entry.get("type"), str) else ""
    if entry.get("type") == "model" and "image_input" in capabilities:
        return _anthropic_abilities(capabilities)
    if methods := _words(entry.get("supportedGenerationMethods")):
        return _gemini_abilities(entry, methods)
    said = {
        "chat": "text" in out or capabilities.get("completion_chat") is True or kind in {"chat", "language"},
        "vision": "image" in into or capabilities.get("vision") is True,
        "audio": "audio" in into or "audio" in out,
        "files": "file" in into,
        "tools": "tools" in parameters or capabilities.get("function_calling") is True,
        "structured_output": "structured_outputs" in parameters,
        "reasoning": "reasoning" in parameters,
        "embeddings": "embeddings" in out or kind in {"embedding", "embeddings"},
        "moderation": kind == "moderation",
        "image_generation": "image" in out or kind == "image",
        "transcription": kind in {"transcribe", "transcription"},
        "rerank": kind == "rerank",
    }
    return tuple(name for name, true in said.items() if true)


def _anthropic_abilities(capabilities: Mapping[str, object]) -> tuple[str, ...]:
    """The abilities of a model of Anthropic's, which says of each whether it is supported. All call tools."""
    named = {
        "vision": "image_input",
        "files": "pdf_input",
        "structured_output": "structured_outputs",
        "reasoning": "thinking",
    }
    supported = [name for name, theirs in named.items() if _object(capabilities.get(theirs)).get("supported") is True]
    return ("chat", "tools", *supported)


def _gemini_abilities(entry: Mapping[str, object], methods: list[str]) -> tuple[str, ...]:
    """The abilities of a model at Google's: what its name says, as far as its methods allow."""
    name = found.removeprefix("models/") if isinstance(found := entry.get("name"), str) else ""
    if "generateContent" not in methods:
        return ("embeddings",) if "embedContent" in methods else ()
    known = tuple(ability for ability in abilities_of_name(name) if ability not in {"embeddings", "moderation"})
    thinks = ("reasoning",) if entry.get("thinking") is True and "reasoning" not in known else ()
    return (*(known or ("chat",)), *thinks)


def _first_tokens(entry: Mapping[str, object], *names: str) -> int | None:
    return next((found for name in names if (found := _tokens(entry.get(name))) is not None), None)


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 < value <= _MOST_TOKENS else None


def _words(value: object) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
