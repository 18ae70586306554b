"""Parses the fields of a /v1/messages request that the portal needs; all others pass through as bytes. Pure.

Source: Anthropic's API reference and its SDK 2.14, November 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.thoughts import is_foreign
from relay.protocols.chat_completions.signatures.packed import MARK
from relay.protocols.fields import (
    BadRequest,
    Fields,
    absent,
    decode_field,
    optional_bool,
    read_document,
    read_model,
    token_limit,
)
from relay.protocols.prompts.content import TEXT, Content, content_of
from relay.protocols.prompts.lengths import hold_to, one_limit
from relay.protocols.prompts.thinking import thinking_budget
from relay.protocols.token_estimate import least_units, texts_in
from relay.protocols.usage import ADDED_TO_CHAT

PROTOCOL: Final = "messages"  # the name of this API in the hub's raw blocks
_LIMIT: Final = "max_tokens"
# Members that add nothing to the input beyond what the request contains.
_INERT: Final = frozenset((
    "model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "tools",
    "tool_choice", "thinking", "output_config", "output_format", "metadata", "service_tier", "cache_control", "speed",
    "inference_geo", "diagnostics", "betas",
))  # fmt: skip
_TEXT_BLOCKS: Final = frozenset(("text", "thinking", "redacted_thinking", "tool_use", "tool_result"))
# Tools whose calls the client answers. Of a version by its date, such as bash_20250124.
_CLIENT_TOOLS: Final = ("custom", "bash_", "text_editor_", "memory_", "computer_")
# Members that name objects of the portal's account at Anthropic (beta, October 2026), which every user shares.
_OF_THE_ACCOUNT: Final = ("workspace_id", "user_profile_id", "thread")
_THINKING: Final = re.compile(rb'"type"\s*:\s*"thinking"')
_SIGNED: Final = re.compile(rb'"signature"\s*:\s*"[^"]')
# Anthropic's own code where it cannot hold a conversation: its SDKs' runners of tools, which ask for a thread first,
# then go on without one (Python 2.14, Node 1.14).
_NO_THREAD: Final = "thread_unsupported_request"
_FILE: Final = b'"file_id"'


class _Tool(msgspec.Struct):
    type: object = None


_tools: Final = msgspec.json.Decoder(list[_Tool] | None)


@dataclass(frozen=True, slots=True)
class MessagesRequest:
    """A parsed request of /v1/messages."""

    body: bytes  # as the client sent it
    fields: Fields  # its top-level members, undecoded
    model: str
    stream: bool
    output_limit: int | None  # tokens of the answer; None where it is no number of them
    content: Content = TEXT  # of its messages

    def at_most(self, tokens: int) -> int | None:
        """These tokens, those of all its bytes; None where something may add to them.

        That is a document by its URL, a server tool, or a block or a member that is not known.
        """
        if self.content.unbounded or self._adds() or has_server_tools(self.fields.get("tools")):
            return None
        return tokens

    def thinking(self) -> int | None:
        """The tokens of thinking that it names, which are part of the answer's; None: it names none."""
        return thinking_budget(self.fields)

    def most_input(self) -> int | None:
        """The tokens of input that the request cannot exceed; None where something can add to what it contains.

        A token is a byte at least. This decodes the messages, so it is for reports that are in doubt.
        """
        if self._adds() or has_server_tools(self.fields.get("tools")):
            return None
        for message in self._messages():
            for block in objects_of(message, "content"):
                inner = objects_of(block, "content")
                if any(text_of(one, "type") not in _TEXT_BLOCKS for one in (block, *inner)):
                    return None
        return len(self.body) + ADDED_TO_CHAT

    def least_input(self, enough: float) -> float:
        """The estimated tokens that the model is told for certain, counted until there are `enough`.

        Not what an assistant said, of which earlier thoughts are left out; 0 with members that are not known, which
        may shorten the input.
        """
        if self._adds():
            return 0.0
        told = (message for message in self._messages() if text_of(message, "role") == "user")
        texts = [text for message in told for text in texts_in(message.get("content"))]
        system = decode(self.fields["system"]) if "system" in self.fields else None
        return least_units([*texts_in(system), *texts], enough)

    def _messages(self) -> list[Json]:
        return objects_of({"messages": decode(self.fields["messages"])}, "messages")

    def _adds(self) -> bool:
        fields = self.fields
        return not _INERT.issuperset(fields) and any(
            name not in _INERT and not absent(raw) for name, raw in fields.items()
        )

    def upstream_body(
        self, model: str, clamp: int | None = None, fields: Fields | None = None, strict: bool = False
    ) -> bytes:
        """The body for an upstream that knows the model as `model`; the client's own bytes when nothing has to change.

        `clamp`: limits the tokens of the answer; a lower limit of the client's own stays. `fields`: sent instead of
        the client's own. `strict`: the upstream refuses thinking blocks without a signature.
        """
        foreign = MARK.encode() in self.body or (strict and _may_be_unsigned(self.body))
        unchanged = model == self.model and clamp is None and not foreign
        if unchanged and (fields is None or fields is self.fields):
            return self.body
        fields = dict(self.fields if fields is None else fields)
        if clamp is not None:
            hold_to(fields, (_LIMIT,), clamp)
            _fit_thinking(fields)
        if model != self.model:
            fields["model"] = msgspec.Raw(encode(model))
        if foreign:
            fields["messages"] = msgspec.Raw(encode(_without_foreign_thoughts(decode(fields["messages"]), strict)))
        return encode(fields)


def _may_be_unsigned(body: bytes) -> bool:
    """Whether a body may have thinking without a signature: it is empty or null then, or missing."""
    return b'"thinking"' in body and len(_THINKING.findall(body)) > len(_SIGNED.findall(body))


def _fit_thinking(fields: Fields) -> None:
    """Keep a budget of thinking below a limit that was lowered: the API refuses any other."""
    if absent(fields.get("thinking")):
        return
    thinking, limit = decode(fields["thinking"]), token_limit(fields[_LIMIT])
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(thinking, dict) or not isinstance(budget, int) or limit is None or budget < limit:
        return
    fitting = {**thinking, "budget_tokens": limit - 1} if limit > LEAST_BUDGET else {"type": "disabled"}
    fields["thinking"] = msgspec.Raw(encode(fitting))


LEAST_BUDGET: Final = 1024  # tokens of thinking, which must be fewer than those of the answer (API reference)


def _without_foreign_thoughts(messages: object, strict: bool) -> object:
    """Messages without thinking that another API's upstream wrote, or whose signature is missing."""
    if not isinstance(messages, list):
        return messages
    found: list[object] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list) or text_of(message, "role") != "assistant":
            found.append(message)
            continue
        kept = [block for block in content if not (isinstance(block, dict) and is_foreign(block, strict))]
        if kept:
            found.append({**message, "content": kept} if len(kept) < len(content) else message)
    return found


def has_server_tools(tools: msgspec.Raw | None) -> bool:
    """Whether the upstream may call a tool by itself, which brings what it finds into the prompt."""
    if tools is None:
        return False
    try:
        found = _tools.decode(tools)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return True
    return any(
        tool.type is not None and not (isinstance(tool.type, str) and tool.type.startswith(_CLIENT_TOOLS))
        for tool in found or ()
    )


def parse_messages_request(body: bytes, counting: bool = False) -> MessagesRequest:
    """Parse the body of a request. Raises BadRequest. `counting`: its tokens are counted, so that it needs no limit."""
    body, fields, decoded = read_document(body)
    body, fields = one_limit(body, fields, _LIMIT)
    model = read_model(fields)
    if "messages" not in fields:
        message = "The field “messages” is missing: send a list with at least one message."
        raise BadRequest(message, "messages", "missing_required_parameter")
    messages = bytes(fields["messages"]).strip()
    if not messages.startswith(b"[") or messages[1:-1].strip() == b"":
        raise BadRequest("The field “messages” must be a list with at least one message.", "messages")
    if absent(fields.get(_LIMIT)) and not counting:
        message = "The field “max_tokens” is missing: send the most tokens that the answer may have."
        raise BadRequest(message, _LIMIT, "missing_required_parameter")
    limit = None if absent(fields.get(_LIMIT)) else token_limit(fields[_LIMIT])
    if limit is None and not counting:
        raise BadRequest("The field “max_tokens” must be a whole number of tokens.", _LIMIT)
    for name in _OF_THE_ACCOUNT:
        if not absent(fields.get(name)):
            message = f"“{name}” belongs to the portal's account at the upstream, which all of its users share."
            raise BadRequest(f"{message} Leave it out.", name, _NO_THREAD if name == "thread" else "invalid_value")
    if _FILE in body:
        _check_files(decoded)
    stream = decode_field(optional_bool, fields.get("stream"), "stream", "true or false") or False
    return MessagesRequest(body, fields, model, stream, limit, content_of(decoded.get("messages")))


def _check_files(decoded: Json) -> None:
    """Raises BadRequest for files that are stored at the upstream: its account is shared, and would read them all.

    What tools were called with, and what they returned as text, is the client's own.
    """
    left = [
        (block, f"messages[{at}].content[{number}]")
        for at, message in enumerate(objects_of(decoded, "messages"))
        for number, block in enumerate(objects_of(message, "content"))
    ]
    while left:
        block, where = left.pop()
        source = object_of(block, "source")
        if text_of(source, "type") == "file" or text_of(block, "type") == "container_upload":
            message = (
                f"“{where}” names a file of the portal's account at the upstream. Send the file itself, as “base64”."
            )
            raise BadRequest(message, f"{where}.source.file_id" if source else f"{where}.file_id")
        for holder, path in ((block, where), (source, f"{where}.source")):
            inner = objects_of(holder, "content")
            left += [(one, f"{path}.content[{number}]") for number, one in enumerate(inner)]
