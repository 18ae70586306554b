"""What sends a request, as it says itself: its app, its own id of the request, the session that the request is of.

Ids of sessions are kept as keyed digests alone: in memory for routing, and in usage records. Costs about 2 µs for a
request without ids, and 10 µs with those of an agent and its session, most of it for the digests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from django.conf import settings

from portal.lib.crypto import keyed_digest
from relay.gateway.snapshot.callers import Caller
from relay.protocols.naming.client_apps import app_of
from relay.protocols.naming.sessions import NO_IDS, SessionIds, ids_in_headers


class Session(NamedTuple):
    """Digests of 64 bits, as numbers with a sign. Those of two tokens differ, whatever id their clients send."""

    key: int | None = None  # None: the request is of no session
    agent: int | None = None  # None: the session's main agent
    parent: int | None = None  # the agent that began it; None: the main agent

    @property
    def conversation(self) -> str:
        """What its requests have in common, for routing; empty without one."""
        return "" if self.key is None else f"session {self.key}"


NO_SESSION: Final = Session()


class Client:
    """What is known of the client of a request."""

    __slots__ = ("app", "ids", "request_id", "session")

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self.app = app_of(headers)  # its name; empty: not known
        self.request_id = headers.get(b"x-client-request-id", b"")[:64].decode("ascii", "replace")
        self.ids = ids_in_headers(headers)
        self.session = NO_SESSION  # known once the caller is
        if self.ids is not NO_IDS:
            self._hide_ids()

    def enter(self, caller: Caller, in_body: Callable[[], SessionIds] | None = None) -> None:
        """The caller's request is of the session that its headers name, or else its body, which is only asked then."""
        if in_body is not None and not self.ids.session and (found := in_body()) is not NO_IDS:
            self.ids = self.ids.over(found)
            self._hide_ids()
        if self.ids.session:
            self.session = session_of(caller, self.ids)

    def _hide_ids(self) -> None:
        """Codex sends the id of its thread as that of the request, too, which is kept as it was sent."""
        if self.request_id and any(self.request_id == one[:64] for one in self.ids):
            self.request_id = ""


def session_of(caller: Caller, ids: SessionIds) -> Session:
    """The session of a caller's request that has these ids."""
    agent = _digest(caller, ids.agent) if ids.agent else None
    parent = _digest(caller, ids.parent) if ids.agent and ids.parent else None
    return Session(_digest(caller, ids.session), agent, parent)


def _digest(caller: Caller, text: str) -> int:
    """Keyed, so that ids cannot be tried out on a copy of the database. Never 0."""
    named = b"session:%d:%d:%b" % (caller.user_id, caller.token_id, text.encode("utf-8", "replace"))
    found = int(keyed_digest(settings.TOKEN_KEY, named)[:16], 16) or 1
    return found - 2**64 if found >= 2**63 else found
