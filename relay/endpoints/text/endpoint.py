"""The common endpoint of all text APIs: checks which channels can serve a request, and makes one attempt at a channel.

Where a channel speaks the client's own API, the request's `open` is used, and bytes pass through. Otherwise request and
answer are converted through the hub (`relay.protocols.contract`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, TypeVar

from django.http.response import HttpResponseBase

from portal.lib.json import Json, decode_object, encode, objects_of
from relay.billing.ledger.rows import RowWrite
from relay.endpoints.errors import invalid, refused_parameter
from relay.endpoints.overrides import native_terms, route_rules, sent_body, text_terms
from relay.errors import RelayError, UnsupportedEndpoint, UnsupportedParameter
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.request import Overridden
from relay.gateway.replies import Answer, EventStream
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.views import ChannelView, Route
from relay.gateway.stream import stream_answer
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols import contract
from relay.protocols.anthropic_messages.upstream import MessagesUpstream
from relay.protocols.chat_completions.hub import STOP, THINKING, THOUGHTS, without_thoughts
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.codec import BrokenOff, Codec, Conversion, NameRestoring, Stopping, stop_completion
from relay.protocols.cohere_chat.upstream import CohereUpstream
from relay.protocols.contract import Dialect
from relay.protocols.converse.upstream import ConverseUpstream
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.gemini.upstream import GeminiUpstream
from relay.protocols.naming.client_names import own_name
from relay.protocols.naming.tool_names import restore_in_completion
from relay.protocols.ollama_chat.upstream import OllamaUpstream
from relay.protocols.prompts.stops import StopSearch
from relay.protocols.responses.unfinished.response import broken_response
from relay.protocols.responses.upstream import ResponsesUpstream
from relay.protocols.usage import Delivered, Usage
from relay.providers import parameters
from relay.providers.apis import PATHS
from relay.providers.classify import Failure
from relay.providers.continuations import cannot_read_reasoning
from relay.providers.failures import FailureClass
from relay.providers.overrides.apply import to_body
from relay.providers.overrides.checks import may_change_thinking
from relay.providers.plans.windows import HEADERS, headers_to_pass
from relay.providers.vendors import VENDORS

T = TypeVar("T")
# The APIs to convert to when a channel does not speak the client's: the first that it serves is used.
UPSTREAMS: Final[tuple[contract.Upstream, ...]] = (
    ChatUpstream(),
    ResponsesUpstream(),
    MessagesUpstream(),
    GeminiUpstream(),
    OllamaUpstream(),
    CohereUpstream(),
    ConverseUpstream(),
)


class OpenedAnswer(Protocol):
    """An upstream's answer whose status is 200 and whose body has not been read."""

    upstream: UpstreamAnswer
    received: bytes  # the body of an answer that was converted, once it is read; otherwise empty

    def codec(self) -> Codec:
        """The codec for a stream."""

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        """The bytes for the client and the reported usage of an answer that is not a stream.

        Raises Failure, Ended, CancelledError.
        """

    def rows(self) -> Sequence[RowWrite]:
        """The rows that are written in the same commit as the record of a complete answer."""

    def so_far(self) -> Json | None:
        """A stream as far as it has been passed on, for one that breaks off; None where it is not stored."""

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        """The rows that are written in the same commit as the record of a stream that broke off."""


class TextRequest(Protocol):
    """A request of one text API: the parts that differ between the clients' APIs."""

    api: str  # its name among `relay.providers.apis.PATHS`
    unserved_message: str  # the error when a channel serves no text API
    left_out: list[str]  # parts of the request that the current channel is not sent, as the client is told
    stream_type: str  # the content type of its streams
    client_names: Mapping[str, str]  # what its API calls members of the hub form
    parameters_renamed: bool  # whether a converted request uses other parameter names than the vendors' rules
    choices: int  # how many answers it asks for
    unsealed: bool  # an upstream could not read thoughts that it brings: none are sent to upstreams of other APIs
    demands_limit: bool  # its API wants a limit of every request, so that clients name one of any model

    @property
    def fields(self) -> Fields: ...
    @property
    def stream(self) -> bool: ...
    @property
    def output_limit(self) -> int | None:
        """The tokens of each answer; None: no limit."""

    @property
    def client(self) -> contract.Client:
        """The request as a client of the hub, for upstreams of another API."""

    async def prepare(self, attempt: Attempt, native: bool) -> None:
        """Decide what the channel is sent. `native`: it speaks this API. Raises RelayError."""

    async def open(self, attempt: Attempt) -> OpenedAnswer:
        """Send the request to a channel that speaks this API. Raises Failure, Ended, CancelledError."""

    def amend(self, attempt: Attempt, failure: Failure) -> bool:
        """Whether to ask the same channel once more, with a request that has been changed."""

    def events_of(self, answer: Json) -> bytes:
        """The stream of a complete answer in this API, for upstreams that answer plain where a stream was asked for."""

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        """The rows that are written in the same commit as the record of a converted answer, also a broken one."""


def check_text_channel(run: Runtime, request: TextRequest, channel: ChannelView) -> RelayError | None:
    """Why a channel cannot serve a request; None if it can."""
    limit = channel.refused_limits.get(request.api, "")
    if limit and (error := refused_limit(request, limit)) is not None:
        return error
    own = channel.policy(request.api)
    if run.health.serves_api(channel, request.api):
        name = parameters.refused(own, request.fields) if own else ""
        return refused_parameter(name) if name else None
    upstream = _upstream_of(run, channel)
    if upstream is None:
        return UnsupportedEndpoint(request.unserved_message, param="model")
    rules = channel.policy(upstream.api)
    name = parameters.refused(
        {**rules, **own} if request.parameters_renamed else own, request.fields, converted=request.parameters_renamed
    )
    if name:
        return refused_parameter(name)
    try:
        name = parameters.refused_value(
            rules, upstream.request(request.client.hub_request().body, dialect_of(channel)).body
        )
    except BadRequest as bad:
        return _unconverted(request, bad)
    return refused_parameter(own_name(name, request.client_names)) if name else None


def refused_limit(request: TextRequest, name: str) -> RelayError | None:
    """The error of a request that names a limit of its output which a user's plan does not take."""
    given = bytes(request.fields.get(name, b"")).strip()
    if given in {b"", b"null"}:
        return None
    route = PATHS[request.api]
    return UnsupportedParameter(
        f"The ChatGPT subscription does not currently support `{name}` on `/v1{route}`. Leave it out; an administrator "
        "can have it left out or sent on by the setting PLAN_OUTPUT_LIMITS.",
        param=name,
    )


async def try_text(request: TextRequest, attempt: Attempt) -> HttpResponseBase:
    """Make one attempt. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer cannot be recorded."""

    async def ask() -> HttpResponseBase:
        opened = await open_text(request, attempt)
        if attempt.channel.owner is not None:
            told = headers_to_pass(opened.upstream.headers_beginning(HEADERS))
            attempt.exchange.reply_headers += ((name.encode(), value.encode("latin-1")) for name, value in told)
        if request.stream and not await opened.upstream.is_json():
            return await stream_answer(attempt, opened.upstream, opened.codec(), opened)
        answer, usage = await opened.read_whole()
        decoded = decode_object(answer) if request.stream else None
        if request.stream and decoded is None:
            raise attempt.unreadable_answer(answer, "a stream")
        attempt.answered()
        await attempt.finish(answer, usage, Delivered.by(answer, opened.received), opened.rows())
        if decoded is None:
            return Answer(answer)
        return EventStream(partial(attempt.exchange.write_last, request.events_of(decoded)), request.stream_type)

    return await ask_amended(request, attempt, ask)


async def ask_amended(request: TextRequest, attempt: Attempt, ask: Callable[[], Awaitable[T]]) -> T:
    """Return what `ask` returns, which is called again after a failure for which the request can be amended.

    Closes the upstream's answer when it fails.
    """
    while True:
        try:
            return await ask()
        except Failure as failure:
            attempt.close()
            if not request.amend(attempt, failure):
                raise
        except BaseException:
            attempt.close()
            raise


def unseal(request: TextRequest, attempt: Attempt, failure: Failure) -> bool:
    """Whether to ask once more without the thoughts of a converted request, which another account may have sealed."""
    if request.unsealed or attempt.run.health.serves_api(attempt.channel, request.api):
        return False
    if cannot_read_reasoning(failure):
        messages = objects_of(request.client.hub_request().body, "messages")
        request.unsealed = any(THINKING in message for message in messages)
    return request.unsealed


async def open_text(request: TextRequest, attempt: Attempt) -> OpenedAnswer:
    """Send a request to a channel of any text API. The caller closes the attempt when it cannot go on.

    Raises Failure, Ended, CancelledError, RelayError.
    """
    attempt.record.sent = True
    native = attempt.run.health.serves_api(attempt.channel, request.api)
    await request.prepare(attempt, native)
    return await request.open(attempt) if native else await _open_converted(request, attempt)


def dialect_of(channel: ChannelView) -> Dialect:
    """The dialect that a channel's upstream speaks."""
    return Dialect(
        output_field=channel.output_field,
        least_output=channel.least_output,
        ask_usage=channel.stream_usage,
        sends_done=channel.sends_done,
        late_system=channel.late_system,
        envelope=VENDORS[channel.provider].envelope,
        cache_marks=channel.cache_marks,
        vendor=channel.provider,
    )


def overridden_text(run: Runtime, request: TextRequest, public: str, route: Route) -> Overridden | None:
    """What a route's channel makes of a request, by its overrides; None: nothing. `public`: the model's name."""
    channel = route.channel
    if run.health.serves_api(channel, request.api):
        rules = route_rules(route, request.api, public)
        return native_terms(channel, request.api, rules, request.fields) if rules else None
    protocol = _upstream_of(run, channel)
    rules = route_rules(route, protocol.api, public) if protocol is not None else ()
    if protocol is None or not rules:
        return None
    body: Json = {}
    if request.output_limit is not None:
        protocol.limit(body, request.output_limit, dialect_of(channel))
    to_body(rules, body)
    as_asked = not any(may_change_thinking(path) for rule in rules for path in (rule.path, rule.target) if path)
    return replace(text_terms(rules, body), choices=request.choices, as_asked=as_asked)


def _unconverted(request: TextRequest, bad: BadRequest) -> RelayError:
    """The client's error for a request that a conversion refuses: with the field as the client's API has it."""
    given = bad.param or ""
    name = own_name(given, request.client_names)
    if name == given:
        return invalid(bad)
    return invalid(BadRequest(bad.message.replace(f"“{given}”", f"“{name}”"), name, bad.code, bad.status))


def _upstream_of(run: Runtime, channel: ChannelView) -> contract.Upstream | None:
    return next((upstream for upstream in UPSTREAMS if run.health.serves_api(channel, upstream.api)), None)


async def _open_converted(request: TextRequest, attempt: Attempt) -> _Converted:
    channel, record, name = attempt.channel, attempt.record, attempt.candidate.route.upstream_name
    protocol = _upstream_of(attempt.run, channel)
    assert protocol is not None  # noqa: S101  # `check_text_channel` has found one
    dialect = replace(dialect_of(channel), longest=record.charge.model.max_output_tokens or 0)
    try:
        hub = request.client.hub_request()
        sealed = without_thoughts(hub.body) if request.unsealed else hub.body
        form = protocol.request({**sealed, "model": name}, dialect)
    except BadRequest as bad:  # in earlier turns, which had not been read when the channels were checked
        raise Failure(FailureClass.CLIENT, _unconverted(request, bad), detail=bad.message) from None
    body: Json = {**form.body, "model": name}
    if record.charge.clamp is not None:
        protocol.limit(body, record.charge.clamp, dialect)
    elif (protocol.refuses_longer or request.demands_limit) and 0 < dialect.longest < (request.output_limit or 0):
        protocol.limit(body, dialect.longest, dialect)
    record.dropped = [
        *request.left_out,
        *hub.dropped,
        *([own_name(THOUGHTS, request.client_names)] if request.unsealed else []),
        *(
            own_name(parameters.asked_as(name, request.fields), request.client_names)
            for name in (*form.dropped, *parameters.apply_to(channel.policy(protocol.api), body))
        ),
    ]
    ignored, limited = sent_body(attempt, protocol.api, body, request.choices)
    record.dropped += ignored
    if record.charge.clamp is not None and not limited and channel.overrides is not None:
        protocol.limit(body, record.charge.clamp, dialect)  # it may have been removed
    api, query = protocol.address(request.stream)
    upstream = await attempt.open(api, protocol.encode(body, request.stream, dialect), query=query)
    return _Converted(request, attempt, protocol, upstream, form)


class _Converted:
    """An answer in another API than the client's, converted through the hub."""

    def __init__(
        self,
        request: TextRequest,
        attempt: Attempt,
        protocol: contract.Upstream,
        upstream: UpstreamAnswer,
        form: contract.ConvertedRequest,
    ) -> None:
        self.upstream, self.received = upstream, b""
        self._request, self._attempt, self._protocol, self._form = request, attempt, protocol, form
        self._encoder: contract.Encoder | None = None
        self._answer: Json | None = None

    def codec(self) -> Conversion:
        self._encoder = encoder = self._request.client.encoder()
        decoder = self._protocol.decoder(dialect_of(self._attempt.channel))
        if self._form.names:
            decoder = NameRestoring(decoder, self._form.names)
        stops = StopSearch(self._form.stops) if self._form.stops else None
        return Conversion(
            decoder=Stopping(decoder, stops, STOP) if stops is not None else decoder,
            encoder=encoder,
            stops=stops,
            ending=encoder.ending,
            content_type=self._request.stream_type,
        )

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        self.received = text = await self.upstream.read_all()
        self.upstream.close()
        found = self._protocol.completion(text, dialect_of(self._attempt.channel))
        if found is None:
            raise self._attempt.unreadable_answer(text, self._protocol.answer_name)
        if found.completion is None:
            raise self._attempt.error_in_body(found.error or text)
        restore_in_completion(found.completion, self._form.names)
        if self._form.stops:
            stop_completion(found.completion, StopSearch(self._form.stops), STOP)
        self._answer = self._request.client.answer(found.completion)
        return encode(self._answer), found.usage

    def rows(self) -> Sequence[RowWrite]:
        answer = self._answer if self._encoder is None else self._encoder.final
        return self._request.converted_rows(self._attempt, answer) if answer is not None else ()

    def so_far(self) -> Json | None:
        return self._encoder.so_far() if self._encoder is not None else None

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        return self._request.converted_rows(self._attempt, broken_response(so_far, end))
