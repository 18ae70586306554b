"""OpenAI chat completions: what must be understood of a request and of a plain answer. All other fields pass through as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from relay.wire.usage import Usage, parse_chat_usage, present

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
T = TypeVar("T")
_string: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_optional_bool = msgspec.json.Decoder(bool | None)
_optional_int = msgspec.json.Decoder(int | None)
_OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens")
_MOST_TOKENS = 2**31 - 1


class BadRequest(Exception):
    """The request cannot be understood. `param` names the field, `code` is OpenAI's word for it."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_stream_options = msgspec.json.Decoder(_StreamOptions | None)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A parsed request. `body` is what the client sent; `fields` its top-level members, undecoded."""

    body: bytes
    fields: dict[str, msgspec.Raw]
    model: str
    stream: bool
    include_usage: bool
    choices: int
    output_limit: int | None = None

    def upstream_body(self, model: str, ask_usage: bool, clamp: int | None = None, clamp_field: str = "max_tokens") -> bytes:
        """The body for an upstream that calls the model `model`. The client's own bytes when nothing has to change.

        `clamp`: at most so many tokens of answer; said in the fields that the client used, or in `clamp_field`.
        """
        patch_usage = self.stream and ask_usage and not self.include_usage
        if model == self.model and not patch_usage and clamp is None:
            return self.body
        fields = dict(self.fields)
        if clamp is not None:
            said = [name for name in _OUTPUT_FIELDS if bytes(fields.get(name, b"null")) != b"null"]
            for name in said or [clamp_field]:
                fields[name] = msgspec.Raw(b"%d" % clamp)
        if model != self.model:
            fields["model"] = msgspec.Raw(_encode(model))
        if patch_usage:
            options = _object(fields.get("stream_options"))
            options["include_usage"] = msgspec.Raw(b"true")
            fields["stream_options"] = msgspec.Raw(_encode(options))
        return _encode(fields)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Raises BadRequest."""
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise BadRequest("The request body must be a JSON object.", None, "invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise BadRequest("The request body is not valid JSON. Check quotes, commas and encoding (UTF-8).", None, "invalid_json") from None
    if "model" not in fields:
        raise BadRequest("The field “model” is missing: name a model from GET /v1/models.", "model", "missing_required_parameter")
    model = _decode(_string, fields["model"], "model", "a string that names a model")
    if not model or not model.strip():
        raise BadRequest("The field “model” is empty: name a model from GET /v1/models.", "model")
    if "messages" not in fields:
        raise BadRequest("The field “messages” is missing: send a list with at least one message.", "messages", "missing_required_parameter")
    messages = bytes(fields["messages"]).strip()
    if not messages.startswith(b"[") or messages[1:-1].strip() == b"":
        raise BadRequest("The field “messages” must be a list with at least one message.", "messages")
    stream = _decode(_optional_bool, fields.get("stream"), "stream", "true or false") or False
    options = _decode(_stream_options, fields.get("stream_options"), "stream_options", "an object such as {“include_usage”: true}")
    choices = _decode(_optional_int, fields.get("n"), "n", "a whole number")
    if choices is not None and not 1 <= choices <= 128:
        raise BadRequest("The field “n” must be between 1 and 128.", "n")
    limits = [_output_limit(fields[name]) for name in _OUTPUT_FIELDS if name in fields]
    limit = min((found for found in limits if found is not None), default=None)
    return ChatRequest(body, fields, model, stream, bool(options and options.include_usage), choices or 1, limit)


def _output_limit(raw: msgspec.Raw) -> int | None:
    """What is no number of tokens (-1 means no limit to some servers) is the upstream's to judge, and limits nothing here."""
    try:
        limit = _optional_int.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    return min(limit, _MOST_TOKENS) if limit is not None and limit >= 1 else None


def _decode(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw | None, name: str, wanted: str) -> T | None:
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadRequest(f"The field “{name}” must be {wanted}.", name) from None


def _object(raw: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    try:
        return dict(_fields.decode(raw)) if raw is not None else {}
    except msgspec.DecodeError:  # null
        return {}


class _Metadata(msgspec.Struct):
    user_id: str | None = None


_metadata = msgspec.json.Decoder(_Metadata | None)
_CONVERSATION = ("prompt_cache_key", "previous_response_id", "user")


def conversation(fields: dict[str, msgspec.Raw]) -> str:
    """What a request says about the conversation that it belongs to, empty when it says nothing. Requests with the same words belong together."""
    for name in _CONVERSATION[:2]:
        if name in fields and (found := _word(fields[name])):
            return found
    if "metadata" in fields:
        try:
            metadata = _metadata.decode(fields["metadata"])
        except (msgspec.DecodeError, ValueError, RecursionError):
            metadata = None
        if metadata is not None and metadata.user_id:
            return str(metadata.user_id)[:256]
    return _word(fields["user"]) if "user" in fields else ""


def _word(raw: msgspec.Raw) -> str:
    try:
        return str(_string.decode(raw))[:256]
    except (msgspec.DecodeError, ValueError):
        return ""


class _Answer(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    model: object = None


_answer = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What the portal needs of a plain answer. `is_error`: a 200 whose body is an error object."""

    usage: Usage | None
    is_error: bool
    model: str


def parse_chat_answer(body: bytes) -> ChatAnswer | None:
    """None when the body is no chat completion at all (empty, HTML, cut off)."""
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    is_error = present(answer.error)
    if not is_error and not present(answer.choices):
        return None
    usage = parse_chat_usage(answer.usage) if present(answer.usage) else None
    return ChatAnswer(usage, is_error, answer.model if isinstance(answer.model, str) else "")
