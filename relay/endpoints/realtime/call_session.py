"""The session of a call (WebRTC) as it is metered here: what its sideband tells is counted, charged and limited.

What the client says goes to the upstream directly. Its sound takes as long as it lasts, so that the clock tells how
much input the next response can have; its events are known by what the upstream says of them.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

import aiohttp

from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.endpoints.realtime.call_upstream import CallConnection, hang_up_call, sent_session
from relay.endpoints.realtime.connection import Handshake
from relay.endpoints.realtime.session import RealtimeSession
from relay.errors import RelayError
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.runtime import Runtime
from relay.protocols.realtime import faults
from relay.protocols.realtime.events import SESSIONS
from relay.storage.realtime.calls import Standing

_ADDED: Final = frozenset(("conversation.item.added", "conversation.item.created"))
_MARKS: Final = ('"conversation.item.', '"session.', '"transcription_session.')


class CallSession(RealtimeSession):
    """A running call."""

    def __init__(self, exchange: Handshake, run: Runtime, connection: CallConnection, call_id: str) -> None:
        """`call_id`: by which its client knows it."""
        super().__init__(exchange, run, connection, _to_nobody)
        self.call_id, self.upstream_id = call_id, connection.upstream_id
        self.responses.conversation.buffer.direct = True
        self.lost = False  # another worker has it
        self.stored = Standing()  # what the database has
        self._listened_at = time.monotonic()

    async def meter(self) -> bool:
        """Count what happens until the call ends, and hang it up. Returns whether it is over at the upstream."""
        over = False
        try:
            await self.relay_to_client()
        finally:
            if not self.lost:
                over = await hang_up_call(self.run, self.candidate, self.upstream_id, self.model)
        return over

    def give_up(self, error: RelayError) -> None:
        """End the call, at its next step."""
        self._refusal = error
        self.exchange.end(Interrupt.SPENT)  # not while a record is being written

    def standing(self) -> Standing:
        """What has been counted and not been charged."""
        responses = self.responses
        ids = responses.running()
        return Standing(ids, responses.running_input, round(responses.units)) if ids else Standing()

    async def _configure(self, session: Json) -> None:
        """Count the session that the call was made with."""
        session = sent_session(self.exchange, self.models)
        self.responses.conversation.sent({"session": session})
        self.responses.transcriptions.speech.configured(session, asked=True)

    async def _event(self, text: str) -> None:
        now = time.monotonic()
        elapsed, self._listened_at = now - self._listened_at, now
        self.responses.transcriptions.speech.appended(elapsed)
        if any(mark in text for mark in _MARKS):
            await self._observe(decode_object(text) or {})
        await super()._event(text)

    def _closed(self, code: int, reason: str) -> tuple[int, str]:
        if faults.is_normal_end(code):  # its client, or its owner, has hung up
            self.exchange.left = self.responses.transcriptions.silent = True
            return code, ""
        return super()._closed(code, reason)

    async def _observe(self, event: Json) -> None:
        """Take over what the upstream says has been added or configured. Raises Forbidden."""
        kind = text_of(event, "type")
        if kind in _ADDED:
            self.responses.conversation.added(event)
        elif kind in SESSIONS:
            self.responses.conversation.added(event)
            undo = self.models.check_seen(object_of(event, "session"))
            if undo is not None:
                with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # that it is closed is told in a moment
                    await self.socket.send_str(encode(undo).decode())


async def _to_nobody(_: str | bytes) -> None:
    """The client has its own connection to the upstream."""
