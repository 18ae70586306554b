"""What comes before Django on the way to a page: how much body it may have, and how many are made at once.

Django writes the whole body of a request to memory or disk before it looks at anything else, whoever sends it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any, Final

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import DatabaseError, connection

from portal import limits
from portal.lib import net
from portal.lib.json import encode
from portal.services.outside import PageTurn, page_turn
from portal.serving.connections import largest_body
from relay.api.paths import relay_path
from relay.gateway.exchange.exchange import AsgiScope, Message, Receive, Send
from relay.gateway.limits.memory import forms

App = Callable[[AsgiScope, Receive, Send], Awaitable[None]]
PROBES: Final = frozenset(("/healthz", "/readyz"))
_API: Final = "/api/"
_asking: Final = asyncio.Semaphore(4)  # looks at sessions at a time
_WITHOUT_BODY: Final = frozenset(("GET", "HEAD", "OPTIONS"))


def page_body(method: str, path: str) -> int:
    """Bytes of body that a page takes."""
    return 0 if path in PROBES or method in _WITHOUT_BODY else limits.PAGE_BYTES


def most_body(method: str, path: str) -> int:
    """Bytes of body that a route takes, for servers that receive it before the application is asked."""
    if path.startswith("/v1/") or relay_path(path) is not None:
        return largest_body()
    return page_body(method, path)


class _TooLarge(Exception):
    """The body is larger than the page takes."""


class _Busy(Exception):
    """There are too many requests for pages."""


async def is_signed_in(scope: AsgiScope) -> bool:
    """Whether the session of a request is somebody's. Takes a query; who they are is asked by the page itself.

    Raises DatabaseError, and TimeoutError when it takes too long.
    """
    cookies = SimpleCookie()
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                cookies.load(value.decode("latin-1"))
            except CookieError:
                return False
    session = cookies.get(settings.SESSION_COOKIE_NAME)
    if session is None or not session.value.isalnum():  # no key of Django's, which the database might not take
        return False
    store: Any = import_module(settings.SESSION_ENGINE).SessionStore(session.value)
    asking = asyncio.ensure_future(_in_own_thread(lambda: bool(store.get(SESSION_KEY))))
    done, _ = await asyncio.wait((asking,), timeout=limits.THREAD_SECONDS)
    if not done:
        asking.cancel()
        raise TimeoutError
    return asking.result()


async def _in_own_thread(ask: Callable[[], bool]) -> bool:
    """Call a function that uses the database in a thread for it alone.

    What is not in the course of a page would otherwise share one thread with all websockets.
    """

    def ask_and_close() -> bool:
        try:
            return ask()
        finally:
            if not connection.in_atomic_block:  # as in a test
                connection.close()

    async with _asking, ThreadSensitiveContext():
        return await sync_to_async(ask_and_close)()


class Pages:
    """The application of the pages, with the limits that come before it."""

    def __init__(self, app: App, is_signed_in: Callable[[AsgiScope], Awaitable[bool]] = is_signed_in) -> None:
        self._app, self._is_signed_in = app, is_signed_in
        self._turns = Turns(limits.PAGES_AT_ONCE)
        # A probe waits for no page, and that of the process not for that of the database.
        self._probes = {path: Turns(limits.PAGES_AT_ONCE) for path in PROBES}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        most, announced = page_body(scope["method"], path), _announced(scope)
        large = announced is None or limits.ANONYMOUS_PAGE_BYTES < announced <= most
        try:
            if most and large and not await self._is_signed_in(scope):
                most = limits.ANONYMOUS_PAGE_BYTES
        except (DatabaseError, TimeoutError):
            await _answer(send, path, 503, "The portal's database cannot be reached. Try again in a few seconds.")
            return
        if announced is not None and announced > most:
            await _refuse(send, path, most)
            return
        address = _address(scope)
        body = _Body(receive, most, address)
        try:
            await body.read()
            if not body.gone:
                turns = self._probes.get(scope["path"], self._turns)
                await self._make(turns, address, scope, body.replay, send)
        except _TooLarge:
            await _refuse(send, path, most)
        except _Busy:
            await _answer(send, path, 503, "Too many pages are asked for at once. Try again in a few seconds.")
        finally:
            body.forget()

    async def _make(self, turns: Turns, address: str, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Make a page when its turn has come, which ends with the work.

        That is not when a slow client has read it, and before a server of others is waited for.
        """
        await turns.take(address)
        working = True

        def done() -> None:
            nonlocal working
            if working:
                working = False
                turns.give_back()

        async def send_and_leave(message: Message) -> None:
            done()
            await send(message)

        loop = asyncio.get_running_loop()
        timer = loop.call_later(limits.PAGE_TURN_SECONDS, done)
        token = page_turn.set(PageTurn(partial(_in_loop, loop, done)))
        try:
            await self._app(scope, receive, send_and_leave)
        finally:
            page_turn.reset(token)
            timer.cancel()
            done()


def _in_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Call a function on an event loop, from any thread."""
    loop.call_soon_threadsafe(work)


class Turns:
    """A number of turns, which addresses that wait for them get one after the other."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, address: str) -> None:
        """Wait for a turn. Raises _Busy."""
        if self._free:
            self._free -= 1
            return
        queue = self._waiting.setdefault(address, deque())
        if len(queue) >= limits.PAGES_WAITING:
            raise _Busy
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(limits.PAGE_WAIT_SECONDS):
                await turn
        except TimeoutError:
            raise _Busy from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            address, queue = next(iter(self._waiting.items()))
            del self._waiting[address]
            turn = queue.popleft()
            if queue:
                self._waiting[address] = queue  # behind the other addresses
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Body:
    """A body that is read before the page's turn comes: who sends slowly keeps nobody waiting."""

    def __init__(self, receive: Receive, most: int, address: str) -> None:
        self.gone = False  # the client has left
        self._receive, self._left, self._address = receive, most, address
        self._held = 0  # bytes that are counted
        self._messages: list[Message] = []

    async def read(self) -> None:
        """Read it whole. Raises _TooLarge, _Busy."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                self.gone = True
                return
            size = len(message.get("body", b""))
            self._left -= size
            if self._left < 0:
                raise _TooLarge
            if size:
                if not forms.take(self._address, size):
                    raise _Busy
                self._held += size
            more = message.get("more_body", False)
            self._messages.append(message)
        self._messages.reverse()

    async def replay(self) -> Message:
        return self._messages.pop() if self._messages else await self._receive()

    def forget(self) -> None:
        self._messages.clear()
        if self._held:
            forms.give_back(self._address, self._held)


def _announced(scope: AsgiScope) -> int | None:
    """The bytes of the body that the headers announce, None if they do not; too many if they cannot be read."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else limits.PAGES_BYTES
    return None


def _address(scope: AsgiScope) -> str:
    """The client's address, as limits count it."""
    peer = (scope.get("client") or ("", 0))[0]
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return net.block_key(net.client_ip(peer, forwarded.decode("latin-1"), settings.TRUSTED_PROXIES))


async def _refuse(send: Send, path: str, most: int) -> None:
    if not most:
        text = "This page takes no request body. Leave it out."
    elif path.startswith(_API):
        text = f"The request is larger than the {most // limits.KIB} KiB that one may have here. Send less at a time."
    elif most == limits.ANONYMOUS_PAGE_BYTES:
        text = (
            f"The request is larger than the {most // limits.KIB} KiB that a page takes before you have signed in. "
            "Sign in and send it again."
        )
    else:
        text = f"The request is larger than the {most // limits.MIB} MiB that a page takes. Send less at a time."
    await _answer(send, path, 413, text)


async def _answer(send: Send, path: str, status: int, text: str) -> None:
    """Say why nothing is done: to people in plain text, to scripts as the management API does."""
    if path.startswith(_API):
        code = "too_large" if status == 413 else "busy"
        kind, body = b"application/json", encode({"error": {"code": code, "message": text, "fields": {}}})
    else:
        kind, body = b"text/plain; charset=utf-8", text.encode()
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
