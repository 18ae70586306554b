"""The connections of clients to one worker: how many there may be, and how long each may take.

A connection without a whole request costs its sender nothing, so it never keeps out another one: at a limit the one
that has waited longest is closed. Time is looked at once a second for all connections together, which costs a request
nothing.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from http import HTTPStatus
from typing import Final, Protocol

from django.conf import settings

from portal import limits
from portal.lib import net
from portal.lib.json import encode
from portal.lib.processes import raise_descriptors

logger: Final = logging.getLogger(__name__)
TICK_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 60.0  # between two lines about refused connections


# -- what is refused, and when ---------------------------------------------------------------------------------------


def _error(status: int, code: str, message: str) -> bytes:
    """A whole answer, in the form of errors of /v1."""
    kind = "server_error" if status == 503 else "invalid_request_error"
    body = encode({"error": {"message": message, "type": kind, "param": None, "code": code}})
    retry = b"retry-after: 5\r\n" if status == 503 else b""
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n" % (len(body), retry)
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()) + head + body


INVALID: Final = _error(400, "invalid_http", "This is not a valid HTTP request.")
SLOW: Final = _error(408, "request_timeout", "The request did not arrive in time. Send it again.")
CROWDED: Final = _error(503, "too_many_connections", "Too many connections are open. Close some, then try again.")
TOO_LARGE: Final = _error(413, "request_too_large", "The body is larger than any that this portal takes. Send less.")
SMALL_PIECES: Final = _error(
    400, "chunks_too_small", "The body comes in far more pieces than its size needs. Send larger chunks."
)
LONG_URL: Final = _error(
    414, "url_too_long", f"The URL is longer than {limits.URL_BYTES // limits.KIB} KiB. Send a shorter one."
)
LARGE_HEAD: Final = _error(
    431,
    "headers_too_large",
    f"The headers have more than {limits.HEADER_FIELDS} fields or {limits.HEADER_BYTES // limits.KIB} KiB. Send fewer.",
)
PIPELINED: Final = _error(429, "too_many_requests", "Wait for answers before you send more on this connection.")


class ReadPace:
    """Whether a client reads what it is sent: READ_BYTES within READ_SECONDS."""

    __slots__ = ("_since", "_unsent")

    def __init__(self) -> None:
        self._since = 0.0  # when the client last read that much; 0: nothing waits for it
        self._unsent = 0  # bytes that waited for it then

    def resumed(self) -> None:
        """The client has read most of it."""
        self._since = 0.0

    def too_slow(self, unsent: int, now: float) -> bool:
        """`unsent`: bytes that wait for the client. Called once a second while there are many."""
        if not self._since or self._unsent - unsent >= limits.READ_BYTES:
            self._since, self._unsent = now, unsent
        return unsent > 0 and now - self._since > limits.READ_SECONDS


class Phase(Enum):
    """What a connection does."""

    NEW = "waits for its first request"
    BODY = "receives the body of a request"
    ANSWER = "answers"
    KEPT = "is kept for the next request"


def is_late(phase: Phase, seconds: float, received: int) -> bool:
    """Whether a phase has taken too long. `received`: bytes of the body so far."""
    match phase:
        case Phase.NEW:
            return seconds > limits.HEAD_SECONDS
        case Phase.BODY:
            return seconds > limits.BODY_SECONDS + received / limits.BODY_BYTES_PER_SECOND
        case Phase.KEPT:
            return seconds > limits.KEEP_ALIVE_SECONDS + limits.HEAD_SECONDS
    return False


@cache
def largest_body() -> int:
    """Bytes of the largest body that any route takes, with what a form adds to its file."""
    config = settings.CONFIG
    return max(config.max_body_bytes, config.max_upload_bytes, limits.PAGE_BYTES) + limits.MIB


# -- how many there may be -------------------------------------------------------------------------------------------


class Connection(Protocol):
    """A connection, as a server's protocol class has it."""

    def overdue(self, now: float) -> bool:
        """Whether its time is over. Called once a second; `now`: seconds of the event loop's clock."""

    def give_up(self) -> None:
        """Close it; the client is told why if it can be."""


@dataclass(slots=True)
class _Address:
    """The connections of one address."""

    count: int = 0
    idle: dict[Connection, None] = field(default_factory=dict)  # without a whole request, the oldest first


class Connections:
    """The connections of clients to this process."""

    def __init__(self, most: int, per_address: int, trusted: tuple[net.Network, ...] = ()) -> None:
        """`most`: of all addresses together. `trusted`: proxies, which have no limit of their own."""
        self.most, self.per_address, self._trusted = most, per_address, trusted
        self.now = 0.0  # of the event loop's clock, at the last tick
        self._addresses: dict[str, _Address] = {}
        self._all: dict[Connection, _Address] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._log_at = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def opened(self, connection: Connection, peer: str) -> bool:
        """Count a new connection, which is idle; returns whether there is room for it."""
        key = net.block_key(peer)
        address = self._addresses.get(key)
        if address is None:
            address = self._addresses[key] = _Address()
        if address.count >= self.per_address and not self._is_trusted(peer) and not self._make_room(address):
            self._tell(f"the address {key} has the most connections that one may have ({self.per_address})")
            self._forget_empty(key, address)
            return False
        if len(self._all) >= self.most and not self._make_room(max(self._addresses.values(), key=_idle_count)):
            self._tell(f"all {self.most} connections that this worker takes are in use")
            self._forget_empty(key, address)
            return False
        address.count += 1
        address.idle[connection] = None
        self._all[connection] = address
        if self._timer is None:
            self._start()
        return True

    def closed(self, connection: Connection, peer: str) -> None:
        address = self._all.pop(connection, None)
        if address is not None:
            address.count -= 1
            address.idle.pop(connection, None)
            self._forget_empty(net.block_key(peer), address)

    def busy(self, connection: Connection) -> None:
        """It has a request that is being answered."""
        address = self._all.get(connection)
        if address is not None:
            address.idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Its request has been answered."""
        address = self._all.get(connection)
        if address is not None:
            address.idle[connection] = None

    def check(self, now: float) -> None:
        """Give up the connections whose time is over. Called once a second."""
        self.now = now
        for connection in [one for one in list(self._all) if one.overdue(now)]:
            connection.give_up()

    def _make_room(self, address: _Address) -> bool:
        oldest = next(iter(address.idle), None)
        if oldest is None:
            return False
        del address.idle[oldest]
        address.count -= 1
        del self._all[oldest]
        oldest.give_up()
        return True

    def _forget_empty(self, key: str, address: _Address) -> None:
        if not address.count and self._addresses.get(key) is address:
            del self._addresses[key]

    def _is_trusted(self, peer: str) -> bool:
        address = net.parse_address(peer)
        return address is not None and net.inside(address, self._trusted)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        self._timer = loop.call_later(TICK_SECONDS, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(TICK_SECONDS, self._tick, loop) if self._all else None
        self.check(loop.time())

    def _tell(self, what: str) -> None:
        if self.now >= self._log_at:
            self._log_at = self.now + _LOG_SECONDS
            logger.warning("new connections are refused: %s; see docs/limits.md", what)


def _idle_count(address: _Address) -> int:
    return len(address.idle)


@cache
def connections() -> Connections:
    """The connections of this process, once it has been configured."""
    config = settings.CONFIG
    return Connections(
        limits.client_connections(raise_descriptors()), config.connections_per_address, settings.TRUSTED_PROXIES
    )
