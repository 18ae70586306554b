"""Parses the fields of a generateContent request that the portal needs; all others pass through as bytes. Pure.

Google reads each name in two spellings, `systemInstruction` and `system_instruction`, and refuses both in one object.
Source: google-genai 3.6.1 (`models._GenerateContentParameters_to_mldev`), November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from portal.lib.json import Json, decode, encode, object_of, objects_of, text_of
from relay.protocols.fields import (
    BadRequest,
    Fields,
    absent,
    as_object,
    decode_field,
    folded,
    optional_int,
    read_document,
    refused_reference,
    token_limit,
)
from relay.protocols.naming.google import stored_in
from relay.protocols.prompts.content import TEXT, Content
from relay.protocols.prompts.lengths import hold_to
from relay.protocols.prompts.thinking import thinking_budget
from relay.protocols.token_estimate import least_units
from relay.protocols.usage import ADDED_TO_CHAT

CONTENTS: Final = "contents"
SYSTEM: Final = "systemInstruction"
CONFIG: Final = "generationConfig"
LIMIT: Final = "maxOutputTokens"
COUNT: Final = "candidateCount"
MOST_CANDIDATES: Final = 8

# Members that add nothing to the input beside what they contain.
_INERT: Final = frozenset(
    (CONTENTS, SYSTEM, CONFIG, "tools", "toolConfig", "safetySettings", "labels", "serviceTier", "store", "model")
)
_KNOWN: Final = _INERT | {"cachedContent", "modelArmorConfig", "continuationToken", "automaticContinuation"}
_IN_CONFIG: Final = frozenset(
    (
        LIMIT, COUNT, "temperature", "topP", "topK", "stopSequences", "responseLogprobs", "logprobs",
        "presencePenalty", "frequencyPenalty", "seed", "responseMimeType", "responseSchema", "responseJsonSchema",
        "routingConfig", "modelSelectionConfig", "responseModalities", "mediaResolution", "speechConfig",
        "audioTimestamp", "audioTranscriptionConfig", "thinkingConfig", "imageConfig", "enableEnhancedCivicAnswers",
    )
)  # fmt: skip
# Members that may name objects of an account.
_NAMING: Final = frozenset((CONTENTS, SYSTEM, "tools", "toolConfig", "modelArmorConfig"))
_IN_THINKING: Final = frozenset(("includeThoughts", "thinkingBudget", "thinkingLevel"))
_OWN_TOOLS: Final = frozenset(("functionDeclarations", "function_declarations"))
# Members of parts whose size is in the request.
_BOUNDED: Final = frozenset(
    (
        "text", "thought", "thoughtSignature", "inlineData", "functionCall", "functionResponse", "executableCode",
        "codeExecutionResult", "videoMetadata", "mediaResolution", "partMetadata",
    )
)  # fmt: skip
_UPPER: Final = re.compile(r"(?<!^)([A-Z])")
_LOWER: Final = re.compile(r"_([a-z])")
# Data in a request: an object without objects in it. Names of files are short, and hardly have braces.
_BLOB: Final = re.compile(rb'"inline_?[dD]ata"\s*:\s*\{([^{}]*)\}')
_TYPE: Final = re.compile(rb'"mime_?[tT]ype"\s*:\s*"([^"]*)"')
_DATA: Final = re.compile(rb'"data"\s*:\s*"([^"]*)"')


def camel(name: str) -> str:
    """A name in the spelling of Google's JSON."""
    return _LOWER.sub(lambda found: found[1].upper(), name)


def snake(name: str) -> str:
    """The same in the spelling of its protocol buffers."""
    return _UPPER.sub(r"_\1", name).lower()


def member(holder: Json, name: str) -> object:
    """A member of a decoded object, in either spelling."""
    found = holder.get(name)
    return holder.get(snake(name)) if found is None else found


def object_in(holder: Json, name: str) -> Json:
    """An object member, in either spelling; empty if it is missing or of another type."""
    found = member(holder, name)
    return found if isinstance(found, dict) else {}


def objects_in(holder: Json, name: str) -> list[Json]:
    """The objects in a list member, in either spelling; one that stands alone is a list of one, as Google reads it."""
    found = member(holder, name)
    if isinstance(found, dict):
        return [found]
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


class InlineFile(NamedTuple):
    """Data in a request."""

    size: int  # bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class GeminiRequest:
    """A parsed generateContent request."""

    body: bytes  # as the client sent it
    fields: Fields  # its top-level members, undecoded
    config: Fields  # those of its `generationConfig`
    model: str  # that the path names
    stream: bool
    sse: bool  # the stream is one of events; otherwise a list
    choices: int  # how many candidates are requested
    output_limit: int | None = None  # tokens of each candidate; None: no limit
    content: Content = TEXT

    @property
    def others(self) -> bytes:
        """Its other long members: tools, and the schema of the answer."""
        return b"".join(bytes(raw) for name, raw in self.fields.items() if camel(name) in {CONFIG, "tools"})

    @property
    def own_text(self) -> bytes:
        """The contents and the system instruction without the data in them."""
        return b"".join(_BLOB.sub(b'"inlineData":{}', raw) for raw in self._told())

    @property
    def files(self) -> list[InlineFile]:
        """The data in them."""
        found = []
        for blob in (match[1] for raw in self._told() for match in _BLOB.finditer(raw)):
            kind, data = _TYPE.search(blob), _DATA.search(blob)
            size = len(data[1]) * 3 // 4 if data is not None else 0
            found.append(InlineFile(size, kind[1].decode("latin-1") if kind is not None else ""))
        return found

    def _told(self) -> Iterable[bytes]:
        return [bytes(self.fields[name]) for name in self.fields if camel(name) in {CONTENTS, SYSTEM}]

    def at_most(self, tokens: int) -> int | None:
        """These tokens, those of all its bytes; None where something may add to them.

        That is a file by its address, a hosted tool, or a part or a member that is not known.
        """
        if self.content.unbounded or _adds(self.fields):
            return None
        return None if self._has_foreign_tools() else tokens

    def thinking(self) -> int | None:
        """The tokens of thinking that it names; None: it names none."""
        return thinking_budget(self.config)

    def most_input(self) -> int | None:
        """The tokens of input that a request cannot exceed; None where something can add to what it contains."""
        if self.content.media or self.at_most(0) is None:
            return None
        return self.choices * len(self.body) + ADDED_TO_CHAT

    def least_input(self, enough: float) -> float:
        """The estimated tokens that the model is told for certain, counted until there are `enough`."""
        if _adds(self.fields):
            return 0.0
        told: Json = {
            camel(name): decode(self.fields[name]) for name in self.fields if camel(name) in {CONTENTS, SYSTEM}
        }
        holders = [*objects_of(told, CONTENTS), *objects_in(told, SYSTEM)]
        parts = [part for holder in holders if holder.get("role") != "model" for part in objects_in(holder, "parts")]
        return least_units((part.get("text") for part in parts), enough)

    def upstream_body(self, clamp: int | None, fields: Fields | None = None) -> bytes:
        """The body for an upstream of the same API; the client's own bytes when nothing has to change.

        `clamp`: limits the tokens of a candidate. `fields`: sent instead of the client's own.
        """
        if clamp is None:
            return self.body if fields is None or fields is self.fields else encode(fields)
        found = dict(self.fields if fields is None else fields)
        name = next((name for name in found if camel(name) == CONFIG), CONFIG)
        config = as_object(found.get(name))
        hold_to(config, [name for name in config if camel(name) == LIMIT] or [LIMIT], clamp)
        found[name] = msgspec.Raw(encode(config))
        return encode(found)

    def _has_foreign_tools(self) -> bool:
        raw = self.fields.get("tools")
        if raw is None or absent(raw):
            return False
        tools = objects_in({"tools": decode(raw)}, "tools")
        return any(value is not None and name not in _OWN_TOOLS for tool in tools for name, value in tool.items())


def parse_gemini_request(body: bytes, model: str, stream: bool, sse: bool) -> GeminiRequest:
    """Parse the body of a request for the model that its path names. Raises BadRequest."""
    body, fields, decoded = read_document(body)
    check_spelling(fields, _KNOWN, "")
    if "model" in fields:  # the path names it; some servers would rather read this
        fields = {key: raw for key, raw in fields.items() if key != "model"}
        body = encode(fields)
    name = next((name for name in fields if camel(name) == CONFIG), CONFIG)
    raw_config = fields.get(name)
    config = as_object(raw_config)
    if not (absent(raw_config) or isinstance(decoded.get(name), dict)):
        raise BadRequest(f"The field “{name}” must be an object.", name)
    check_spelling(config, _IN_CONFIG, f"{name}.")
    thinking = next((key for key in config if camel(key) == "thinkingConfig"), "")
    check_spelling(object_of(object_of(decoded, name), thinking), _IN_THINKING, f"{name}.{thinking}.")
    contents = decoded.get(CONTENTS)
    if not isinstance(contents, (list, dict)) or not contents:
        message = "The field “contents” is missing: send a list with at least one content."
        raise BadRequest(message, CONTENTS, "missing_required_parameter")
    limits = [token_limit(raw) for key, raw in config.items() if camel(key) == LIMIT and not absent(raw)]
    counts = [
        decode_field(optional_int, raw, f"{name}.{key}", "a whole number")
        for key, raw in config.items()
        if camel(key) == COUNT and not absent(raw)
    ]
    choices = counts[0] if counts and counts[0] is not None else 1
    if not 1 <= choices <= MOST_CANDIDATES:
        raise BadRequest(f"The field “{name}.{COUNT}” must be between 1 and {MOST_CANDIDATES}.", f"{name}.{COUNT}")
    holders = [*objects_in(decoded, CONTENTS), *objects_in(decoded, SYSTEM)]
    for key, value in decoded.items():
        if camel(key) in _NAMING:
            check_stored(value, key)
    return GeminiRequest(
        body,
        fields,
        config,
        model.strip(),
        stream,
        sse,
        choices,
        limits[0] if limits else None,
        content_of(holders),
    )


def check_stored(value: object, where: str) -> None:
    """Raises BadRequest where a part of a request names an object of the portal's account. `where`: its field."""
    for found in stored_in(value, where):
        raise refused_reference(found)


def check_spelling(names: Collection[str], known: Collection[str], place: str) -> None:
    """Raises BadRequest for a member in both spellings, or in letters that some parsers only take for a known one."""
    plain = {folded(name): name for one in known for name in (one, snake(one))}
    seen: set[str] = set()
    for name in names:
        other = plain.get(folded(name), name)
        if other != name:
            message = f"The member “{name[:64]}” is “{other}” to some parsers only. Write it as “{other}”, once."
            raise BadRequest(message, f"{place}{other}", "invalid_json")
        if camel(name) in seen:
            message = f"The member “{place}{camel(name)}” is there in two spellings. Send it once."
            raise BadRequest(message, f"{place}{camel(name)}", "invalid_json")
        seen.add(camel(name))


def content_of(holders: Collection[Json]) -> Content:
    """What contents have beside their text."""
    images, media, unbounded = 0, False, False
    for holder in holders:
        for part in objects_in(holder, "parts"):
            for one in (part, *objects_in(object_in(part, "functionResponse"), "parts")):
                blob = object_in(one, "inlineData")
                media = media or bool(blob)
                kind = member(blob, "mimeType")
                images += isinstance(kind, str) and kind.startswith("image/")
                unbounded = unbounded or any(
                    value is not None and camel(name) not in _BOUNDED for name, value in one.items()
                )
    return Content(images, media, unbounded)


def _adds(fields: Fields) -> bool:
    """Whether there is a member that may add to the prompt what is not in the request."""
    return any(camel(name) not in _INERT and not absent(raw) for name, raw in fields.items())


def text_in(holder: Json) -> str:
    """The text of a content, such as a system instruction."""
    return "\n".join(text for part in objects_in(holder, "parts") if (text := text_of(part, "text")))
