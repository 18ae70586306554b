"""Parses the fields of a chat completions request that the portal needs; all others pass through as bytes. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, objects_of
from relay.protocols.chat_completions.signatures.sealed import SEALED, without_sealed
from relay.protocols.fields import (
    BadRequest,
    Fields,
    as_object,
    decode_field,
    optional_int,
    read_document,
    read_model,
    short_string,
    token_limit,
)
from relay.protocols.prompts.content import TEXT, Content, content_of, names_foreign_tools
from relay.protocols.prompts.counts import one_count
from relay.protocols.prompts.lengths import hold_to, one_limit
from relay.protocols.prompts.thinking import thinking_budget
from relay.protocols.token_estimate import least_units, texts_in
from relay.protocols.usage import ADDED_TO_CHAT

_OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens")

# Members that add nothing to the input. Of any other it is not known: vendors have several for searches and plugins.
_INERT: Final = frozenset((
    "model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "temperature",
    "top_p", "top_k", "min_p", "stop", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "logit_bias", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls",
    "functions", "function_call", "reasoning_effort", "reasoning", "thinking", "verbosity", "prediction",
    "modalities", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
))  # fmt: skip
_TEXT_PARTS: Final = frozenset(("text", "refusal", "thinking"))
_TOLD: Final = frozenset(("system", "developer", "user", "tool"))  # roles whose messages no template shortens
_OWN_TOOLS: Final = frozenset(("function", "custom"))


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_stream_options = msgspec.json.Decoder(_StreamOptions | None)


class ChatRequest(msgspec.Struct, frozen=True):
    """A parsed chat completions request. A struct is made three times as fast as a frozen dataclass."""

    body: bytes  # as the client sent it, but for a model that the path names
    fields: Fields  # its top-level members, undecoded
    model: str
    stream: bool
    include_usage: bool  # the client wants a usage chunk at the end of a stream
    choices: int  # how many answers are requested (`n`)
    output_limit: int | None = None  # tokens of each answer; None: no limit
    content: Content = TEXT  # of its messages

    def at_most(self, tokens: int) -> int | None:
        """These tokens, those of all its bytes; None where something may add to them.

        That is a file or film by its URL, a hosted tool, or a part or a member that is not known.
        """
        if self.content.unbounded or _adds(self.fields):
            return None
        return None if names_foreign_tools(self.fields.get("tools"), _OWN_TOOLS) else tokens

    def thinking(self) -> int | None:
        """The tokens of thinking that it names; None: it names none."""
        return thinking_budget(self.fields)

    def most_input(self) -> int | None:
        """The tokens of input that a request cannot exceed; None where something can add to what it contains.

        That is a file, an image, audio or a URL of them, a search, or a member that is not known. A token is a byte at
        least. This decodes the messages, so it is for reports that are in doubt.
        """
        fields = self.fields
        if _adds(fields):
            return None
        values: Json = {name: decode(fields[name]) for name in ("messages", "tools") if name in fields}
        if any(tool.get("type") not in _OWN_TOOLS for tool in objects_of(values, "tools")):
            return None
        for message in objects_of(values, "messages"):
            if message.get("audio") or any(
                part.get("type") not in _TEXT_PARTS for part in objects_of(message, "content")
            ):
                return None
        return self.choices * len(self.body) + ADDED_TO_CHAT

    def least_input(self, enough: float) -> float:
        """The estimated tokens that the model is told for certain, counted until there are `enough`.

        Not what an assistant said, from which templates leave earlier thoughts out; 0 with members that are not known,
        which may shorten the input.
        """
        if _adds(self.fields):
            return 0.0
        messages = objects_of({"messages": decode(self.fields["messages"])}, "messages")
        told = (message for message in messages if message.get("role") in _TOLD)
        return least_units((text for message in told for text in texts_in(message.get("content"))), enough)

    def upstream_body(
        self,
        model: str,
        ask_usage: bool,
        clamp: int | None = None,
        clamp_field: str = "max_tokens",
        fields: Fields | None = None,
    ) -> bytes:
        """The body for an upstream that knows the model as `model`; the client's own bytes when nothing has to change.

        `clamp`: limits the tokens of the answer, in the fields that the client used, otherwise in `clamp_field`; lower
        limits of the client's own stay.
        `fields`: sent instead of the client's own, when some of those must be omitted.
        """
        if SEALED in self.body:
            told = dict(fields or self.fields)
            told["messages"] = msgspec.Raw(encode(without_sealed(decode(told["messages"]))))
            fields = told
        patch_usage = self.stream and ask_usage and not self.include_usage
        if fields is None or fields is self.fields:
            if model == self.model and not patch_usage and clamp is None:
                return self.body
            fields = self.fields
        fields = dict(fields)
        if clamp is not None:
            used = [name for name in _OUTPUT_FIELDS if bytes(fields.get(name, b"null")) != b"null"]
            hold_to(fields, used or [clamp_field], clamp)
        if model != self.model:
            fields["model"] = msgspec.Raw(encode(model))
        if patch_usage:
            options = as_object(fields.get("stream_options"))
            options["include_usage"] = msgspec.Raw(b"true")
            fields["stream_options"] = msgspec.Raw(encode(options))
        return encode(fields)


def parse_chat_request(body: bytes, model_in_path: str = "") -> ChatRequest:
    """Parse the body of a request. Raises BadRequest. `model_in_path`: stands before the body's."""
    body, fields, decoded = read_document(body, model_in_path)
    body, fields = one_count(*one_limit(body, fields, "max_tokens", "max_completion_tokens"))
    model = decoded.get("model")
    if model_in_path or not isinstance(model, str) or not model.strip():
        model = read_model(fields)
    given = decoded.get("messages")
    if "messages" not in fields:
        message = "The field “messages” is missing: send a list with at least one message."
        raise BadRequest(message, "messages", "missing_required_parameter")
    if type(given) is not list or not given:
        raise BadRequest("The field “messages” must be a list with at least one message.", "messages")
    stream = decoded.get("stream")
    if stream is not None and type(stream) is not bool:
        raise BadRequest("The field “stream” must be true or false.", "stream")
    include_usage = False
    if "stream_options" in fields:
        wanted = "an object such as {“include_usage”: true}"
        options = decode_field(_stream_options, fields["stream_options"], "stream_options", wanted)
        include_usage = bool(options and options.include_usage)
    choices = read_choices(fields)
    return ChatRequest(
        body, fields, model, stream or False, include_usage, choices, _output_limit(fields), content_of(given)
    )


def _output_limit(fields: Fields) -> int | None:
    """The tokens of each answer that the upstream may send. Of two limits, upstreams keep to either."""
    largest = None
    for name in _OUTPUT_FIELDS:
        raw = fields.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        limit = token_limit(raw)
        if limit is None:
            return None
        if largest is None or limit > largest:
            largest = limit
    return largest


def _adds(fields: Fields) -> bool:
    """Whether there is a member that may add to the prompt what is not in the request."""
    if _INERT.issuperset(fields):
        return False
    return any(name not in _INERT and bytes(raw) != b"null" for name, raw in fields.items())


def read_choices(fields: Fields) -> int:
    """The number of answers that are requested. Raises BadRequest."""
    if "n" not in fields:  # nearly always
        return 1
    choices = decode_field(optional_int, fields["n"], "n", "a whole number")
    if choices is not None and not 1 <= choices <= 128:
        raise BadRequest("The field “n” must be between 1 and 128.", "n")
    return choices or 1


class _Metadata(msgspec.Struct):
    user_id: str | None = None


_metadata = msgspec.json.Decoder(_Metadata | None)
_CONVERSATION = ("prompt_cache_key", "previous_response_id", "user")


def conversation_key(fields: Fields) -> str:
    """An identifier of the conversation that a request belongs to; empty when the request gives none.

    Requests with the same key belong to the same conversation.
    """
    for name in _CONVERSATION[:2]:
        if name in fields and (found := short_string(fields[name])):
            return found
    if "metadata" in fields:
        try:
            metadata = _metadata.decode(fields["metadata"])
        except (msgspec.DecodeError, ValueError, RecursionError):
            metadata = None
        if metadata is not None and metadata.user_id:
            return str(metadata.user_id)[:256]
    return short_string(fields["user"]) if "user" in fields else ""
