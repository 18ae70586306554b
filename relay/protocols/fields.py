"""Splits a JSON body into its undecoded top-level members, so that unknown ones pass through as bytes. Pure.

A body is refused unless every parser reads it alike, for its bytes may go on to an upstream as they are: no member
twice in an object, at any depth, and no parameter in other letters, which Go's parsers would take for the parameter;
nor a member of what a parameter contains, such as a message or a tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec

from portal import limits
from portal.lib.json import (
    BOM,
    Json,
    Repeated,
    decode,
    encode,
    has_escaped_letters,
    has_more_values,
    strict_decode,
    text_of,
    without_long_strings,
)
from relay.protocols.naming.references import Reference, may_name_objects, references_in
from relay.protocols.naming.unpriced_tools import may_use_unpriced_tools, unpriced_tool

T = TypeVar("T")
Fields = dict[str, msgspec.Raw]
_fields: Final = msgspec.json.Decoder(Fields)
string: Final[msgspec.json.Decoder[str]] = msgspec.json.Decoder(str)
optional_string: Final[msgspec.json.Decoder[str | None]] = msgspec.json.Decoder(str | None)
optional_bool: Final[msgspec.json.Decoder[bool | None]] = msgspec.json.Decoder(bool | None)
optional_int: Final[msgspec.json.Decoder[int | None]] = msgspec.json.Decoder(int | None)
MAX_TOKENS: Final = 2**31 - 1
_NOT_JSON: Final = "The request body is not valid JSON. Check quotes, commas and encoding (UTF-8)."
_TOO_DEEP: Final = "The request body is nested too deep to be read. Send it with fewer levels."
_HALF: Final = (
    "The request body has half of a character that JSON writes as two escapes, such as \\ud83d without \\ude00. Send "
    "both, or neither."
)
_HALVES: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_TOO_MANY: Final = (
    f"The request body has more than {limits.JSON_MEMBERS:,} members or {limits.JSON_VALUES:,} items. Send several "
    "requests."
)
_NO_OBJECT: Final = "The request body must be a JSON object."
# Parameters of OpenAI's APIs that the portal reads, or that a channel's rules may name (API reference, November 2026).
PARAMETERS: Final = frozenset(
    (
        "audio", "background", "best_of", "conversation", "dimensions", "documents", "echo", "encoding_format",
        "frequency_penalty", "function_call", "functions", "image", "include", "input", "instructions", "language",
        "logit_bias", "logprobs", "mask", "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls",
        "messages", "metadata", "modalities", "model", "n", "output_compression", "output_format",
        "parallel_tool_calls", "partial_images", "prediction", "presence_penalty", "previous_response_id", "prompt",
        "prompt_cache_key", "prompt_cache_retention", "quality", "query", "reasoning", "reasoning_effort",
        "response_format", "return_documents", "safety_identifier", "seed", "service_tier", "size", "speed", "stop",
        "store", "stream", "stream_format", "stream_options", "style", "suffix", "temperature", "text", "tool_choice",
        "tools", "top_logprobs", "top_n", "top_p", "truncation", "user", "verbosity", "voice", "web_search_options",
        # of Anthropic's
        "container", "context_management", "mcp_servers", "output_config", "stop_sequences", "system", "thinking",
        "top_k",
        # output limits of other servers
        "max_gen_len", "max_length", "max_new_tokens", "max_tokens_to_generate", "max_tokens_to_sample",
        "maximum_tokens", "min_length", "min_new_tokens", "min_tokens", "n_predict", "num_predict",
        "tokens_to_generate",
        # counts of answers of other servers
        "batch_size", "candidate_count", "image_count", "max_images", "num_completions", "num_generations",
        "num_images", "num_images_per_prompt", "num_outputs", "num_return_sequences", "num_samples",
        "number_of_images", "samples",
    )
)  # fmt: skip
# Members whose objects have names that the APIs define, and the names that the portal, or a rule of it, reads there.
# Other objects, such as JSON schemas, `metadata` and the arguments of tools, have names of the client's own.
_STRUCTURES: Final = frozenset(
    (
        "audio", "container", "content", "environment", "file", "format", "function", "function_call", "functions",
        "image", "image_url", "images", "include", "input", "input_audio", "item", "items", "json_schema", "mask",
        "messages", "modalities", "output", "output_audio", "prediction", "prompt", "prompt_cache_options", "reasoning",
        "response", "response_format", "session", "skills", "stream_options", "summary", "text", "thinking",
        "tool_calls", "tool_choice", "tools", "transcription", "turn_detection", "voice",
    )
)  # fmt: skip
_INNER: Final = (PARAMETERS | _STRUCTURES | frozenset(
    (
        "action", "annotations", "approval_request_id", "arguments", "call_id", "comparison_response_id",
        "container_id", "create_response", "data", "delta", "description", "detail", "effort", "encrypted_content",
        "event_id", "file_data", "file_id", "file_ids", "file_url", "filename", "id", "image_file", "include_usage",
        "input_audio_format", "input_audio_transcription", "item_id", "name", "output_audio_format", "parameters",
        "previous_item_id", "rate", "reasoning_content", "refusal", "response_id", "role", "schema", "server_label",
        "server_url", "skill_id", "status", "strict", "svg", "tool_call_id", "transcript", "tunnel_id", "type", "url",
        "vector_store_ids", "video_url",
    )
))  # fmt: skip


class BadRequest(Exception):
    """A request that is invalid (status 400), or that cannot be served as it is (422)."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value", status: int = 400) -> None:
        """`param`: the field at fault. `code`: OpenAI's error code."""
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


def unsupported(message: str, param: str | None) -> BadRequest:
    """The error for a parameter that the upstream cannot honour."""
    return BadRequest(message, param, "unsupported_parameter", 422)


class Document(NamedTuple):
    """A body, its top-level members undecoded, and all of it decoded, in which long strings may have been emptied."""

    body: bytes
    fields: Fields
    decoded: Json


class _Named(msgspec.Struct):
    model: str = ""


_named: Final = msgspec.json.Decoder(_Named)


def named_model(body: bytes) -> str | None:
    """The model that a body names, empty when it names none; None when that cannot be read. Skips all other members,
    so that it may be asked before the body is parsed: 10 MB take 10 ms."""
    try:
        return _named.decode(body.removeprefix(BOM)).model
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def check_size(body: bytes) -> None:
    """Raises BadRequest for JSON with more members and items than are read."""
    if has_more_values(body, limits.JSON_MEMBERS, limits.JSON_VALUES):
        raise BadRequest(_TOO_MANY, None, "invalid_value")


def read_document(body: bytes, model: str = "", named: list[Reference] | None = None) -> Document:
    """Read a body that means one thing only. Raises BadRequest.

    `model`: one that the path names, as Azure's paths do; the body then names it too. A body with escaped letters is
    written anew, so that names can be searched for in its bytes. `named`: takes the objects that it names which may be
    the user's own, and which the caller looks up; None: such objects are refused.
    """
    if body.startswith(BOM):
        body = body[len(BOM) :]
    check_size(body)
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise BadRequest(_NO_OBJECT, None, "invalid_json") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(_why_unreadable(error, body), None, "invalid_json") from None
    if len(fields) > limits.JSON_FIELDS:
        raise BadRequest(
            f"The request body has more than {limits.JSON_FIELDS:,} fields. Leave out those that the API has not.",
            None,
            "invalid_value",
        )
    found = _strict_object(without_long_strings(body))
    if has_escaped_letters(body):
        body = encode(decode(body))
        fields = _fields.decode(body)
    check_names(fields)
    check_inner_names(found)
    if may_name_objects(body):
        _check_references(found, named)
    if any(may_use_unpriced_tools(bytes(fields[name])) for name in ("tools", "input") if name in fields):
        _check_tools(found)
    if model and (raw := encode(model)) != bytes(fields.get("model", b"")):
        fields["model"] = msgspec.Raw(raw)
        body = encode(fields)
    return Document(body, fields, found)


def read_object(body: bytes, named: list[Reference] | None = None, where: str = "") -> Json:
    """A body that is read here, decoded; an empty one is an empty object. Raises BadRequest.

    `named`: as in `read_document`. `where`: the field that it is from, for errors; empty: it is all of a request.
    """
    body = body.removeprefix(BOM)
    check_size(body)
    found = _strict_object(body) if body.strip() else {}
    _check_references(found, named, where)
    return found


def _check_references(value: object, own: list[Reference] | None, where: str = "") -> None:
    """Raises BadRequest for what names an object of the account at an upstream. `own`: as `named`."""
    for found in references_in(value, where):
        if own is None or not found.may_be_own:
            raise refused_reference(found)
        own.append(found)


def _check_tools(found: Json) -> None:
    """Raise BadRequest for a tool that has no price."""
    tool = unpriced_tool(found)
    if tool is not None:
        raise unsupported(
            f"This portal does not offer the tool “{tool.name}”: its vendor bills it apart from tokens, and it has no "
            "price here. Leave it out.",
            tool.param,
        )


def refused_reference(found: Reference) -> BadRequest:
    """The error for an object that is not the user's own."""
    return BadRequest(found.message, found.param[:200])


def _strict_object(body: bytes) -> Json:
    try:
        found = strict_decode(body)
    except msgspec.ValidationError:
        raise BadRequest(
            "The request body has a number that is out of range. Send a smaller one.", None, "invalid_json"
        ) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(_why_unreadable(error, body), None, "invalid_json") from None
    if isinstance(found, Repeated):
        path = found.path if len(found.path) <= 200 else found.path[:199] + "…"
        message = f"The member “{path}” is more than once in its object. Send it once, so that it means one thing."
        raise BadRequest(message, path, "invalid_json")
    if not isinstance(found, dict):
        raise BadRequest(_NO_OBJECT, None, "invalid_json")
    return found


def _why_unreadable(error: Exception, body: bytes) -> str:
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if _HALVES.search(body) is not None:
        try:
            json.loads(body)  # takes half a character
        except (ValueError, RecursionError):
            return _NOT_JSON
        return _HALF
    return _NOT_JSON


def are_parameters(names: Iterable[str]) -> bool:
    """Whether all are names of parameters, in the letters that these have."""
    return PARAMETERS.issuperset(names)


def check_names(fields: Collection[str]) -> None:
    """Raises BadRequest for parameters in other letters.

    Go's encoding/json takes “Model” for “model”, and of both the last; parsers in C end a name at a NUL.
    """
    if are_parameters(fields):  # nearly always
        return
    for name in set(fields) - PARAMETERS:
        plain = folded(name)
        if plain != name and plain in PARAMETERS:
            raise _misread(name, plain)


def check_inner_names(found: Json) -> None:
    """The same inside the parameters of a decoded body, in lists and objects of any depth. Raises BadRequest.

    Costs half a microsecond for each message, and nothing for schemas.
    """
    left: list[Json] = [found]
    while left:
        one_of = left.pop()
        for name, value in one_of.items():
            if type(value) is str or name not in _STRUCTURES:
                continue
            if name == "input" and type(value) is dict and text_of(one_of, "type").endswith("_use"):
                continue  # what a tool was called with
            for one in value if type(value) is list else (value,):
                if type(one) is dict:
                    if not _INNER.issuperset(one):
                        _check_inner(one.keys() - _INNER)
                    left.append(one)
                elif type(one) is list:
                    left.append({"items": one})


def folded(name: str) -> str:
    """A member's name as the most lenient of parsers reads it."""
    return name.upper().casefold().partition("\0")[0].strip()


def _check_inner(unknown: Collection[str]) -> None:
    """The same of names that are not known: no two of an object may be one to some parsers, either."""
    seen: dict[str, str] = {}
    for name in sorted(unknown, reverse=True):
        plain = folded(name)
        other = plain if plain in _INNER else seen.setdefault(plain, name)
        if other != name:
            raise _misread(name, other)


def _misread(name: str, other: str) -> BadRequest:
    shown, other = encode(name[:64]).decode(), other[:64]
    message = f"The member {shown} is “{other}” to some parsers only. Write it as “{other}”, once."
    return BadRequest(message, other, "invalid_json")


def read_model(fields: Mapping[str, msgspec.Raw], default: str = "") -> str:
    """The model that a request names, or `default` when it names none. Raises BadRequest."""
    if default and ("model" not in fields or absent(fields["model"])):
        return default
    if "model" not in fields:
        message = "The field “model” is missing: name a model from GET /v1/models."
        raise BadRequest(message, "model", "missing_required_parameter")
    model = decode_field(string, fields["model"], "model", "a string that names a model")
    if not model or not model.strip():
        raise BadRequest("The field “model” is empty: name a model from GET /v1/models.", "model")
    return model


def decode_field(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw | None, name: str, wanted: str) -> T | None:
    """Decode a member; None when it is missing. `wanted` describes a valid value. Raises BadRequest."""
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadRequest(f"The field “{name}” must be {wanted}.", name) from None


def lost_members(holders: Iterable[Json], known: Collection[str], place: str) -> list[str]:
    """The names of the members of objects that a conversion does not know, as `place` and a member; empty ones say
    nothing.
    """
    return [
        f"{place}{name}"
        for holder in holders
        for name, value in holder.items()
        if name not in known and value not in (None, "", [], {})
    ]


def absent(raw: msgspec.Raw | None) -> bool:
    """Whether a member is missing or null."""
    return raw is None or bytes(raw).strip() in (b"", b"null")


def token_limit(raw: msgspec.Raw) -> int | None:
    """The output limit in a field; None when the value is no number of tokens.

    Such values are left to the upstream to judge: some servers read -1 as no limit. With 0, they read the prompt alone.
    """
    try:
        limit = optional_int.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    return min(limit, MAX_TOKENS) if limit is not None and limit >= 0 else None


def lower_limit(asked: object, most: int) -> int:
    """The output limit that an upstream is told where `most` tokens can be paid for: never above what was asked.

    `asked`: the limit of the request, decoded; anything but a number from 0 is none.
    """
    known = isinstance(asked, (int, float)) and not isinstance(asked, bool) and 0 <= asked < most
    return int(asked) if known else most  # type: ignore[call-overload]


def lowered(raw: msgspec.Raw | None, most: int) -> msgspec.Raw:
    """The same of a member that is not decoded."""
    return msgspec.Raw(b"%d" % lower_limit(decode(raw) if raw is not None else None, most))


def as_object(raw: msgspec.Raw | None) -> Fields:
    """The members of an object; empty for anything else."""
    try:
        return dict(_fields.decode(raw)) if raw is not None else {}
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}


def short_string(raw: msgspec.Raw) -> str:
    """A string of at most 256 characters; empty for anything else."""
    try:
        return str(string.decode(raw))[:256]
    except (msgspec.DecodeError, ValueError):
        return ""
