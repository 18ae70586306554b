"""One try at one channel: the request to the upstream, its answer's head, its failure in words, and what the try means to others."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import quote

import httpx
from django.http.response import HttpResponseBase

from portal.lib.money import plain
from relay.billing.ledger.rows import RowWrite
from relay.errors import RelayError, RequestEnded, Stopping, UnsupportedEndpoint, UpstreamFailed, UpstreamTimeout, UpstreamTruncated
from relay.gateway.charging.charge import spent
from relay.gateway.exchange import Ended, Interrupt, timeout_error
from relay.gateway.record import COMPLETED, Outcome, Record
from relay.gateway.routing.circuit_breaker import Circuit
from relay.gateway.routing.selection import Candidate
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.upstream import BROKEN, GARBAGE, Upstream
from relay.protocols.usage import Usage
from relay.providers.classify import Failure, classify
from relay.providers.failures import FailureClass
from relay.transport.body import Pieces, post
from relay.transport.resolver import ConnectRefused

_ERROR_LIMIT: Final = 64 * 1024  # bytes of an error answer that are looked at
_MOST_NAMES: Final = 2048  # characters of a header that lists parameters
_UNREACHABLE: Final = "The upstream could not be reached. Try again; if it keeps failing, try another model."


# A 404 that does not speak of a model means that the upstream does not have this API, which says nothing about its others.
_NO_SUCH_PATH: Final = frozenset((404, 405, 501))
_MAY_MEAN_PATH: Final = frozenset((FailureClass.CLIENT, FailureClass.CONFIG, FailureClass.KEY_FORBIDDEN_MODEL, FailureClass.TRANSIENT))
_MODEL: Final = re.compile(rb"model|deployment|response_id|resp_", re.I)


class Attempt:
    """One try at one channel with one of its keys, from the choice until its answer has ended or failed.

    To other requests it counts as running there, and may be the probe of an open circuit, until `over`.
    """

    __slots__ = ("_began_at", "_model", "_over", "_probed", "began", "candidate", "channel", "exchange", "record", "run", "upstream")

    def __init__(self, run: Runtime, record: Record, candidate: Candidate, model: int, now: float) -> None:
        """`model`: its id. `now`: seconds since 1970."""
        self.run, self.record, self.candidate = run, record, candidate
        self.exchange, self.channel = record.exchange, candidate.route.channel
        self.upstream: Upstream | None = None
        self.began = time.monotonic()
        self._model, self._began_at, self._over = model, now, False
        channel, key = candidate.pair
        live = run.health.live
        live.begin(channel)
        self._probed: Sequence[Circuit] = live.breaker.enter(channel, key, model, now) if live.breaker.circuits else ()
        record.begin_attempt(candidate)
        self.exchange.total_at = self.exchange.started + self.channel.timeouts.total
        self.exchange.at_end.append(self.over)

    # -- what becomes of it ------------------------------------------------------------------------------------------

    def answered(self) -> None:
        """The answer has begun."""
        self.run.health.answered(self.candidate, self._model, self._began_at, time.monotonic() - self.began)
        self._release()
        self.record.mark_first_token()
        self.record.end_attempt(self.candidate, self.began)

    def failed(self, failure: Failure) -> None:
        """No answer came of it; another channel may be tried."""
        self.run.health.failed(self.candidate, self._model, failure, self._began_at)
        self.over()
        self.record.end_attempt(self.candidate, self.began, failure)

    def broke(self, detail: str) -> None:
        """The answer began and broke off."""
        failure = Failure(FailureClass.STREAM_BROKEN, UpstreamTruncated("The answer broke off."), 200, detail)
        self.run.health.failed(self.candidate, self._model, failure, time.time())

    def over(self) -> None:
        """It ended, one way or another. Called at the end of every exchange, too."""
        if not self._over:
            self._over = True
            self.run.health.live.end(self.channel.id)
            self._release()

    def _release(self) -> None:
        if self._probed:
            self.run.health.live.breaker.leave(self._probed)
            self._probed = ()

    # -- the upstream ------------------------------------------------------------------------------------------------

    async def open(self, api: str, body: bytes | Pieces, content_type: str = "") -> Upstream:
        """Send the request to one of the channel's APIs and wait for the answer's head. `content_type`: of the body, when it is no JSON.

        Raises Failure for anything but a 200, Ended, CancelledError.
        """
        exchange, channel = self.exchange, self.channel
        exchange.check_end()
        headers = self.candidate.key.headers
        if content_type:
            headers = {**headers, "content-type": content_type}
        request = post(channel.urls[api], headers, body, channel.timeouts.connect)
        began = time.monotonic()
        exchange.begin_wait(Interrupt.FIRST_BYTE, channel.timeouts.first_byte)
        try:
            response = await self.run.transport(channel.provider, channel.proxy).handle_async_request(request)
        except asyncio.CancelledError as cancelled:
            raise exchange.explain(cancelled) from None
        except (ConnectRefused, httpx.TransportError, httpx.InvalidURL, ValueError) as reason:
            raise _unanswered(reason) from None
        finally:
            exchange.waiting = None
            exchange.upstream_seconds += time.monotonic() - began
        upstream = Upstream(exchange, response, response.stream, channel.timeouts.idle)  # type: ignore[arg-type]  # both transports give a BodyStream
        if response.status_code != 200 or upstream.encoded:
            raise await self._refusal(upstream, response, api)
        self.upstream = upstream
        return upstream

    async def _refusal(self, upstream: Upstream, response: httpx.Response, api: str) -> Failure:
        """What an answer means whose status is not 200, or whose body nobody asked for in this encoding."""
        try:
            text = b"" if response.status_code == 200 else await _error_body(upstream)
        finally:
            upstream.close()
        if 200 <= response.status_code < 300:
            encoding = response.headers.get("content-encoding", "")
            detail = f"HTTP {response.status_code} with content-encoding “{encoding}”, which was not asked for"
            return Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), response.status_code, detail)
        failure = classify(response.status_code, response.headers, text, self.channel.provider, snapshot_cache.snapshot.rules)
        if api != "chat.completions" and response.status_code in _NO_SUCH_PATH and failure.kind in _MAY_MEAN_PATH and not _MODEL.search(text):
            path = api.replace(".", "/")
            error = UnsupportedEndpoint(f"The upstream of this model does not serve /v1/{path}. Use another endpoint or another model.", param="model")
            return Failure(FailureClass.NO_API, error, response.status_code, failure.detail, api=api)
        return failure

    def close(self) -> None:
        """Close the upstream's answer, if there is one."""
        if self.upstream is not None:
            self.upstream.close()

    def error_inside(self, text: bytes) -> Failure:
        """An error that came with the status 200."""
        return classify(200, {}, text, self.channel.provider, snapshot_cache.snapshot.rules, inside_200=True)

    def garbage(self, text: bytes, wanted: str) -> Failure:
        """The answer is not `wanted`, whatever else it may be."""
        content_type = self.upstream.content_type if self.upstream is not None else ""
        detail = f"the answer ({content_type or 'no content type'}, {len(text)} bytes) is not {wanted}"
        return Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)

    # -- the client --------------------------------------------------------------------------------------------------

    async def finish(self, answer: bytes, usage: Usage | None, text_units: float = 0.0, rows: Sequence[RowWrite] = ()) -> None:
        """Write the record of a whole answer, and wait until it is on disk. `text_units`: of its text, where no usage is reported.

        Raises RelayUnavailable.
        """
        rows = (*rows, *self.exchange.stored_rows(200, answer))
        await self.exchange.committed(self.record.submit(Outcome(COMPLETED, 200, usage, text_units=text_units), rows))
        self.add_headers(cost=True)

    def add_headers(self, cost: bool = False) -> None:
        """What the relay says about its own part: dropped parameters to everyone; the rest when the setting allows, to staff always."""
        exchange, record = self.exchange, self.record
        if record.dropped:
            exchange.reply_headers.append((b"x-airelays-ignored-parameters", names_header(record.dropped)))
        if self.run.tells(exchange):
            own = (time.monotonic() - exchange.started - exchange.upstream_seconds) * 1000
            exchange.reply_headers += (
                (b"x-relay-channel", b"%d" % self.channel.id),
                (b"x-relay-attempts", b"%d" % len(record.attempts)),
                (b"x-relay-overhead-ms", b"%.1f" % own),
            )
            if cost:
                exchange.reply_headers.append((b"x-relay-cost-usd", plain(record.charge.cost).encode()))


TryChannel = Callable[[Attempt], Awaitable[HttpResponseBase]]


def names_header(names: list[str]) -> bytes:
    """Names of parameters, percent-encoded, cut when there are too many."""
    text = ",".join(quote(name, safe="[].") for name in dict.fromkeys(names))
    return (text if len(text) <= _MOST_NAMES else text[:_MOST_NAMES].rpartition(",")[0] + ",...").encode()


def _unanswered(reason: Exception) -> Failure:
    """Why no answer came at all."""
    if isinstance(reason, ConnectRefused):
        error: RelayError = UpstreamFailed("The upstream's address is not permitted on this portal. Tell the portal's administrator.")
        return Failure(FailureClass.CONFIG, error, 0, "the host name stands for an address that channels may not use")
    if isinstance(reason, httpx.ConnectTimeout):
        error = UpstreamTimeout("The upstream could not be reached in time (connect timeout). Try again.")
        return Failure(FailureClass.TRANSIENT, error, 0, "connect timeout", unreachable=True)
    if isinstance(reason, (httpx.ConnectError, httpx.ProxyError)):
        return Failure(FailureClass.TRANSIENT, UpstreamFailed(_UNREACHABLE), 0, f"cannot connect: {reason}"[:300], unreachable=True)
    return Failure(FailureClass.UNANSWERED, UpstreamFailed(BROKEN), 0, f"connection broke: {reason or type(reason).__name__}"[:300])


async def _error_body(upstream: Upstream) -> bytes:
    text = b""
    try:
        while len(text) < _ERROR_LIMIT and (piece := await upstream.read()):
            text += piece
    except Failure:  # the status is known; half of its explanation will do
        pass
    return text[:_ERROR_LIMIT]


def from_interrupt(ended: Ended) -> Failure:
    """A limit of time that ran out, or an order to end, as the failure of an attempt."""
    reason = ended.reason
    if reason in {Interrupt.FIRST_BYTE, Interrupt.IDLE}:
        return Failure(FailureClass.TIMEOUT, timeout_error(reason), 0, reason.value)
    return Failure(FailureClass.ENDED, ended_error(reason), 0, reason.value)


def ended_error(reason: Interrupt) -> RelayError:
    """What the client of a request hears that did not end by itself."""
    if reason is Interrupt.REVOKED:
        return RequestEnded("This request was ended because its token was revoked or disabled. Use another token.")
    if reason is Interrupt.KILLED:
        return RequestEnded("This request was ended by an administrator of the portal. Ask them why before you send it again.")
    if reason is Interrupt.STOPPING:
        return Stopping("The portal is being restarted, and this request could not end before. Send it again.", retry_after=1)
    return spent() if reason is Interrupt.SPENT else timeout_error(reason)
