"""OpenAI chat completions: what must be understood of a request and of a plain answer. All other fields pass through as bytes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from portal.lib.json import encode
from relay.protocols.fields import BadRequest, Fields, as_object, optional_bool, optional_int, read, read_fields, read_model, token_limit, word

_OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_stream_options = msgspec.json.Decoder(_StreamOptions | None)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A parsed request. `body` is what the client sent; `fields` its top-level members, undecoded."""

    body: bytes
    fields: Fields
    model: str
    stream: bool
    include_usage: bool
    choices: int
    output_limit: int | None = None

    def upstream_body(self, model: str, ask_usage: bool, clamp: int | None = None, clamp_field: str = "max_tokens", fields: Fields | None = None) -> bytes:
        """The body for an upstream that calls the model `model`. The client's own bytes when nothing has to change.

        `clamp`: at most so many tokens of answer; said in the fields that the client used, or in `clamp_field`. `fields`: in place of the
        client's own, when some of them must not be sent.
        """
        patch_usage = self.stream and ask_usage and not self.include_usage
        if fields is None or fields is self.fields:
            if model == self.model and not patch_usage and clamp is None:
                return self.body
            fields = self.fields
        fields = dict(fields)
        if clamp is not None:
            said = [name for name in _OUTPUT_FIELDS if bytes(fields.get(name, b"null")) != b"null"]
            for name in said or [clamp_field]:
                fields[name] = msgspec.Raw(b"%d" % clamp)
        if model != self.model:
            fields["model"] = msgspec.Raw(encode(model))
        if patch_usage:
            options = as_object(fields.get("stream_options"))
            options["include_usage"] = msgspec.Raw(b"true")
            fields["stream_options"] = msgspec.Raw(encode(options))
        return encode(fields)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Raises BadRequest."""
    fields = read_fields(body)
    model = read_model(fields)
    if "messages" not in fields:
        raise BadRequest("The field “messages” is missing: send a list with at least one message.", "messages", "missing_required_parameter")
    messages = bytes(fields["messages"]).strip()
    if not messages.startswith(b"[") or messages[1:-1].strip() == b"":
        raise BadRequest("The field “messages” must be a list with at least one message.", "messages")
    stream = read(optional_bool, fields.get("stream"), "stream", "true or false") or False
    options = read(_stream_options, fields.get("stream_options"), "stream_options", "an object such as {“include_usage”: true}")
    choices = read_choices(fields)
    limits = [token_limit(fields[name]) for name in _OUTPUT_FIELDS if name in fields]
    limit = min((found for found in limits if found is not None), default=None)
    return ChatRequest(body, fields, model, stream, bool(options and options.include_usage), choices, limit)


def read_choices(fields: Fields) -> int:
    """How many answers are asked for. Raises BadRequest."""
    choices = read(optional_int, fields.get("n"), "n", "a whole number")
    if choices is not None and not 1 <= choices <= 128:
        raise BadRequest("The field “n” must be between 1 and 128.", "n")
    return choices or 1


class _Metadata(msgspec.Struct):
    user_id: str | None = None


_metadata = msgspec.json.Decoder(_Metadata | None)
_CONVERSATION = ("prompt_cache_key", "previous_response_id", "user")


def conversation(fields: Fields) -> str:
    """What a request says about the conversation that it belongs to, empty when it says nothing. Requests with the same words belong together."""
    for name in _CONVERSATION[:2]:
        if name in fields and (found := word(fields[name])):
            return found
    if "metadata" in fields:
        try:
            metadata = _metadata.decode(fields["metadata"])
        except (msgspec.DecodeError, ValueError, RecursionError):
            metadata = None
        if metadata is not None and metadata.user_id:
            return str(metadata.user_id)[:256]
    return word(fields["user"]) if "user" in fields else ""
