"""A client's sideband of one of its calls: it is told what happens there, and may send events.

It is a websocket to the upstream of its own, which any worker can open; the worker that made the call counts on
another one. What is sent is checked, and what is told is cleaned, as on every connection.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Final, cast

import aiohttp

from portal.lib.json import Json, encode, text_of
from relay.endpoints.errors import invalid
from relay.endpoints.realtime import running_calls
from relay.endpoints.realtime.call_upstream import sideband_url
from relay.endpoints.realtime.connection import Handshake, closed_with, hang_up, open_socket
from relay.endpoints.realtime.models import SessionModels
from relay.endpoints.realtime.session import (
    SendFrame,
    clean_event,
    close_code,
    close_frame,
    error_event,
    session_error,
)
from relay.errors import ObjectNotFound, RelayError
from relay.gateway.access.authorization import check_purpose
from relay.gateway.attempt import interrupt_error, told_error
from relay.gateway.exchange.interrupts import Ended, Interrupt
from relay.gateway.pipeline import count_request
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.routes import Candidate
from relay.protocols.fields import BadRequest
from relay.protocols.realtime import faults
from relay.protocols.realtime.conversation import read_delta
from relay.protocols.realtime.events import client_event, is_session, with_limits
from relay.providers.classify import Failure

_CLOSED: Final = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)


class JoinedCall:
    """A websocket to the upstream that has joined a call."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, candidate: Candidate, model: str) -> None:
        """`model`: the call's, by its public name."""
        self.socket, self.candidate, self.model = socket, candidate, model


async def join(exchange: Handshake, run: Runtime) -> JoinedCall:
    """Join a call of the caller. Raises RelayError."""
    caller = exchange.caller
    assert caller is not None  # noqa: S101  # `authenticate` has run
    check_purpose(caller, "realtime")
    await count_request(exchange, caller, run)
    call, candidate = await running_calls.joined_call(caller, exchange.call_id, exchange.wall)
    try:
        url = sideband_url(candidate.route.channel, call.upstream_id)
        socket = await open_socket(exchange, run, candidate, url, call.model)
    except Failure as failure:
        if failure.status == 404:
            raise ObjectNotFound("This call is over.", param="call_id") from None
        raise failure.error from None
    except Ended as ended:
        raise interrupt_error(ended.reason) from None
    return JoinedCall(socket, candidate, call.model)


class Sideband:
    """An open sideband of a client: relays frames both ways."""

    def __init__(self, exchange: Handshake, run: Runtime, joined: JoinedCall, send: SendFrame) -> None:
        assert exchange.caller is not None  # noqa: S101  # `join` has run
        self.exchange, self.run, self.socket, self._send = exchange, run, joined.socket, send
        self._told = partial(told_error, joined.candidate)
        self._timeouts = joined.candidate.route.channel.timeouts
        self._models = SessionModels(exchange.caller, joined.model, joined.candidate)

    async def from_client(self, text: str | None, data: bytes | None) -> None:
        """Send a frame to the upstream; returns when its buffer has room again."""
        event: Json = {}
        try:
            if text is not None:
                event = client_event(text)
                await self.socket.send_str(encode(event).decode() if self._models.translate(event) else text)
            elif data is not None:
                await self.socket.send_bytes(data)
        except BadRequest as bad:
            await self._send(error_event(invalid(bad), text_of(event, "event_id")))
        except (ConnectionError, aiohttp.ClientError):
            pass  # the other direction detects that the connection is closed, and reports it

    async def client_left(self) -> bool:
        """The client has disconnected. The call goes on."""
        return False

    async def relay_to_client(self) -> tuple[int, str]:
        """Relay the upstream's frames until it closes; returns the code and reason to close the client's connection
        with.

        Raises CancelledError when the client has disconnected.
        """
        exchange = self.exchange
        exchange.task, exchange.streaming = asyncio.current_task(), True
        exchange.total_at = time.monotonic() + self._timeouts.total
        drain = partial(exchange.end, Interrupt.STOPPING)
        self.run.at_stop.add(drain)
        try:
            if self.run.stopping:
                exchange.must_end = exchange.must_end or Interrupt.STOPPING
            return await self._relay()
        except RelayError as ended:
            error = ended
        except asyncio.CancelledError as cancelled:
            why = exchange.explain(cancelled)
            if not isinstance(why, Ended):
                raise
            error = session_error(why.reason)
        finally:
            self.run.at_stop.discard(drain)
            exchange.streaming = False
            await hang_up(self.socket)
        await self._send(error_event(error))
        return close_frame(error)

    async def _relay(self) -> tuple[int, str]:
        while True:
            if self.exchange.must_end is not None:
                raise session_error(self.exchange.must_end)
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                await self._event(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await self._send(cast(bytes, message.data))
            elif message.type in _CLOSED or message.type is aiohttp.WSMsgType.ERROR:
                code, reason = closed_with(message)
                return close_code(code), faults.shown_reason(reason)

    async def _event(self, text: str) -> None:
        event = faults.read_event(text) if read_delta(text) is None else None
        if event is not None and not event:
            return  # what cannot be read cannot be cleaned
        if event is not None and faults.errors_of(event):
            text = clean_event(event, self._told)[0]
        if is_session(text):
            self._models.told(text)
        told = with_limits(text, self.exchange.reply_headers)
        if told is not None:
            await self._send(told)
