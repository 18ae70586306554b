"""Which APIs upstreams lack, or keep from us. A 404 or 501, a redirect, or a 401 without an error object suggests it; a
second user's request or a probe of our own proves it.

A request that met such an answer goes to another API or channel, and so does nobody else's. What is proven holds for
minutes and for everybody; the table of cooldowns shares it with the other workers, and shows it to staff, who may end
it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

import httpx

from relay.gateway.snapshot.routes import Routes
from relay.gateway.snapshot.views import ChannelView, KeyView
from relay.providers.classify import Failure
from relay.providers.credentials.contract import SIGNER
from relay.providers.subject import REDIRECTS, says_missing
from relay.transport.body import post
from relay.transport.resolver import ConnectRefused

BELIEVED_SECONDS: Final = 600.0
_KEPT_SECONDS: Final = 60.0  # for which a redirect or a 401 is believed: the API is there, and may be let through soon
_SUSPECTED_SECONDS: Final = 600.0  # in which a second user's request counts
_PROBE_PAUSE: Final = 60.0  # seconds between two probes of an API
_PROBE_SECONDS: Final = 15.0  # that a probe may take
_PROBE_BYTES: Final = 64 * 1024  # of its answer that are read
# Answers to a probe that leave open what is there: to the key, limits, faults.
_TELLS_NOTHING: Final = frozenset((401, 402, 403, 407, 429, *range(500, 600)))


@dataclass(slots=True)
class Lesson:
    """That an upstream lacks an API, as far as it is known. Times are seconds since 1970."""

    url: str  # of the API; with another one, the lesson is void. Empty: that of the next request
    user: int  # whose request suggested it
    at: float
    detail: str  # what the upstream said
    until: float = 0.0  # for which it is believed; 0: only suspected
    probed: float = 0.0  # when a probe was last begun
    proof: str = ""  # what proves it
    seconds: float = BELIEVED_SECONDS  # for which proof is believed
    refuted: bool = False  # a probe of ours found the API


class MissingApis:
    """The lessons of one worker, by (channel, API). Used on the event loop only."""

    def __init__(self) -> None:
        self._lessons: dict[tuple[int, str], Lesson] = {}
        self._version = 0  # grows with every lesson
        self.changed: set[tuple[int, str]] = set()  # to be published to the other workers
        self.unproven: dict[tuple[int, str], tuple[ChannelView, KeyView]] = {}  # to be probed

    def serves(self, channel: ChannelView, api: str, now: float) -> bool:
        """Whether a channel serves an API: by its vendor and settings, unless its upstream is known to lack it."""
        url = channel.urls.get(api)
        if url is None or not self._lessons:
            return url is not None
        lesson = self._lessons.get((channel.id, api))
        if lesson is None or now >= lesson.until:
            return True
        lesson.url = lesson.url or str(url)
        return lesson.url != str(url)

    def kinds(self, routes: Routes, now: float) -> tuple[int, dict[Hashable, list[int]]]:
        """The numbers of the routes whose channels can serve the same requests, as far as anybody can tell now.

        Before them the version of what is known, 0 while nothing is.
        """
        if not self._lessons:
            return 0, routes.kinds
        return self._version, routes.regrouped(self._version, self._lacks_by_channel(now))

    def _lacks_by_channel(self, now: float) -> Callable[[], dict[int, frozenset[str]]]:
        def found() -> dict[int, frozenset[str]]:
            lacks: dict[int, set[str]] = {}
            for (channel, api), lesson in self._lessons.items():
                if lesson.until > now:
                    lacks.setdefault(channel, set()).add(f"{api} {lesson.url}")
            return {channel: frozenset(apis) for channel, apis in lacks.items()}

        return found

    def get(self, place: tuple[int, str]) -> Lesson | None:
        """What is believed of a channel's API, None: nothing against it."""
        lesson = self._lessons.get(place)
        return lesson if lesson is not None and lesson.until else None

    def suspected(self, channel: ChannelView, key: KeyView, user: int, failure: Failure) -> None:
        """An answer to a user's request suggested that the upstream lacks the failure's API."""
        api = failure.api
        now, place, url = time.time(), (channel.id, api), str(channel.urls[api])
        seconds = _KEPT_SECONDS if failure.status in {401, *REDIRECTS} else BELIEVED_SECONDS
        lesson = self._lessons.get(place)
        if lesson is None or lesson.url != url or now - lesson.at > _SUSPECTED_SECONDS:
            if lesson is not None and lesson.until:
                self.changed.add(place)
            probed = lesson.probed if lesson is not None else 0.0
            lesson = self._lessons[place] = Lesson(url, user, now, failure.detail, probed=probed, seconds=seconds)
        elif lesson.until > now or lesson.refuted:
            return
        elif lesson.user != user:
            lesson.seconds = seconds
            self.proven(place, "requests of two users")
        # A websocket cannot be asked with a POST.
        if api != "realtime" and now - lesson.probed >= _PROBE_PAUSE:
            lesson.probed = now
            self.unproven[place] = channel, key
        self._version += 1

    def proven(self, place: tuple[int, str], proof: str) -> None:
        """It is proven that an upstream lacks an API."""
        lesson = self._lessons.get(place)
        if lesson is not None:
            lesson.at = time.time()
            lesson.until, lesson.proof = lesson.at + lesson.seconds, proof
            self.changed.add(place)
            self._version += 1

    def refuted(self, place: tuple[int, str]) -> None:
        """A probe of ours found the API: answers to requests about it are about the requests."""
        lesson = self._lessons.get(place)
        if lesson is not None:
            if lesson.until:
                self.changed.add(place)
            lesson.until, lesson.refuted = 0.0, True
            self._version += 1

    def take_unproven(self) -> dict[tuple[int, str], tuple[ChannelView, KeyView]]:
        """What is to be probed, once."""
        found, self.unproven = self.unproven, {}
        return found

    async def probe(self, transport: httpx.AsyncBaseTransport, channel: ChannelView, key: KeyView, api: str) -> None:
        """Ask an upstream whether it has an API, and learn from its answer."""
        status, lacks = await _ask(transport, channel, key, api)
        if lacks and status not in _TELLS_NOTHING:
            self.proven((channel.id, api), f"asked by the portal itself: HTTP {status}")
        elif status and status not in _TELLS_NOTHING:
            self.refuted((channel.id, api))

    def take_over(self, place: tuple[int, str], until: float, detail: str) -> None:
        """Another worker has proof."""
        self._lessons[place] = Lesson("", 0, time.time(), detail, until)
        self._version += 1

    def drop(self, place: tuple[int, str]) -> None:
        """A person has ended it."""
        self._lessons.pop(place, None)
        self._version += 1
        self.changed.discard(place)

    def forget(self, now: float) -> None:
        """Drop what is no longer believed or suspected."""
        for place, lesson in list(self._lessons.items()):
            if now >= max(lesson.until, lesson.at + _SUSPECTED_SECONDS):
                del self._lessons[place]
                self._version += 1
                if lesson.until:
                    self.changed.add(place)


async def _ask(transport: httpx.AsyncBaseTransport, channel: ChannelView, key: KeyView, api: str) -> tuple[int, bool]:
    """Send an empty object in place of a request: who has the API refuses it, free of charge.

    Returns the status of the answer, 0 without one, and whether it says that there is no such API.
    """
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            request = post(channel.urls[api], key.headers, b"{}", channel.timeouts.connect)
            request.extensions[SIGNER] = key.signer
            response = await transport.handle_async_request(request)
            body = b""
            try:
                async for piece in response.stream:  # type: ignore[union-attr]  # asynchronous: of this transport
                    body += piece
                    if len(body) >= _PROBE_BYTES:
                        break
            finally:
                await response.aclose()
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ConnectRefused, ValueError):
        return 0, False
    return response.status_code, says_missing(response.status_code, body)
