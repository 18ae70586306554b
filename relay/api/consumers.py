"""The websocket of /v1/realtime."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from portal import limits
from portal.lib.net import client_ip
from relay.api.request import single_parameters
from relay.endpoints.realtime.connection import (
    Handshake,
    UpstreamConnection,
    authenticate,
    connect_upstream,
    model_of_first,
)
from relay.endpoints.realtime.session import RealtimeSession, error_event
from relay.endpoints.realtime.sideband import JoinedCall, Sideband, join
from relay.errors import InternalError, InvalidRequest, RelayError, RelayUnavailable, Stopping
from relay.gateway.access.address_limits import address_limits
from relay.gateway.runtime import Runtime, runtime
from relay.protocols.fields import BadRequest
from relay.protocols.realtime.events import client_event

logger: Final = logging.getLogger(__name__)
_PROTOCOL: Final = "realtime"
_END_SECONDS: Final = 10.0  # for what runs to write its records, when its client has left
_NOT_CONFIGURED: Final = InvalidRequest(
    "No “session.update” came that names the model that transcribes. Connect again, and send it first.",
    code="session_not_configured",
)


class RealtimeConsumer(AsyncWebsocketConsumer):
    """Authenticates by the token in a header or a subprotocol, then relays frames both ways.

    A refused handshake is answered like any refused request.
    """

    session: RealtimeSession | Sideband | None = None
    exchange: Handshake | None = None
    relaying: asyncio.Task[None] | None = None
    waiting: asyncio.TimerHandle | None = None  # for the event that names the model
    gone = False  # the client has disconnected
    run: Runtime

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Handle a message. Channels would look for old database connections before each, in a thread; none is used
        here.
        """
        await getattr(self, message["type"].replace(".", "_"))(message)

    async def websocket_connect(self, message: dict[str, Any]) -> None:
        peer = (self.scope.get("client") or ("", 0))[0]
        headers = self.scope["headers"]
        if settings.TRUSTED_PROXIES:
            forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for")
            peer = client_ip(peer, forwarded.decode("latin-1"), settings.TRUSTED_PROXIES)
        exchange = self.exchange = Handshake(self.scope, peer)
        exchange.task = asyncio.current_task()
        try:
            self.run = await runtime()
        except RelayError as error:  # its database is away, and it has not started yet
            self.exchange = None
            await self._answer_with(error, exchange.request_id)
        self.run.watchdog.add(exchange)
        try:
            if address_limits.limited:
                address_limits.enter(peer, exchange.started)
                exchange.at_end.append(partial(address_limits.leave, peer))
            query = single_parameters(parse_qsl(self.scope.get("query_string", b"").decode("latin-1")))
            model = await authenticate(exchange, query)
            connection: UpstreamConnection | JoinedCall | None = None
            if exchange.call_id:
                connection = await join(exchange, self.run)
            elif model:
                connection = await connect_upstream(exchange, self.run, model)
        except RelayError as error:
            await self._refuse(error)
        except Exception:
            logger.exception("a realtime connection failed", extra={"request_id": exchange.request_id})
            await self._refuse(InternalError())
        offered = self.scope.get("subprotocols") or []
        await self.accept(
            _PROTOCOL if _PROTOCOL in offered else None, headers=[(b"x-request-id", exchange.request_id.encode())]
        )  # type: ignore[no-untyped-call]
        if connection is not None:
            self._begin(exchange, connection)
            return
        self.run.at_stop.add(self._give_up)
        self.waiting = asyncio.get_running_loop().call_later(limits.REALTIME_FIRST_SECONDS, self._give_up)
        if self.run.stopping:
            self._give_up()

    def _begin(self, exchange: Handshake, connection: UpstreamConnection | JoinedCall) -> None:
        self._stop_waiting()
        if isinstance(connection, JoinedCall):
            self.session = Sideband(exchange, self.run, connection, self._send)
        else:
            self.session = RealtimeSession(exchange, self.run, connection, self._send)
        self.relaying = asyncio.ensure_future(self._relay(self.session))

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None
            self.run.at_stop.discard(self._give_up)

    def _give_up(self) -> None:
        """Nothing came that names the model of a session, or the portal stops."""
        if self.waiting is not None:
            error = Stopping("The portal is being restarted. Connect again.") if self.run.stopping else _NOT_CONFIGURED
            self.run.watchdog.spawn(self._end_with(error))

    async def _end_with(self, error: RelayError) -> None:
        """Tell the client of a session that has not begun why it ends."""
        self._stop_waiting()
        if self.exchange is not None:
            self.run.refusals.add(self.exchange, error, "GET /v1/realtime")
        if not self.gone:
            with contextlib.suppress(OSError, RuntimeError):
                await self._send(error_event(error))
        await self._close(4000 + error.http_status, error.public_code)
        self._end()

    async def _first_event(self, exchange: Handshake, text: str) -> None:
        """The event that names the model of a session: connect to an upstream."""
        exchange.task = asyncio.current_task()
        try:
            connection = await connect_upstream(exchange, self.run, model_of_first(client_event(text)))
        except BadRequest as bad:
            await self._end_with(InvalidRequest(bad.message, code=bad.code, param=bad.param))
        except RelayError as error:
            await self._end_with(error)
        except Exception:
            logger.exception("a realtime connection failed", extra={"request_id": exchange.request_id})
            await self._end_with(InternalError())
        else:
            self._begin(exchange, connection)
            if self.session is not None:
                await self._pass_on(self.session, text, None)

    async def _relay(self, session: RealtimeSession | Sideband) -> None:
        try:
            code, reason = await session.relay_to_client()
            await self._close(code, reason)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("a realtime connection broke", extra={"request_id": session.exchange.request_id})
            await self._close(1011)
        finally:
            self._end()

    async def _close(self, code: int, reason: str | None = None) -> None:
        """Close the websocket, unless the client was quicker: servers raise these when it is closed already."""
        if not self.gone:
            with contextlib.suppress(OSError, RuntimeError):
                await self.close(code=code, reason=reason)  # type: ignore[no-untyped-call]

    async def _send(self, frame: str | bytes) -> None:
        """Send a frame to the client; returns when its buffer has room again.

        One that has left is told to `disconnect` in a moment.
        """
        with contextlib.suppress(OSError, RuntimeError):
            if isinstance(frame, str):
                await self.send(text_data=frame)  # type: ignore[no-untyped-call]
            else:
                await self.send(bytes_data=frame)  # type: ignore[no-untyped-call]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.session is not None:
            await self._pass_on(self.session, text_data, bytes_data)
        elif self.exchange is not None and self.waiting is not None:
            await self._first_event(self.exchange, text_data or "")

    async def _pass_on(self, session: RealtimeSession | Sideband, text: str | None, data: bytes | None) -> None:
        """Send a client's frame to the upstream, which may read it slowly. Large ones have their share of memory."""
        exchange, size = session.exchange, len(text or data or b"")
        if size <= limits.UNCOUNTED_BYTES:
            await session.from_client(text, data)
            return
        try:
            exchange.hold(size)
        except RelayUnavailable as full:
            await self._send(error_event(full))
            return
        try:
            await session.from_client(text, data)
        finally:
            exchange.held.give_back(size)

    async def disconnect(self, code: int) -> None:
        self.gone = True
        self._stop_waiting()
        if self.relaying is not None and not self.relaying.done():
            if self.session is not None and await self.session.client_left():
                self.run.watchdog.keep(self.relaying)
                return
            self.relaying.cancel()
            await asyncio.wait([self.relaying], timeout=_END_SECONDS)
            if not self.relaying.done():  # it ends its exchange, which is watched until then
                self.relaying.cancel()
                self.run.watchdog.keep(self.relaying)
                return
        self._end()

    def _end(self) -> None:
        if self.exchange is not None:
            self.run.watchdog.remove(self.exchange)
            self.exchange = None

    async def _refuse(self, error: RelayError) -> NoReturn:
        """Keep why the handshake is refused, and answer it."""
        exchange = self.exchange
        if exchange is not None:
            self.run.refusals.add(exchange, error, "GET /v1/realtime")
        self._end()
        await self._answer_with(error, exchange.request_id if exchange is not None else "")

    async def _answer_with(self, error: RelayError, request_id: str) -> NoReturn:
        """Answer the handshake with an HTTP error if the server supports that; close the websocket otherwise."""
        if "websocket.http.response" in self.scope.get("extensions", {}):
            body = error.body()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"x-request-id", request_id.encode()),
            ]
            headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers().items()]
            await self.base_send(
                {"type": "websocket.http.response.start", "status": error.http_status, "headers": headers}
            )
            await self.base_send({"type": "websocket.http.response.body", "body": body})
        else:
            await self.base_send({"type": "websocket.close", "code": 4000 + error.http_status})
        raise StopConsumer
