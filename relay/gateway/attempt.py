"""One attempt at one channel: sends the request, waits for the response's headers, and classifies failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import httpx
from django.http.response import HttpResponseBase

from portal.lib.money import plain
from relay.billing.ledger.rows import RowWrite
from relay.errors import RelayError, Stopping, UnsupportedEndpoint, UpstreamFailed, UpstreamTruncated
from relay.gateway.charging.charge import spent_error
from relay.gateway.exchange.interrupts import Ended, Interrupt, ended_error, timeout_error
from relay.gateway.exchange.told import told_of_client
from relay.gateway.outcome import COMPLETED, Outcome
from relay.gateway.record import MAX_NAMES, Record
from relay.gateway.routing.circuit_breaker import is_proof, leave
from relay.gateway.routing.health import Requester
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.upstream import (
    GARBAGE,
    UpstreamAnswer,
    connection_failure,
    keep_words,
    kept_error,
    known_of,
    pass_on_hints,
    with_model,
)
from relay.protocols.usage import Delivered, Usage
from relay.providers.classify import Failure, blame_request, classify, stream_error
from relay.providers.credentials.contract import SIGNER
from relay.providers.failures import FailureClass
from relay.providers.subject import REDIRECTS, about_chosen_model, other_models, says_missing
from relay.providers.vendors import VENDORS
from relay.transport.body import REACHED, RESENT, Pieces, Reach, post
from relay.transport.resolver import ConnectRefused

_VIA: Final = hops.HEADER.encode()
_ERROR_LIMIT: Final = 64 * 1024  # bytes of an error response that are read
# Failures of one model of a key.
_ABOUT_MODELS: Final = frozenset(
    (FailureClass.KEY_FORBIDDEN_MODEL, FailureClass.RATE, FailureClass.QUOTA_WINDOW, FailureClass.OVERLOAD)
)


class Attempt:
    """One attempt at one channel with one of its keys, from the choice until its answer has ended or failed.

    Until `over` is called, it counts as in flight on the channel, and may be the probe of an open circuit.
    """

    __slots__ = (
        "_answered_in",
        "_api",
        "_began_at",
        "_model",
        "_over",
        "_probed",
        "_reached",
        "_sent",
        "_user",
        "began",
        "candidate",
        "channel",
        "exchange",
        "record",
        "run",
        "upstream",
    )

    def __init__(self, run: Runtime, record: Record, candidate: Candidate, model: int, now: float) -> None:
        """`model`: its id. `now`: seconds since 1970."""
        self.run, self.record, self.candidate = run, record, candidate
        self.exchange, self.channel = record.exchange, candidate.route.channel
        self.upstream: UpstreamAnswer | None = None
        self.began = time.monotonic()
        self._answered_in: float | None = None  # seconds until the answer began, None: it has not
        self._model, self._began_at, self._over = model, now, False
        self._reached = 0.0  # when its request had a connection, 0: it has not
        self._sent: bytes | Pieces = b""  # the request's body, until the answer begins
        self._api = ""  # that was asked
        caller = self.exchange.caller
        self._user = caller.user_id if caller is not None else 0
        channel, key = candidate.pair
        live = run.health.live
        live.begin(channel)
        self._probed = live.enter((channel, key, model), self._user, now)
        record.begin_attempt(candidate)
        self.exchange.total_at = self.exchange.started + self.channel.timeouts.total
        self.exchange.at_end.append(self.over)

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def answered(self) -> None:
        """The answer has begun."""
        self._sent = b""
        self._answered_in = seconds = time.monotonic() - self.began
        self.run.health.answered(self.candidate, self._model, self._began_at, seconds, self._user)
        self._release()
        self.record.mark_first_token()
        self.record.end_attempt(self.candidate, self.began)

    def begin_again(self) -> None:
        """The channel is asked once more, after an answer that did not do."""
        self.began, self._answered_in, self._began_at = time.monotonic(), None, time.time()

    def failed(self, failure: Failure) -> None:
        """The attempt failed before its answer began; another channel may be tried."""
        self.run.health.failed(self.candidate, self._model, failure, self._began_at, self._requester)
        self.exchange.linger, self.exchange.asked = 0.0, False
        self.exchange.made = self.exchange.made or _was_made(failure)
        self.over()
        self.record.end_attempt(self.candidate, self.began, failure)

    def broke_off(self, detail: str, error: bytes | None = None) -> None:
        """The answer broke off after it had begun, perhaps with an error object.

        What proves something about the key or a limit counts as it does before an answer.
        """
        broken = Failure(FailureClass.STREAM_BROKEN, UpstreamTruncated("The answer broke off."), 200, detail)
        failure = (self._proof_in(error) if error is not None else None) or broken
        self.run.health.failed(self.candidate, self._model, failure, time.time(), self._requester)

    def told_failure(self, error: bytes) -> None:
        """The answer ended as it should, with an error object of the upstream: it may prove something about the key."""
        failure = self._proof_in(error)
        if failure is not None:
            self.run.health.failed(self.candidate, self._model, failure, time.time(), self._requester)

    def _proof_in(self, error: bytes) -> Failure | None:
        """The failure behind an error in the middle of an answer, None: it may be about the model of a tool, or proves
        nothing.
        """
        failure = classify(200, {}, error, self.channel.provider, inside_200=True)
        named = other_models(failure.said, self.candidate.route.upstream_name) if failure.said is not None else ()
        return failure if is_proof(failure) and not named else None

    def over(self) -> None:
        """The attempt has ended, in any way. Also called at the end of every exchange; later calls do nothing."""
        if not self._over:
            self._over, self._sent = True, b""
            self.record.unseen = None  # it refers to this attempt: breaks the cycle
            self.run.health.live.end(*self.candidate.pair)
            self._release()

    @property
    def _requester(self) -> Requester:
        return Requester(self._user, self.exchange.request_id)

    def _release(self) -> None:
        if self._probed:
            leave(self._probed)
            self._probed = ()

    # -- what is not shown ------------------------------------------------------------------------------------------

    def unseen_tokens(self) -> float:
        """The tokens that the model has probably spent on what did not arrive, for answers without a report."""
        channel, model = self.channel.id, self.record.upstream_model
        answered = self._answered_in
        seconds = time.monotonic() - (self._reached or self.began) if answered is None else answered
        if self.record.streamed:
            reasons = "reasoning" in self.record.charge.model.abilities
            return self.run.unseen.of_stream(channel, model, seconds, reasons)
        return self.run.unseen.of_plain(channel, model, seconds) if answered is None else 0.0

    def learn_unseen(self, usage: Usage | None, shown: Callable[[], float]) -> None:
        """Learn from a complete stream. `shown`: the estimated tokens of what it showed."""
        if usage is not None and self._answered_in is not None:
            hidden = min(usage.reasoning, usage.output - shown()) if usage.reasoning else 0.0
            self.run.unseen.learn_stream(self.channel.id, self.record.upstream_model, hidden, self._answered_in)

    # -- the upstream ------------------------------------------------------------------------------------------------

    async def open(
        self,
        api: str,
        body: bytes | Pieces,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> UpstreamAnswer:
        """Send the request to one of the channel's APIs and wait for the response's headers.

        `content_type`: of a body that is no JSON. `headers`: of the client, that are sent on, in lower case. `query`:
        for the address. Raises Failure for any status but 2xx, Ended, CancelledError.
        """
        exchange, channel = self.exchange, self.channel
        exchange.check_end()
        sent: Mapping[str, str] = self.candidate.key.headers
        if headers:
            sent = {**sent, **headers}
        if (via := exchange.headers.get(_VIA)) is not None and hops.HEADER in sent:
            sent = {**sent, hops.HEADER: hops.passed_on(via)}
        if own := told_of_client(VENDORS[channel.provider], exchange, self._user, self.record.request.conversation):
            sent = {**sent, **own}
        if channel.overrides is not None and channel.overrides.change_headers:
            sent = channel.overrides.headers(sent, api, self.record.model, self.candidate.route.upstream_name)
        if content_type:
            sent = {**sent, "content-type": content_type}
        resend = channel.retry_unanswered != "never"
        url = (channel.stream_urls.get(api) if self.record.streamed else None) or channel.urls[api]
        url = with_model(url, self.candidate.route.upstream_name)
        request = post(
            url.copy_with(query=query.encode()) if query else url, sent, body, channel.timeouts.connect, resend
        )
        request.extensions[SIGNER] = self.candidate.key.signer
        self._sent, self._api, reach = body, api, Reach(self._reach)
        self.record.unseen = self.unseen_tokens
        began = time.monotonic()
        request.extensions[REACHED], exchange.reached = reach, True
        exchange.begin_wait(Interrupt.FIRST_BYTE, channel.timeouts.first_byte)
        try:
            response = await self.run.transport(channel.provider, channel.proxy).handle_async_request(request)
            self._reach()
        except asyncio.CancelledError as cancelled:
            self.record.sent = self.record.sent and self._reached > 0
            raise exchange.explain(cancelled) from None
        except (ConnectRefused, httpx.TransportError, httpx.InvalidURL, ValueError) as reason:
            raise connection_failure(reason) from None
        finally:
            exchange.waiting = None
            exchange.upstream_seconds += time.monotonic() - began
            self.record.resent = self.record.resent or RESENT in request.extensions
            reach.forget()
        stream = response.stream  # a BodyStream: both transports return one
        upstream = UpstreamAnswer(exchange, response, stream, channel.timeouts.idle)  # type: ignore[arg-type]
        if not 200 <= response.status_code < 300 or upstream.undecodable:
            raise await self._refusal(upstream, response, api)
        self.upstream = upstream
        return upstream

    def _reach(self) -> None:
        """The upstream gets the request: it may bill it from now on, whoever leaves."""
        self._reached = self._reached or time.monotonic()
        self.exchange.asked = True
        if self.channel.disconnect_policy != "free":
            self.exchange.linger = self.run.config.disconnect_read_seconds

    async def _refusal(self, upstream: UpstreamAnswer, response: httpx.Response, api: str) -> Failure:
        """The failure behind a response whose status is not 2xx, or whose body has an unsupported encoding."""
        try:
            text = b"" if upstream.undecodable else await _error_body(upstream)
        finally:
            upstream.close()
        if 200 <= response.status_code < 300:
            encoding = upstream.undecodable[:60]
            detail = f"HTTP {response.status_code} with content-encoding “{encoding}”, which was not asked for"
            return Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), response.status_code, detail)
        failure = self._blame(
            classify(response.status_code, response.headers, text, self.channel.provider, snapshot_cache.snapshot.rules)
        )
        if api != "chat.completions" and not failure.ordered and says_missing(response.status_code, text):
            path, error = api.replace(".", "/"), failure.error
            if response.status_code not in {401, *REDIRECTS}:  # it may be there
                error = UnsupportedEndpoint(
                    f"The upstream of this model does not serve /v1/{path}. Use another endpoint or another model.",
                    param="model",
                )
            return Failure(FailureClass.NO_API, error, response.status_code, failure.detail, api=api)
        pass_on_hints(failure, response.headers)
        self._keep_words(failure, response.status_code, text)
        return failure

    def _keep_words(self, failure: Failure, status: int, text: bytes) -> None:
        """Let a client that speaks the upstream's API read the upstream's own status and body."""
        shape = self.exchange.error_shape
        if self._api.partition(".")[0] == shape.api and shape.is_own(text):
            keep_words(failure, status, text, *known_of(self.channel, self.candidate.key.headers, self._api))

    def kept(self, error: bytes) -> bytes:
        """An error inside an answer, as a client reads it that speaks the upstream's API."""
        return kept_error(error, *known_of(self.channel, self.candidate.key.headers, self._api))

    def close(self) -> None:
        if self.upstream is not None:
            self.upstream.close()

    def error_in_body(self, text: bytes) -> Failure:
        """The failure behind an error object that came with the status 200."""
        rules = snapshot_cache.snapshot.rules
        failure = self._blame(classify(200, {}, text, self.channel.provider, rules, inside_200=True))
        self._keep_words(failure, failure.status, text)
        return failure

    def stream_error(self, error: bytes) -> tuple[UpstreamFailed, str]:
        """An error object inside an answer that has begun: what the client is sent, and a line for the record."""
        return stream_error(error, self.channel.provider)

    def told(self, error: bytes) -> dict[str, object]:
        """What a client is told of an error in a part of an answer: the four members of OpenAI's error object."""
        return told_error(self.candidate, error)

    def _blame(self, failure: Failure) -> Failure:
        """The failure, as one of the request when it is about a model that a part of the request names."""
        said = failure.said
        if said is None or failure.ordered or failure.kind not in _ABOUT_MODELS:
            return failure
        asked = self.candidate.route.upstream_name
        if not other_models(said, asked):
            return failure
        sent = self._sent if isinstance(self._sent, bytes) else b"".join(self._sent)
        return blame_request(failure) if about_chosen_model(said, asked, sent) else failure

    def unreadable_answer(self, text: bytes, wanted: str) -> Failure:
        """The failure for a body that is not the `wanted` answer."""
        content_type = self.upstream.content_type if self.upstream is not None else ""
        detail = f"the answer ({content_type or 'no content type'}, {len(text)} bytes) is not {wanted}"
        return Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)

    # -- the client --------------------------------------------------------------------------------------------------

    async def finish(
        self, answer: bytes, usage: Usage | None, delivered: Delivered | None = None, rows: Sequence[RowWrite] = ()
    ) -> None:
        """Write the record of a complete answer, and wait until it is on disk. Raises RelayUnavailable.

        `delivered`: None for an answer that is neither text nor audio.
        """
        if usage is not None and usage.output and self._answered_in is not None:
            self.run.unseen.learn_plain(self.channel.id, self.record.upstream_model, usage.output, self._answered_in)
        rows = (*rows, *self.exchange.stored_rows(200, answer))
        await self.record.commit(Outcome(COMPLETED, 200, usage, delivered=delivered), rows)
        self.add_headers(cost=True)

    def add_headers(self, cost: bool = False) -> None:
        """Add the relay's own headers: dropped parameters for all, the rest if the setting allows, or for staff."""
        exchange, record = self.exchange, self.record
        if record.dropped:
            exchange.reply_headers.append((b"x-airelays-ignored-parameters", names_header(record.dropped)))
        if self.run.shows_relay_headers(exchange):
            own = (time.monotonic() - exchange.started - exchange.upstream_seconds) * 1000
            exchange.reply_headers += (
                (b"x-relay-channel", b"%d" % self.channel.id),
                (b"x-relay-attempts", b"%d" % len(record.attempts)),
                (b"x-relay-overhead-ms", b"%.1f" % own),
            )
            if cost:
                exchange.reply_headers.append((b"x-relay-cost-usd", plain(record.charge.cost).encode()))


def told_error(candidate: Candidate, error: bytes) -> dict[str, object]:
    """The same of an error that an upstream tells on a connection that is no attempt, such as one to a running call."""
    shown, _ = stream_error(error, candidate.route.channel.provider)
    return {"message": shown.message, "type": shown.public_type, "param": shown.param, "code": shown.public_code}


TryChannel = Callable[[Attempt], Awaitable[HttpResponseBase]]


def names_header(names: list[str]) -> bytes:
    """The names of parameters as a header: percent-encoded, truncated when there are too many."""
    text = ",".join(quote(name, safe="[].") for name in dict.fromkeys(names))
    return (text if len(text) <= MAX_NAMES else text[:MAX_NAMES].rpartition(",")[0] + ",...").encode()


def _was_made(failure: Failure) -> bool:
    """Whether the upstream has probably made an answer: it did not refuse the request, and could be reached."""
    refused = failure.status not in {0, 200} or failure.kind is FailureClass.CONFIG
    return not (refused or failure.unreachable)


async def _error_body(upstream: UpstreamAnswer) -> bytes:
    text = b""
    try:
        while len(text) < _ERROR_LIMIT and (piece := await upstream.read()):
            text += piece
    except Failure:  # the status is known; a partial body is enough
        pass
    return text[:_ERROR_LIMIT].removeprefix(b"\xef\xbb\xbf")  # a byte order mark


def interrupt_failure(ended: Ended) -> Failure:
    """The failure of an attempt that was interrupted by a timeout, or because its request must end."""
    reason = ended.reason
    if reason in {Interrupt.FIRST_BYTE, Interrupt.IDLE}:
        return Failure(FailureClass.TIMEOUT, timeout_error(reason), 0, reason.value)
    return Failure(FailureClass.ENDED, interrupt_error(reason), 0, reason.value)


def interrupt_error(reason: Interrupt) -> RelayError:
    """The client's error for a request that was interrupted."""
    ended = ended_error(reason)
    if ended is not None:
        return ended
    if reason is Interrupt.STOPPING:
        return Stopping(
            "The portal is being restarted, and this request could not end before. Send it again.", retry_after=1
        )
    return spent_error() if reason is Interrupt.SPENT else timeout_error(reason)
