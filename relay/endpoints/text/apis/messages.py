"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode
from relay.billing.estimate import estimate_media, estimate_request
from relay.billing.ledger.rows import RowWrite
from relay.endpoints.errors import invalid
from relay.endpoints.files.file_ids import check_fields
from relay.endpoints.overrides import rules_of, sent_fields
from relay.endpoints.text.endpoint import check_text_channel, overridden_text, try_text, unseal
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.access.authorization import permitted_model
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import COMPLETED, Outcome
from relay.gateway.pipeline import check_end, check_large, count_request, serve
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols.anthropic_messages.answer import events_of, parse_messages_answer, whole_message
from relay.protocols.anthropic_messages.client import MEMBERS, MessagesClient
from relay.protocols.anthropic_messages.errors import error_event
from relay.protocols.anthropic_messages.request import MessagesRequest, parse_messages_request
from relay.protocols.anthropic_messages.stream import MessagesStream
from relay.protocols.chat_completions.request import conversation_key
from relay.protocols.codec import EVENT_STREAM, BrokenOff
from relay.protocols.error_objects import is_error_object
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.naming.sessions import ids_in_body
from relay.protocols.prompts.content import models_in_tools
from relay.protocols.prompts.searches import most_searches
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass
from relay.providers.overrides.apply import to_fields
from relay.providers.vendors import VENDORS

_ENDPOINT: Final = "messages"
_COUNT: Final = "messages.count_tokens"
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_OURS: Final = "anthropic-"  # how the names of headers begin that belong to the API: an open list
_BETAS: Final = "anthropic-beta"
API_VERSION: Final = "2023-06-01"  # of the API, for clients that name none
# Of the account at the upstream.
_OF_THE_ACCOUNT: Final = frozenset(("anthropic-organization-id", "anthropic-workspace-id", "anthropic-user-profile-id"))
_RATHER_HIGH: Final = 1.2  # times an estimate, since clients make room by it
_ESTIMATED: Final = (b"x-airelays-estimated", b"input_tokens")
# Members of a request that are counted, or decide what is (Anthropic's API reference, November 2026).
_COUNTED: Final = frozenset((
    "messages", "system", "tools", "tool_choice", "thinking", "output_config", "output_format", "context_management",
    "mcp_servers", "cache_control", "speed",
))  # fmt: skip
# Refusals to count that say nothing of whether the request would be served.
_NOT_COUNTED: Final = frozenset((
    FailureClass.CLIENT, FailureClass.KEY_FORBIDDEN_MODEL, FailureClass.CONFIG, FailureClass.NO_API,
))  # fmt: skip


async def create_message(exchange: Exchange, caller: Caller, run: Runtime, beta: bool) -> HttpResponseBase:
    """Serve one request. `beta`: the address says so. Raises RelayError if no part of an answer has been sent; the
    record is on disk by then.
    """
    request = await _read(exchange, caller, run, _ENDPOINT, beta)
    parsed = request.parsed
    size = estimate_request(parsed.fields, parsed.fields["messages"], parsed.content)
    exchange.sign_of_life = _PING
    wanted = GatewayRequest(
        endpoint=_ENDPOINT,
        model=parsed.model,
        check_channel=partial(check_text_channel, run, request),
        stream=parsed.stream,
        prompt_tokens=size.tokens,
        most_prompt=partial(parsed.at_most, size.most),
        output_limit=parsed.output_limit,
        session=partial(ids_in_body, parsed.fields),
        conversation=conversation_key(parsed.fields),
        error_event=error_event,
        most_input=parsed.most_input,
        least_input=parsed.least_input,
        named=models_in_tools(parsed.fields.get("tools")),
        units=Usage(searches=most_searches(parsed.fields)),
        input_parts=request.media,
        dearer_input=lambda: None if parsed.at_most(0) is None else request.media(),
        thinking=parsed.thinking(),
        hour_writes=b'"1h"' in parsed.body,  # as the marks of caches say it
        overridden=partial(overridden_text, run, request),
    )
    return await serve(exchange, caller, run, wanted, partial(try_text, request))


async def count_tokens(exchange: Exchange, caller: Caller, run: Runtime, beta: bool) -> HttpResponseBase:
    """Count the tokens of a request, free of charge: by an upstream that speaks the API, or by an estimate.

    Raises RelayError.
    """
    request = await _read(exchange, caller, run, _COUNT, beta)
    parsed = request.parsed
    model = permitted_model(caller, snapshot_cache.snapshot, parsed.model, exchange.wall)
    counting = {route.channel.id for route in caller.routes(model) if run.health.serves_api(route.channel, _COUNT)}
    if not counting:
        await count_request(exchange, caller, run)
        return _estimate(exchange, parsed)

    def check_channel(channel: ChannelView) -> RelayError | None:
        if channel.id in counting:
            return None
        return UnsupportedEndpoint("The upstream of this model does not count tokens.", param="model")

    async def try_channel(attempt: Attempt) -> HttpResponseBase:
        if run.health.serves_api(attempt.channel, _COUNT):
            return await _ask_count(request, attempt)
        # The channel has denied this API since `counting` was computed.
        await exchange.committed(attempt.record.submit(Outcome(COMPLETED, 200)))
        return _estimate(exchange, parsed)

    wanted = GatewayRequest(
        _COUNT,
        parsed.model,
        check_channel,
        session=partial(ids_in_body, parsed.fields),
        conversation=conversation_key(parsed.fields),
    )
    return await serve(exchange, caller, run, wanted, try_channel)


async def _read(exchange: Exchange, caller: Caller, run: Runtime, endpoint: str, beta: bool) -> MessagesTextRequest:
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, endpoint, body)
    try:
        parsed = parse_messages_request(body, counting=endpoint == _COUNT)
        check_fields(parsed.fields, ("messages",))
    except BadRequest as bad:
        raise invalid(bad) from None
    return MessagesTextRequest(parsed, exchange, beta)


def _estimate(exchange: Exchange, parsed: MessagesRequest) -> Answer:
    """An estimate in place of an upstream's count. A header says that it is one."""
    size = estimate_request(parsed.fields, parsed.fields["messages"], parsed.content)
    exchange.reply_headers.append(_ESTIMATED)
    return Answer(encode({"input_tokens": math.ceil(size.tokens * _RATHER_HIGH)}))


async def _ask_count(request: MessagesTextRequest, attempt: Attempt) -> HttpResponseBase:
    """Send the request to the upstream's own endpoint."""
    await request.prepare(attempt, True)
    envelope = VENDORS[attempt.channel.provider].envelope
    try:
        upstream = await request.send(_COUNT, attempt)
        text = await upstream.read_all()
    except Failure as failure:
        if envelope is None or not envelope.wraps_counts or failure.kind not in _NOT_COUNTED:
            raise
        # Accounts that may use the model need not be allowed to count, and not every model can be counted for.
        await attempt.exchange.committed(attempt.record.submit(Outcome(COMPLETED, 200)))
        return _estimate(attempt.exchange, request.parsed)
    finally:
        attempt.close()
    text = envelope.counted(text) if envelope is not None else text
    found = decode_object(text)
    answered = found is not None and "input_tokens" in found
    if found is not None and is_error_object(found, answered):
        raise attempt.error_in_body(text)
    if not answered:
        raise attempt.unreadable_answer(text, f"an answer of {_COUNT}")
    attempt.answered()
    await attempt.finish(text, None)
    return Answer(text)


def _counted_fields(attempt: Attempt, fields: Fields, dropped: list[str]) -> Fields:
    """The members of a request that is counted, with what the channel would change in it if it were to be answered.

    What a request for an answer has beside its prompt is refused there: rules add none of it.
    """
    rules = rules_of(attempt, _ENDPOINT)
    if not rules:
        return fields
    sent, ignored = to_fields(rules, fields)
    dropped += (name for name in ignored if name not in dropped)
    return {name: raw for name, raw in sent.items() if name in fields or name in _COUNTED}


def api_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The headers of the API in a client's request, that are sent to upstreams which speak it."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers.items()
        if name.startswith(_OURS.encode()) and name.decode("latin-1") not in _OF_THE_ACCOUNT
    }


class MessagesTextRequest:
    """A request of the Messages API, for the common text endpoint."""

    api = _ENDPOINT
    stream_type = EVENT_STREAM
    demands_limit = True
    choices = 1
    client_names = MEMBERS
    parameters_renamed = True  # an upstream's rules name the parameters of its own API
    unserved_message = "The upstream of this model serves no chat. Use another endpoint or another model."

    def __init__(self, parsed: MessagesRequest, exchange: Exchange, beta: bool) -> None:
        self.parsed, self.fields, self.stream = parsed, parsed.fields, parsed.stream
        self.output_limit = parsed.output_limit
        self.left_out: list[str] = []
        self.unsealed = False
        self._headers = api_headers(exchange.headers)
        self._query = "beta=true" if beta else ""
        self._client: MessagesClient | None = None

    def media(self) -> Usage:
        """The estimated tokens of pictures in its messages."""
        return estimate_media(self.fields["messages"])

    @property
    def client(self) -> MessagesClient:
        if self._client is None:
            self._client = MessagesClient(decode_object(self.parsed.body) or {}, f"msg_{time_ordered_hex()}")
        return self._client

    async def prepare(self, attempt: Attempt, native: bool) -> None:
        """Forget the headers of an attempt before. Every channel is sent the same."""
        exchange = attempt.exchange
        exchange.reply_headers = [one for one in exchange.reply_headers if not one[0].startswith(_OURS.encode())]

    def amend(self, attempt: Attempt, failure: Failure) -> bool:
        return unseal(self, attempt, failure)

    async def send(self, api: str, attempt: Attempt) -> UpstreamAnswer:
        """Send the request to a channel that speaks the API, with the client's headers of the API.

        Raises Failure, Ended, CancelledError.
        """
        channel, record = attempt.channel, attempt.record
        fields, record.dropped = parameters.apply(channel.policy(_ENDPOINT), self.fields, channel.strips_nulls)
        clamp, name = record.charge.clamp, attempt.candidate.route.upstream_name
        if api == _COUNT:
            clamp, fields = None, _counted_fields(attempt, fields, record.dropped)
        else:
            fields, _ = sent_fields(attempt, api, fields, record.dropped)
        vendor, headers = VENDORS[channel.provider], self._headers
        if vendor.envelope is None:
            headers = {"anthropic-version": API_VERSION, **headers}
        body, query = self.parsed.upstream_body(name, clamp, fields, vendor.signs_thinking), self._query
        if vendor.envelope is not None:
            query = ""
            if api == _COUNT:
                body = vendor.envelope.put_count(body, self._headers.get(_BETAS, ""))
            else:
                body, unknown = vendor.envelope.put_bytes(body, self._headers.get(_BETAS, ""))
                record.dropped += [f"{_BETAS}[{name}]" for name in unknown]
        upstream = await attempt.open(api, body, headers=headers, query=query)
        attempt.exchange.reply_headers += [
            (header.encode("latin-1"), value.encode("latin-1"))
            for header, value in upstream.headers_beginning(_OURS)
            if header not in _OF_THE_ACCOUNT
        ]
        return upstream

    async def open(self, attempt: Attempt) -> _OpenedMessage:
        return _OpenedMessage(attempt, await self.send(_ENDPOINT, attempt))

    def events_of(self, answer: Json) -> bytes:
        return events_of(answer)

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        return ()


class _OpenedMessage:
    """A message of an upstream, for a client of the same API: its bytes pass through."""

    def __init__(self, attempt: Attempt, upstream: UpstreamAnswer) -> None:
        self.upstream, self.received = upstream, b""
        self._attempt = attempt

    def codec(self) -> MessagesStream:
        return MessagesStream(watch_finish=not self._attempt.channel.sends_done, keep=self._attempt.kept)

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        text = await self.upstream.read_all()
        self.upstream.close()
        text, error = whole_message(text)
        if error is not None:
            raise self._attempt.error_in_body(error)
        answer = parse_messages_answer(text)
        if answer is None:
            raise self._attempt.unreadable_answer(text, "a message")
        if answer.error is not None:
            raise self._attempt.error_in_body(answer.error)
        return text, answer.usage

    def rows(self) -> Sequence[RowWrite]:
        return ()

    def so_far(self) -> None:
        """Messages are not stored."""

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        return ()
