"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase
from msgspec.structs import replace

from portal import limits
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode
from relay.billing.estimate import estimate_media, estimate_request
from relay.billing.ledger.rows import RowWrite
from relay.endpoints.errors import invalid
from relay.endpoints.files.file_ids import check_fields
from relay.endpoints.files.file_inputs import FileInputs
from relay.endpoints.overrides import sent_fields
from relay.endpoints.text.endpoint import check_text_channel, overridden_text, try_text, unseal
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.pipeline import check_access, check_end, check_large, serve
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols.chat_completions.answer import (
    chunks_of,
    clean_choices,
    complete_answer,
    parse_chat_answer,
    whole_completion,
)
from relay.protocols.chat_completions.client import MEMBERS, ChatClient
from relay.protocols.chat_completions.request import ChatRequest, conversation_key, parse_chat_request, read_choices
from relay.protocols.chat_completions.stream import ChatStream, error_event
from relay.protocols.codec import EVENT_STREAM, BrokenOff
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.naming.sessions import ids_in_body
from relay.protocols.prompts.content import models_in_tools
from relay.protocols.prompts.searches import most_searches
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.classify import Failure

_ENDPOINT: Final = "chat.completions"


async def chat_completions(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Serve one request. Raises RelayError if no part of an answer has been sent; the record is on disk by then."""
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, _ENDPOINT, body)
    try:
        request = ChatTextRequest(parse_chat_request(body, exchange.model_in_path), int(exchange.wall))
        if b'"file_' in body:
            check_access(exchange, caller, _ENDPOINT, request.parsed.model)
            check_fields(request.fields, ("messages",))
            await request.find_files(FileInputs(caller, run.config.max_request_file_bytes))
    except BadRequest as bad:
        raise invalid(bad) from None
    parsed, named = request.parsed, request.files
    size = estimate_request(parsed.fields, parsed.fields["messages"], parsed.content)
    if named is not None:
        size = size.plus(*named.size)
    wanted = GatewayRequest(
        endpoint=_ENDPOINT,
        model=parsed.model,
        check_channel=partial(check_text_channel, run, request),
        stream=parsed.stream,
        prompt_tokens=size.tokens,
        most_prompt=partial(parsed.at_most, size.most),
        output_limit=parsed.output_limit,
        choices=parsed.choices,
        session=partial(ids_in_body, parsed.fields),
        conversation=conversation_key(parsed.fields),
        error_event=error_event,
        most_input=parsed.most_input if named is None else None,
        put_in=request.put_files_in if named is not None else None,
        least_input=parsed.least_input,
        named=models_in_tools(parsed.fields.get("tools")),
        units=Usage(searches=most_searches(parsed.fields)),
        input_parts=request.media,
        dearer_input=lambda: None if named is not None or parsed.at_most(0) is None else request.media(),
        thinking=parsed.thinking(),
        hour_writes=b'"1h"' in parsed.body,  # as the marks of caches say it
        overridden=partial(overridden_text, run, request),
    )
    return await serve(exchange, caller, run, wanted, partial(try_text, request))


class ChatTextRequest:
    """A chat completions request, for the common text endpoint."""

    api = _ENDPOINT
    stream_type = EVENT_STREAM
    demands_limit = False
    client_names = MEMBERS
    parameters_renamed = True  # an upstream's rules name `max_output_tokens` and the like if it speaks responses
    unserved_message = "The upstream of this model serves no chat. Use another endpoint or another model."

    def __init__(self, parsed: ChatRequest, created: int) -> None:
        """`created`: seconds since 1970, for answers without a creation time."""
        self.parsed, self.created = parsed, created
        self.fields, self.stream, self.output_limit = parsed.fields, parsed.stream, parsed.output_limit
        self.choices = parsed.choices
        self.left_out: list[str] = []
        self.unsealed = False
        self.files: FileInputs | None = None  # stored files that it names, until they are put in; None: no such
        self._client: ChatClient | None = None

    async def find_files(self, found: FileInputs) -> None:
        """Look up the stored files that the messages name, and make data URLs of raw Base64. Raises BadRequest."""
        self._set_fields(await found.find_in_fields(self.fields, "messages"))
        self.files = found if found.waiting else None

    def media(self) -> Usage:
        """The estimated tokens of sound and pictures in its messages."""
        return estimate_media(self.fields["messages"])

    async def put_files_in(self, exchange: Exchange) -> None:
        """Inline the files that were found. Raises RelayError."""
        if self.files is not None:
            try:
                self._set_fields(await self.files.put_in_fields(self.fields, "messages", exchange.hold))
            except BadRequest as bad:
                raise invalid(bad) from None
            self.files = None

    def _set_fields(self, fields: Fields) -> None:
        if fields is not self.fields:
            self.parsed = replace(self.parsed, body=encode(fields), fields=fields)
            self.fields, self._client = fields, None

    @property
    def client(self) -> ChatClient:
        if self._client is None:
            self._client = ChatClient(
                decode_object(self.parsed.body) or {},
                self.parsed.include_usage,
                f"chatcmpl-{time_ordered_hex()}",
                self.created,
            )
        return self._client

    async def prepare(self, attempt: Attempt, native: bool) -> None:
        """Every channel is sent the same."""

    def amend(self, attempt: Attempt, failure: Failure) -> bool:
        return unseal(self, attempt, failure)

    async def open(self, attempt: Attempt) -> _OpenedChat:
        channel, record, parsed = attempt.channel, attempt.record, self.parsed
        fields, record.dropped = parameters.apply(channel.policy(_ENDPOINT), parsed.fields, channel.strips_nulls)
        fields, limited = sent_fields(attempt, _ENDPOINT, fields, record.dropped)
        clamp, name = None if limited else record.charge.clamp, attempt.candidate.route.upstream_name
        body = parsed.upstream_body(name, channel.stream_usage, clamp, channel.output_field, fields)
        choices = parsed.choices if fields is parsed.fields else read_choices(fields)
        return _OpenedChat(self, attempt, await attempt.open(_ENDPOINT, body), choices)

    def events_of(self, answer: Json) -> bytes:
        return chunks_of(answer, self.parsed.include_usage)

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        return ()


class _OpenedChat:
    """An answer in chat completions, for a client of the same API: its bytes pass through."""

    def __init__(self, request: ChatTextRequest, attempt: Attempt, upstream: UpstreamAnswer, choices: int) -> None:
        """`choices`: how many answers the upstream was asked for."""
        self.upstream, self.received = upstream, b""
        self._request, self._attempt, self._choices = request, attempt, choices

    def codec(self) -> ChatStream:
        channel, parsed = self._attempt.channel, self._request.parsed
        drop_usage = channel.stream_usage and not parsed.include_usage
        return ChatStream(drop_usage=drop_usage, watch_finish=not channel.sends_done, choices=self._choices)

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        text = await self.upstream.read_all()
        self.upstream.close()
        text, error = whole_completion(text)
        if error is not None:
            raise self._attempt.error_in_body(error)
        answer = parse_chat_answer(text)
        if answer is None:
            raise self._attempt.unreadable_answer(text, "a chat completion")
        if answer.error is not None:
            raise self._attempt.error_in_body(answer.error)
        if answer.has_failures:
            text = clean_choices(text, self._attempt.told)
        return complete_answer(text, self._request.created), answer.usage

    def rows(self) -> Sequence[RowWrite]:
        return ()

    def so_far(self) -> None:
        """Chat completions are not stored."""

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        return ()
