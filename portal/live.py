"""Websockets of pages that update live: finished requests, running requests, states of channels.

Every round asks anew who is listening and what they may see: a socket ends with the session that opened it, and with
the permission.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final, TypeVar

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.db import Error as DatabaseError
from django.http import HttpRequest
from django.urls import path

from accounts.models import User
from accounts.preferences import Reader, reader_of
from accounts.rights import may
from portal import limits
from portal.admin.now import channels_now, running_now
from portal.pages.usage import newest_id, rows_after

T = TypeVar("T")

logger: Final = logging.getLogger(__name__)
# Of their own. All websockets, those of the API too, share the thread that channels takes otherwise.
_threads: Final = ThreadPoolExecutor(2, "airelays-live")
_TRY_AGAIN: Final = 1013  # code of the close frame when the portal cannot go on now; the page connects again
_VIEW_USAGE: Final = "relay.view_usagerecord"
_REQUEST_STATUS_EVERY: Final = 8  # rounds; workers publish their running requests for 15 seconds after a request


def listener(scope: Mapping[str, Any]) -> User | None:
    """Return the user of the session that opened a websocket, both read anew; None when it has ended.

    It has when the user signed out, was disabled or changed the password, and when it expired. Two queries.
    """
    opened: Any = scope.get("session")
    if opened is None or not opened.session_key:
        return None
    request = HttpRequest()
    request.session = _reopened(opened)
    user = get_user(request)
    return user if isinstance(user, User) and user.is_active else None


def _reopened(session: Any) -> SessionBase:
    store: type[SessionBase] = type(getattr(session, "_wrapped", session))
    return store(session.session_key)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function that uses the database. Raises DatabaseError, and TimeoutError when it takes too long."""
    async with asyncio.timeout(limits.QUERY_SECONDS):
        return await database_sync_to_async(function, thread_sensitive=False, executor=_threads)(*args)  # type: ignore[no-any-return]


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """Sends what `read` returns, once a round, for as long as the listener may see it."""

    refused: ClassVar[int] = 4403  # code of the close frame for those who may not see it, or not any more
    seconds: ClassVar[float] = 1.0  # of a round; costs a few indexed queries, and works without a broker
    task: asyncio.Task[None] | None = None
    rounds = 0

    def read(self, user: User) -> dict[str, Any] | None:
        """Return the message of this round, empty when there is none; None when the user may not see any.

        Runs in a thread.
        """
        raise NotImplementedError

    def begin(self) -> None:
        """Prepare the first round. Runs in a thread."""

    async def connect(self) -> None:
        await self.accept()  # type: ignore[no-untyped-call]
        self.task = asyncio.ensure_future(self._follow())

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()

    def _round(self) -> dict[str, Any] | None:
        user = listener(self.scope)
        return None if user is None else self.read(user)

    def _reader(self) -> Reader:
        return reader_of({**self.scope, "user": listener(self.scope) or AnonymousUser()})

    async def _follow(self) -> None:
        try:
            await self._rounds()
        except (DatabaseError, TimeoutError) as error:
            logger.error("a live page ends: the database does not answer: %s", error)
            await self.close(code=_TRY_AGAIN)  # type: ignore[no-untyped-call]

    async def _rounds(self) -> None:
        await in_thread(self.begin)
        reader = await in_thread(self._reader)
        while True:
            message = await in_thread(reader.render, self._round)
            if message is None:
                await self.close(code=self.refused)  # type: ignore[no-untyped-call]
                return
            if message:
                await self.send_json(message)  # type: ignore[no-untyped-call]
            self.rounds += 1
            await asyncio.sleep(self.seconds)


class UsageConsumer(LiveConsumer):
    """Sends `{"rows": [...]}` with usage records as they are written, from the time of connecting on.

    Users receive their own records; staff with the permission to view usage receive all on `/live/usage/all`.
    """

    refused = 4401
    last = 0  # id of the newest record that was sent

    async def connect(self) -> None:
        try:
            if await in_thread(listener, self.scope) is None:
                await self.close(code=self.refused)  # type: ignore[no-untyped-call]
                return
            await in_thread(self.begin)
        except (DatabaseError, TimeoutError) as error:
            logger.error("a live page cannot begin: the database does not answer: %s", error)
            await self.close(code=_TRY_AGAIN)  # type: ignore[no-untyped-call]
            return
        await super().connect()

    def begin(self) -> None:
        self.last = self.last or newest_id()

    def read(self, user: User) -> dict[str, Any] | None:
        everyone = self.scope["url_route"]["kwargs"]["whose"] == "all" and may(user, _VIEW_USAGE)
        rows = rows_after(self.last, user.pk, everyone)
        if everyone and rows and not may(User.objects.filter(pk=user.pk).first(), _VIEW_USAGE):
            rows = rows_after(self.last, user.pk, False)  # the right was taken while they were read
        if not rows:
            return {}
        self.last = rows[-1]["id"]
        return {"rows": rows}


class RunningConsumer(LiveConsumer):
    """Sends `{"workers": [...], "rows": [...]}`, the running requests, once a second to staff who may end requests."""

    def read(self, user: User) -> dict[str, Any] | None:
        found = running_now(user, self.rounds % _REQUEST_STATUS_EVERY == 0)
        return None if found is None else {"workers": found.workers, "rows": found.rows}


class ChannelsConsumer(LiveConsumer):
    """Sends `{"channels": [...]}` to staff who may view channels, at first and whenever a state has changed."""

    seconds = 2.0
    before: list[dict[str, Any]] | None = None

    def read(self, user: User) -> dict[str, Any] | None:
        found = channels_now(user)
        if found is None:
            return None
        if found == self.before:
            return {}
        self.before = found
        return {"channels": found}


live_router = URLRouter(
    [
        path("live/usage/<slug:whose>", UsageConsumer.as_asgi()),  # type: ignore[no-untyped-call]
        path("live/running", RunningConsumer.as_asgi()),  # type: ignore[no-untyped-call]
        path("live/channels", ChannelsConsumer.as_asgi()),  # type: ignore[no-untyped-call]
    ]
)
