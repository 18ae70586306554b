"""An open connection of /v1/realtime: relays frames both ways, and records and charges each response.

The last event of a response is sent once its record is on disk, as for other endpoints. When nothing is left, the
connection ends with an error event. When the client leaves, what the upstream is making is cancelled, and its events
are read for some seconds more, for the usage that it reports then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, cast

import aiohttp

from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, encode, text_of
from relay.endpoints.errors import invalid
from relay.endpoints.realtime.connection import Handshake, UpstreamConnection, closed_with, hang_up
from relay.endpoints.realtime.models import SessionModels
from relay.endpoints.realtime.responses import RealtimeResponses
from relay.errors import (
    CredentialsExhausted,
    RelayError,
    Stopping,
    UpstreamFailed,
    UpstreamTruncated,
)
from relay.gateway.attempt import interrupt_error
from relay.gateway.exchange.interrupts import AS_IF_LEFT, Ended, Interrupt
from relay.gateway.outcome import CLIENT_GONE, COMPLETED, end_reason
from relay.gateway.runtime import Runtime
from relay.protocols.errors import Told
from relay.protocols.fields import BadRequest
from relay.protocols.realtime import faults
from relay.protocols.realtime.conversation import cancel_event, is_request, read_created, read_delta
from relay.protocols.realtime.events import client_event, read_usage, with_limits

_CLOSED: Final = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)
_SERVICE_RESTART: Final = 1012
_RESTART: Final = "The portal is being restarted. Connect again."
SendFrame = Callable[[str | bytes], Awaitable[None]]


class RealtimeSession:
    """One open connection: relays frames both ways."""

    def __init__(self, exchange: Handshake, run: Runtime, connection: UpstreamConnection, send: SendFrame) -> None:
        assert exchange.caller is not None  # noqa: S101  # `connect_upstream` has run
        self.exchange, self.run, self.socket = exchange, run, connection.socket
        self.attempt, self._send_frame = connection.attempt, send
        self.candidate, self.model = self.attempt.candidate, self.attempt.record.model
        self.models = SessionModels(exchange.caller, self.model, self.candidate, exchange.fixed)
        self.responses = RealtimeResponses(exchange, exchange.caller, run, self.attempt, self.models)
        speech = self.responses.transcriptions.speech
        speech.begin(self.candidate.route.upstream_name, exchange.transcribes)
        self.models.transcribes = exchange.transcribes
        self._refusal: RelayError | None = None  # why the next response was not permitted
        self._draining = False  # the portal stops
        self._first = deque(connection.first)  # what the upstream said before the session began
        self._closed_with: tuple[int, str] | None = None  # by the upstream, where it failed
        if self.attempt.channel.disconnect_policy != "free":
            exchange.linger = run.config.disconnect_read_seconds

    async def send(self, frame: str | bytes) -> None:
        if not self.exchange.left:
            await self._send_frame(frame)

    # -- the client --------------------------------------------------------------------------------------------------

    async def from_client(self, text: str | None, data: bytes | None) -> None:
        """Send a frame to the upstream; returns when its buffer has room again."""
        if self._refusal is not None or self.exchange.left or self.responses.over:
            return  # the session has ended, or is about to
        event: Json = {}
        try:
            if text is not None:
                event = client_event(text)
                if self.models.translate(event):
                    text = encode(event).decode()
                seconds = self.responses.conversation.sent(event)
                await self.responses.take_speech(seconds, event)
                if is_request(event):
                    if self._draining:
                        raise BadRequest(_RESTART, None, Stopping.code)
                    if not await self.responses.ask():
                        return
                await self.socket.send_str(text)
            elif data is not None:
                await self.responses.take_speech(self.responses.conversation.sent_audio(len(data)))
                await self.socket.send_bytes(data)
        except BadRequest as bad:
            await self.send(error_event(invalid(bad), text_of(event, "event_id")))
        except RelayError as refusal:
            if not self.responses.over:
                self._refusal = refusal
                self.exchange.end(Interrupt.SPENT)  # not while a record is being written
        except (ConnectionError, aiohttp.ClientError):
            pass  # the other direction detects that the connection is closed, and reports it

    def _drain(self) -> None:
        """The portal stops: the session ends as soon as the upstream owes nothing."""
        self._draining = True
        if not self.responses.busy:
            self.exchange.end(Interrupt.STOPPING)

    async def client_left(self) -> bool:
        """The client has disconnected. Returns whether the upstream's events are read on."""
        if self.responses.busy and self.exchange.linger:
            self.run.watchdog.on_leave(self.exchange)
        if self.exchange.left:
            await self._cancel_responses()
        return self.exchange.left

    async def _cancel_responses(self) -> None:
        """Ask the upstream to end what it is making: it then reports the usage at once."""
        try:
            for response_id in self.responses.running_ids():
                await self.socket.send_str(cancel_event(response_id))
            for event in self.responses.transcriptions.speech.last_events():
                await self.socket.send_str(event)
        except (ConnectionError, aiohttp.ClientError):
            pass

    # -- the upstream ------------------------------------------------------------------------------------------------

    async def relay_to_client(self) -> tuple[int, str]:
        """Relay the upstream's frames until it closes; returns the code and reason to close the client's connection
        with.

        Raises CancelledError when the client has disconnected.
        """
        exchange = self.exchange
        exchange.task, exchange.streaming = asyncio.current_task(), True
        self.run.at_stop.add(self._drain)
        if self.run.stopping:
            self._drain()
        exchange.total_at = time.monotonic() + self.attempt.channel.timeouts.total
        try:
            return await self._until_end()
        finally:
            exchange.streaming = False
            self.responses.close(CLIENT_GONE)  # if it was cancelled anywhere above: nothing stays held
            await hang_up(self.socket)

    async def _until_end(self) -> tuple[int, str]:
        """As `relay_to_client`, but for the upstream's connection."""
        exchange = self.exchange
        error: RelayError | None = None
        code, reason = 1000, ""
        try:
            if session := self.models.opening(exchange.session, exchange.transcribes):
                await self._configure(session)
            code, reason = await self._relay()
        except BadRequest as bad:  # in the session of a client secret: what its token may do has changed
            error = invalid(bad)
        except RelayError as ended:
            error = ended
        except asyncio.CancelledError as cancelled:
            why = exchange.explain(cancelled)
            if not isinstance(why, Ended):
                raise
            error = self._refusal or session_error(why.reason)
        finally:
            self.run.at_stop.discard(self._drain)
        if error is not None:
            code, reason = await self._end_with(error)
            if self._closed_with is not None:
                code, reason = self._closed_with
        gone = exchange.ended_by is not None or (exchange.left and error is None)
        error = None if exchange.ended_by is not None else error
        self.responses.close(CLIENT_GONE if gone else COMPLETED if error is None else end_reason(error), error)
        return code, reason

    async def _configure(self, session: Json) -> None:
        """Configure the session as it is opened: by a client secret, and by the channel's overrides.

        Raises BadRequest.
        """
        session = {"type": "realtime", **session}
        self.models.translate({"session": session})
        session.pop("model", None)  # in the address, by the upstream's name
        update: Json = {"type": "session.update", "session": session}
        self.responses.conversation.sent(update)
        self.responses.transcriptions.speech.sent(update)
        await self.socket.send_str(encode(update).decode())

    async def _end_with(self, error: RelayError) -> tuple[int, str]:
        """Tell the client why the connection ends, and read the usage of what the upstream was making."""
        exchange = self.exchange
        try:
            await self.send(error_event(error))
            if exchange.must_end in AS_IF_LEFT:
                exchange.ended_by, exchange.must_end = exchange.must_end, None
            elif exchange.must_end is Interrupt.SPENT:
                exchange.must_end = None
            self.responses.ended = error if exchange.ended_by is None else None
            if self.responses.busy and exchange.must_end is None and not self.socket.closed and exchange.leave():
                await self._cancel_responses()
                await self._relay()
        except RelayError:
            pass  # what is left is estimated
        except asyncio.CancelledError as cancelled:
            if not exchange.gone_at and not isinstance(exchange.explain(cancelled), Ended):
                raise
            if exchange.task is not None and exchange.interrupted is not None:
                exchange.task.uncancel()
        return close_frame(error)

    async def _relay(self) -> tuple[int, str]:
        exchange, socket = self.exchange, self.socket
        while not (exchange.left and not self.responses.busy):
            if exchange.must_end is not None:
                raise self._refusal or session_error(exchange.must_end)
            message = self._first.popleft() if self._first else await socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                if exchange.left:
                    exchange.count_unsent(len(message.data))
                await self._event(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await self.send(cast(bytes, message.data))
            elif message.type in _CLOSED or message.type is aiohttp.WSMsgType.ERROR:
                return self._closed(*closed_with(message))
        return 1000, ""

    def _closed(self, code: int, reason: str) -> tuple[int, str]:
        """The upstream has closed; returns the code and reason for the client. Raises RelayError if it has failed."""
        shown = close_code(code), faults.shown_reason(reason)
        body, normal = faults.close_body(code, reason), faults.is_normal_end(code)
        transcriptions = self.responses.transcriptions
        transcriptions.silent = True
        owed = self.responses.responding
        if not normal:
            self.attempt.broke_off(f"the upstream closed the connection with {code} {reason}"[:200], body)
            self._closed_with = shown
        elif not owed and transcriptions.speech.unfinished():
            owed, self._closed_with = True, shown
        elif not owed:
            return shown
        if owed or code == 1006:
            raise UpstreamTruncated("The upstream ended the connection in the middle of the session. Connect again.")
        error = self.attempt.stream_error(body)[0]
        if error.public_code == CredentialsExhausted.code:
            self._closed_with = 1011, ""  # the reason names our key
        raise error

    async def _event(self, text: str) -> None:
        """Count one event of the upstream, and pass it on. Raises RelayError."""
        responses = self.responses
        delta = read_delta(text)
        if delta is not None:
            await responses.count(delta, len(text))
            await self.send(text)
            return
        failed: UpstreamFailed | None = None
        event = faults.read_event(text)
        if event is not None:
            if not event:
                return  # what cannot be read cannot be cleaned
            if faults.errors_of(event):
                text, body = clean_event(event, self.attempt.told)
                failed = self.attempt.stream_error(body)[0]
                self.attempt.told_failure(body)
        transcriptions = responses.transcriptions
        if transcriptions.speech.heard(text):
            responses.conversation.configured(text)
            self.models.told(text)
        created = read_created(text)
        if created is not None:
            responses.conversation.begun(created, text)
            await responses.begin(created)
        elif event is not None and faults.is_error(event):
            responses.conversation.formats.refused()
            if faults.is_about_audio(event):
                transcriptions.speech.refused()
            else:
                responses.refused()
        used = read_usage(text)
        if used is not None and used.transcription:
            await transcriptions.record(used)
        elif used is not None:
            await responses.end(used, failed)
        told = with_limits(text, responses.limits)
        if told is not None:
            await self.send(told)
        if self._draining and not responses.busy:
            raise session_error(Interrupt.STOPPING)
        if not self.exchange.left:
            if used is not None:
                await responses.hold_next()
            await transcriptions.hold()


def clean_event(event: Json, told: Told) -> tuple[str, bytes]:
    """An event whose errors are told as those of answers over HTTP are, and the first of them as the body of one.

    `told`: what the client is told of an error, from its body.
    """
    body = faults.first_error(event)
    faults.clean_errors(event, told)
    return encode(event).decode(), body


def session_error(reason: Interrupt) -> RelayError:
    """The client's error for a session that was ended."""
    return Stopping(_RESTART, retry_after=1) if reason is Interrupt.STOPPING else interrupt_error(reason)


def error_event(error: RelayError, caused_by: str = "") -> str:
    """An error of the portal as an event for the client. `caused_by`: the client's own id of its event at fault."""
    told: Json = {
        "type": error.public_type,
        "code": error.public_code,
        "message": error.message,
        "param": error.param,
        "event_id": caused_by or None,
    }
    return encode({"type": "error", "event_id": f"event_{time_ordered_hex()}", "error": told}).decode()


def close_frame(error: RelayError) -> tuple[int, str]:
    """The code and reason with which the client's connection is closed after an error."""
    if isinstance(error, Stopping):
        return _SERVICE_RESTART, ""
    return 4000 + error.http_status if error.http_status < 1000 else 1011, error.public_code or ""


def close_code(code: int | None) -> int:
    """A code for the client's close frame: the upstream's, or 1011 where a frame may not contain it (1006, for
    example).
    """
    return (
        code
        if code is not None and (code in {1000, 1001, 1008, 1009, 1011, 1012, 1013} or 3000 <= code < 5000)
        else 1011
    )
