"""Signs the requests of one user's plan, and refreshes its token: one at a time, whatever worker or host asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, ParamSpec, TypeVar

import httpx
from django.db import Error as DatabaseFault
from django.db import connection

from portal import limits
from portal.lib.json import Json
from portal.services.timeouts import statement_timeout
from relay.channels.chatgpt_accounts import store, unstored
from relay.channels.chatgpt_accounts.calls import Issuer, RefreshRefused
from relay.channels.chatgpt_accounts.places import place_of
from relay.channels.chatgpt_accounts.store import Held
from relay.errors import PlanAuthError
from relay.models.chatgpt_account import SignInState
from relay.providers.failures import FailureClass
from relay.providers.plan_requests.transport import PlanRefused, signed_out
from relay.providers.plans.login import LoginFailed, Tokens
from relay.providers.plans.shapes import Shape

logger: Final = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_EARLY: Final = 60.0  # seconds before a token expires at which it is refreshed
_PAUSE: Final = 0.1  # seconds between two looks at what somebody else refreshes
# The issuer is asked, and what it gave is stored, in less time than the lease holds: a second worker would spend the
# same refresh token otherwise, which ends the sign-in where they rotate.
_ASK_SECONDS: Final = 30.0
_STORE_SECONDS: Final = 15.0
_NOTE_EVERY: Final = 5.0  # seconds between two notes of usage windows
_running: Final[set[asyncio.Task[None]]] = set()  # so that none is collected while it runs


class PlanSession:
    """The sign-in of one account, as the snapshot has it until it changes."""

    def __init__(self, held: Held) -> None:
        self._held, self._noted_at = held, 0.0
        self._renewing: asyncio.Task[None] | None = None

    @property
    def shape(self) -> Shape:
        return self._held.shape

    async def signed(self, request: httpx.Request, send: httpx.AsyncBaseTransport) -> Mapping[str, str]:
        """As `relay.providers.plan_requests.transport.PlanSigner` has it."""
        self._check(self._held)
        expires = self._held.expires_at
        if expires and time.time() >= expires - _EARLY:
            try:
                await self._renewed(self._held.access, send)
            except PlanRefused as refused:
                if not refused.error.retry or time.time() >= expires:  # it holds for a moment yet
                    raise
        return self._held.headers

    async def renew(self, used: Mapping[str, str], send: httpx.AsyncBaseTransport) -> None:
        """As `relay.providers.plan_requests.transport.PlanSigner` has it."""
        await self._renewed(used["authorization"].removeprefix("Bearer "), send)

    def saw(self, found: Json) -> None:
        now = time.monotonic()
        if now - self._noted_at >= _NOTE_EVERY:
            self._noted_at = now
            _spawn(_noted(self._held.pk, found))

    def _check(self, held: Held) -> None:
        """Raises PlanRefused when nothing can be sent in the person's name."""
        if held.state == SignInState.EXPIRED:
            raise signed_out("refresh_failed")
        if held.state == SignInState.INCOMPLETE:
            raise signed_out("incomplete")
        if held.state != SignInState.SIGNED_IN or not held.access:
            raise signed_out("missing")
        if held.another:
            raise signed_out("account_mismatch")

    async def _renewed(self, refused: str, send: httpx.AsyncBaseTransport) -> None:
        """Have another token than `refused`. Goes on when the client leaves: what the issuer gave must be stored."""
        if self._held.access != refused:
            return
        if self._renewing is None or self._renewing.done():
            self._renewing = _spawn(self._renew(refused, send))
        await asyncio.shield(self._renewing)

    async def _renew(self, refused: str, send: httpx.AsyncBaseTransport) -> None:
        try:
            await self._renew_alone(refused, send)
        except DatabaseFault as error:
            logger.warning("the ChatGPT sign-in %d could not be refreshed: %s", self._held.pk, type(error).__name__)
            raise _later() from None

    async def _renew_alone(self, refused: str, send: httpx.AsyncBaseTransport) -> None:
        """Renew while no other worker does. Raises PlanRefused, django.db.Error."""
        until = time.monotonic() + store.LEASE_SECONDS
        while not (owner := await _in_thread(store.take_lease, self._held.pk)):
            if time.monotonic() > until:
                raise _later()
            await asyncio.sleep(_PAUSE)
        try:
            held = await _in_thread(store.read_held, self._held.pk)
            if held is None:
                raise signed_out("missing")
            self._held = held
            self._check(held)
            if held.access != refused:
                return  # somebody has refreshed it meanwhile
            self._held = await self._asked(held, owner, send)
        finally:
            await _in_thread(store.end_lease, self._held.pk, owner)

    async def _asked(self, held: Held, owner: str, send: httpx.AsyncBaseTransport) -> Held:
        issuer = Issuer(place_of(held.shape.key), send)
        try:
            if not held.refresh:
                raise RefreshRefused("no refresh token", True)
            # What a process was given that died before it was stored: the token is spent that it was given for.
            tokens = await asyncio.to_thread(unstored.kept, held.pk, held.refresh)
            if tokens is None:
                async with asyncio.timeout(_ASK_SECONDS):
                    tokens = await issuer.refresh(held.refresh, held.client_id)
                await asyncio.to_thread(unstored.keep, held.pk, held.refresh, tokens)
        except TimeoutError:
            logger.warning("the ChatGPT sign-in %d could not be refreshed: the issuer is too slow", held.pk)
            raise _later() from None
        except RefreshRefused as refused:
            logger.warning("the ChatGPT sign-in %d could not be refreshed: %s", held.pk, refused.code)
            if refused.terminal:
                await _in_thread(store.save_expired, held.pk, owner)
                raise signed_out("refresh_failed") from None
            raise _later() from None
        stored = await _stored(held.pk, owner, tokens)
        await asyncio.to_thread(unstored.forget, held.pk)
        if stored is None:
            await _ended(held, tokens, issuer)
            raise signed_out("missing")
        self._check(stored)
        return stored


async def _stored(pk: int, owner: str, tokens: Tokens) -> Held | None:
    """Store what the issuer gave. Tried again while the lease holds: the token before it cannot be used any more.

    Raises django.db.Error.
    """
    until = time.monotonic() + _STORE_SECONDS
    while True:
        try:
            return await _in_thread(store.save_refreshed, pk, owner, tokens)
        except DatabaseFault:
            if time.monotonic() > until:
                logger.exception("the new tokens of the ChatGPT sign-in %d could not be stored", pk)
                raise
        await asyncio.sleep(_PAUSE)


async def _ended(held: Held, tokens: Tokens, issuer: Issuer) -> None:
    """Tell the issuer of the end of tokens that it gave while their owner signed out: it was told of those before."""
    now = await _in_thread(store.read_held, held.pk)
    if now is not None and now.state != SignInState.SIGNED_OUT:
        return  # signed in anew, which has tokens of its own
    try:
        await issuer.revoke(tokens.refresh, held.client_id)
    except LoginFailed as failed:
        logger.warning("the issuer could not be told of the end of the ChatGPT sign-in %d: %s", held.pk, failed)


async def finish(seconds: float) -> None:
    """Wait until the refreshes that run in this event loop have ended: what an issuer gives is lost otherwise."""
    loop = asyncio.get_running_loop()
    if running := [task for task in _running if task.get_loop() is loop]:
        _, left = await asyncio.wait(running, timeout=seconds)
        if left:
            logger.error("%d refreshes of ChatGPT sign-ins had not ended", len(left))


def _later() -> PlanRefused:
    return PlanRefused(PlanAuthError("refresh_failed", later=True), FailureClass.TRANSIENT)


async def _noted(pk: int, found: Json) -> None:
    try:
        await _in_thread(store.save_windows, pk, found)
    except Exception:  # the answer does not depend on it
        logger.warning("the usage windows of the ChatGPT sign-in %d could not be noted", pk, exc_info=True)


def _spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task: asyncio.Task[None] = asyncio.ensure_future(work)
    _running.add(task)
    task.add_done_callback(_end)
    return task


def _end(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # those who waited have it; they may have left


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that uses the database in a thread, which gives its connection back."""

    def call() -> T:
        try:
            with statement_timeout(limits.DATABASE_SECONDS):
                return function(*args, **kwargs)
        finally:
            connection.close()

    return await asyncio.to_thread(call)
