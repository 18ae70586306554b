"""Parses the members of a request for an interaction that the portal needs; all others pass through as bytes. Pure.

Source: google-genai 3.6.1 (`CreateModelInteraction`, `CreateAgentInteraction`), ai.google.dev/gemini-api/docs;
November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
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
    optional_bool,
    read_document,
    read_model,
    refused_reference,
    string,
    token_limit,
    unsupported,
)
from relay.protocols.naming.google import stored_in
from relay.protocols.naming.references import Reference
from relay.protocols.prompts.content import TEXT, Content, models_in_tools, names_foreign_tools
from relay.protocols.prompts.lengths import hold_to
from relay.protocols.token_estimate import least_units
from relay.protocols.usage import ADDED_TO_CHAT

CONFIG: Final = "generation_config"
LIMIT: Final = "max_output_tokens"
PREVIOUS: Final = "previous_interaction_id"
_OWN_TOOLS: Final = frozenset(("function",))
# Members that add nothing to the input beside what they contain.
_INERT: Final = frozenset(
    (
        "model", "input", "system_instruction", "tools", CONFIG, "response_format", "response_mime_type",
        "response_modalities", "safety_settings", "store", "background", "stream", "service_tier", "labels",
    )
)  # fmt: skip
_KNOWN: Final = _INERT | {
    "agent", "agent_config", "cached_content", "continuation_token", "environment", PREVIOUS, "webhook_config",
}  # fmt: skip
# Those of objects in it that the portal reads, or by which objects of an account are named.
_INNER: Final = frozenset(
    (
        LIMIT, "thinking_level", "thinking_summaries", "tool_choice", "speech_config", "stop_sequences", "top_p",
        "image_config", "video_config", "transcription_config", "environment_id", "custom_config", "session_id",
        "session_config", "find_request", "fix_request", "max_total_tokens", "model", "credential", "network",
        "sources", "source",
    )
)  # fmt: skip
_STEPS: Final = frozenset(("user_input", "model_output", "thought", "function_call", "function_result"))
_PARTS: Final = frozenset(("text", "image", "audio", "video", "document"))
_TEXTS: Final = ("system_instruction", "tools", "response_format")
_DATA: Final = re.compile(rb'"data"\s*:\s*"([^"\\]*)"')
_UPPER: Final = re.compile(r"_([a-z])")
_NEW: Final = frozenset(("remote", "local"))  # environments that are no one's yet
_VOICES: Final = "voice_"  # begins the ids of an account's own voices; the keys of a client's own begin with voicekey_
_LEAVE_OUT: Final = "Leave it out."
_ENVIRONMENT: Final = (
    "an environment",
    "Go on from the interaction that has it, by “previous_interaction_id”, or let a new one be made.",
)


class InlineFile(NamedTuple):
    """Data in a request."""

    size: int  # bytes
    content_type: str


class Target(NamedTuple):
    """The properties of an upstream that decide about the request's body."""

    name: str  # its name of the model or agent
    stores: bool  # it may store the interaction
    clamp: int | None = None  # tokens of the answer
    previous_id: str = ""  # its id of the interaction that is continued


@dataclass(frozen=True, slots=True)
class InteractionRequest:
    """A parsed request for an interaction."""

    body: bytes  # as the client sent it
    fields: Fields  # its top-level members, undecoded
    model: str  # or agent
    is_agent: bool
    stream: bool
    store: bool
    background: bool
    previous_id: str  # of the interaction that it continues; empty: none
    continuation: str  # the token by which a long answer goes on; empty: none
    environment_id: str  # that it wants to use again; empty: none
    output_limit: int | None  # tokens of the answer; None: no limit
    content: Content
    named: tuple[str, ...]  # further models that parts of it name

    @property
    def own_text(self) -> bytes:
        """What the model is told, without the data in it."""
        told = [bytes(self.fields[name]) for name in ("input", *_TEXTS) if name in self.fields]
        return b"".join(_DATA.sub(b'"data":""', raw) if self.content.media else raw for raw in told)

    @property
    def files(self) -> list[InlineFile]:
        """The data in it."""
        raw = bytes(self.fields.get("input", b""))
        if not self.content.media:
            return []
        kinds = [text_of(holder, "mime_type") or f"{text_of(holder, 'type')}/" for holder in _with_data(decode(raw))]
        sizes = [len(match[1]) * 3 // 4 for match in _DATA.finditer(raw)]
        return [InlineFile(size, kind) for size, kind in zip(sizes, [*kinds, *[""] * len(sizes)], strict=False)]

    def at_most(self, tokens: int) -> int | None:
        """These tokens, those of all its bytes; None where something may add to them.

        That is an earlier interaction, an agent, a file by its address, a hosted tool, or a member that is not known.
        """
        unknown = any(name not in _INERT and not absent(raw) for name, raw in self.fields.items())
        if unknown or self.content.unbounded or names_foreign_tools(self.fields.get("tools"), _OWN_TOOLS):
            return None
        return tokens

    def most_input(self) -> int | None:
        """The tokens of input that a request cannot exceed; None where something can add to what it contains."""
        if self.content.media or self.at_most(0) is None:
            return None
        return len(self.body) + ADDED_TO_CHAT

    def least_input(self, enough: float) -> float:
        """The estimated tokens that the model is told for certain, counted until there are `enough`."""
        found = decode(self.fields.get("input", b"null"))
        if isinstance(found, str):
            return least_units([found], enough)
        return least_units((text_of(part, "text") for part in _parts_of(found, ("user_input", ""))), enough)

    @property
    def input(self) -> object:
        """The decoded input."""
        return decode(self.fields.get("input", b"null"))

    def upstream_body(self, target: Target, fields: Fields) -> bytes:
        """The body for an upstream. `fields`: the members to send, with the client's own bytes."""
        out = {name: raw for name, raw in fields.items() if name != PREVIOUS}
        out["agent" if self.is_agent else "model"] = msgspec.Raw(encode(target.name))
        if target.previous_id:
            out[PREVIOUS] = msgspec.Raw(encode(target.previous_id))
        if not (target.stores and self.store):
            out["store"] = msgspec.Raw(b"false")
        if self.background:  # what comes of it is asked for later
            out["stream"] = msgspec.Raw(b"false")
        if target.clamp is not None and not self.is_agent:
            config = as_object(out.get(CONFIG))
            hold_to(config, [LIMIT], target.clamp)
            out[CONFIG] = msgspec.Raw(encode(config))
        return encode(out)


def parse_interaction_request(body: bytes) -> InteractionRequest:
    """Parse the body of a request. Raises BadRequest."""
    body, fields, decoded = read_document(body)
    _check_spelling(fields, _KNOWN, "")
    for name in (CONFIG, "agent_config", "environment"):
        value = decoded.get(name)
        if isinstance(value, dict):
            _check_spelling(value, _INNER, f"{name}.")
        elif value is not None and not (name == "environment" and isinstance(value, str)):
            raise BadRequest(f"The field “{name}” must be an object.", name)
    is_agent = not absent(fields.get("agent"))
    if is_agent and not absent(fields.get("model")):
        raise BadRequest("Send “model” or “agent”, one of the two.", "agent")
    model = _agent(fields["agent"]) if is_agent else read_model(fields)
    if not absent(fields.get("webhook_config")):
        message = (
            "The upstream's webhooks would name its own ids and account. Leave “webhook_config” out, and fetch the "
            "interaction by its id."
        )
        raise unsupported(message, "webhook_config")
    flags = {
        name: decode_field(optional_bool, fields.get(name), name, "true or false")
        for name in ("stream", "store", "background")
    }
    if flags["background"] and flags["store"] is False:
        message = "An interaction that is made in the background must be stored: leave “store” out, or set it to true."
        raise BadRequest(message, "background")
    previous, continuation = (_text(fields, name) for name in (PREVIOUS, "continuation_token"))
    if absent(fields.get("input")) and not (previous or continuation):
        message = "The field “input” is missing: send a text, a content, or a list of contents or steps."
        raise BadRequest(message, "input", "missing_required_parameter")
    _check_objects(decoded)
    config = as_object(fields.get(CONFIG))
    of_agent = text_of(object_of(decoded, "agent_config"), "model")
    return InteractionRequest(
        body,
        fields,
        model,
        is_agent,
        bool(flags["stream"]),
        flags["store"] is not False,
        bool(flags["background"]),
        previous,
        continuation,
        _environment_id(decoded.get("environment")),
        token_limit(config[LIMIT]) if LIMIT in config else None,
        _content_of(decoded.get("input")),
        (*([of_agent] if of_agent else ()), *models_in_tools(fields.get("tools"))),
    )


def _agent(raw: msgspec.Raw) -> str:
    name = decode_field(string, raw, "agent", "a string that names an agent") or ""
    if not name.strip():
        raise BadRequest("The field “agent” is empty: name an agent from GET /v1/models.", "agent")
    return name


def _text(fields: Fields, name: str) -> str:
    return "" if absent(raw := fields.get(name)) else decode_field(string, raw, name, "a string") or ""


def _check_spelling(names: Collection[str], known: Collection[str], place: str) -> None:
    """Raises BadRequest for a member in letters that only some parsers take for a known one: Google's read camel case
    as well.
    """
    plain = {folded(name): one for one in known for name in (one, _UPPER.sub(lambda found: found[1].upper(), one))}
    for name in names:
        other = plain.get(folded(name), name)
        if other != name:
            message = f"The member “{name[:64]}” is “{other}” to some parsers only. Write it as “{other}”, once."
            raise BadRequest(message, f"{place}{other}", "invalid_json")


def _check_objects(decoded: Json) -> None:
    """Raises BadRequest for what names an object of the portal's account, which every user shares."""
    for name in ("input", "tools", "environment", "agent_config", CONFIG):
        for found in stored_in(decoded.get(name), name):
            raise refused_reference(found)
    for number, source in enumerate(objects_of(object_of(decoded, "environment"), "sources")):
        if text_of(source, "type") in {"gcs", "skill_registry"}:
            place = f"environment.sources[{number}]"
            raise refused_reference(Reference(text_of(source, "source"), place, "an object", _LEAVE_OUT))
    if session := text_of(object_of(decoded, "agent_config"), "session_id"):
        raise refused_reference(Reference(session, "agent_config.session_id", "a session", _LEAVE_OUT))
    for voice in _voices(object_of(decoded, CONFIG).get("speech_config")):
        if voice.lower().startswith((_VOICES, "voices/")):
            instead = "Use one of the model's own voices, by its name."
            raise refused_reference(Reference(voice, f"{CONFIG}.speech_config.voice", "a voice", instead))


def _voices(config: object) -> Iterator[str]:
    if isinstance(config, list):
        for entry in config:
            yield from _voices(entry)
    elif isinstance(config, dict):
        yield text_of(config, "voice")
        yield from _voices(config.get("speakers"))


def _environment_id(environment: object) -> str:
    """The environment of an account that a request names; empty: none."""
    found = environment if isinstance(environment, str) else text_of(_as_json(environment), "environment_id")
    return "" if found in _NEW else found


def refused_environment(environment_id: str) -> BadRequest:
    """The error for an environment that is not that of the interaction which is continued."""
    return refused_reference(Reference(environment_id, "environment", *_ENVIRONMENT))


# -- content -----------------------------------------------------------------------------------------------------------


def _as_json(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _entries(value: object) -> list[Json]:
    """An input as a list: one that stands alone is a list of one."""
    if isinstance(value, dict):
        return [value]
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _parts_of(found: object, steps: Collection[str]) -> Iterator[Json]:
    """The contents of an input, also those of its steps of these types; "": those that are in no step."""
    for entry in _entries(found):
        kind = text_of(entry, "type")
        if kind in _PARTS and "" in steps:
            yield entry
        elif kind in steps:
            for name in ("content", "summary", "result"):
                yield from objects_of(entry, name)


def _content_of(found: object) -> Content:
    """What an input has beside its text. Long strings in it may have been emptied."""
    if found is None or isinstance(found, str):
        return TEXT
    images, media, unbounded = 0, False, False
    for entry in _entries(found):
        unbounded = unbounded or text_of(entry, "type") not in _STEPS | _PARTS
    for part in _parts_of(found, (*_STEPS, "")):
        kind = text_of(part, "type")
        media = media or (kind != "text" and "data" in part)
        images += kind == "image"
        unbounded = unbounded or kind not in _PARTS or bool(part.get("uri"))
    return Content(images, media, unbounded)


def _with_data(value: object) -> Iterator[Json]:
    """The objects in a value that have data, in the order in which it stands there."""
    if isinstance(value, list):
        for entry in value:
            yield from _with_data(entry)
    elif isinstance(value, dict):
        for name, member in value.items():
            if name == "data" and isinstance(member, str):
                yield value
            else:
                yield from _with_data(member)
