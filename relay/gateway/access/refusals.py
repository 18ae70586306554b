"""Records requests of known tokens that are refused before routing, which have no usage record.

They are collected in memory and written about twice a second. A token, or a user, that is refused more often than a
person reads gets single rows for the first of a minute; the others are counted by token and error in one row each.
"""

from __future__ import annotations

import time
from typing import Final

from portal.lib.redaction.redact import redact
from relay.errors import RelayError, RequestNotFound
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.cache import snapshot_cache
from relay.usage.refusals import Refusal, write

PER_TOKEN: Final = 20  # single rows of a token in a minute, in each worker
PER_USER: Final = 60  # single rows of a user in a minute, in each worker
WAITING: Final = 5_000  # rows that may wait for the database; more are not recorded


class Refusals:
    """The refused requests of this worker that have not been written yet. Belongs to one event loop."""

    def __init__(self, keep_days: int) -> None:
        """`keep_days`: 0 records none."""
        self.statuses: dict[int, int] = {}  # how many requests were refused with a status, whoever sent them
        self._off = keep_days == 0
        self._minute = 0
        self._counts: dict[tuple[str, int], int] = {}  # single rows of this minute, by token and by user
        self._repeated: dict[tuple[int, str], Refusal] = {}  # counted only, by token and error code
        self._rows: list[Refusal] = []

    def add(self, exchange: Exchange, error: RelayError, endpoint: str) -> None:
        """Record that a request was answered with an error, if its token is known and it has no usage record.

        Not that a receipt was looked up which is not there: that is no use of the portal, and receipts are written a
        moment after their requests.

        `endpoint`: method and path.
        """
        caller = exchange.caller
        if not exchange.recorded:
            self.statuses[error.http_status] = self.statuses.get(error.http_status, 0) + 1
        if (
            caller is None
            or not caller.token_id
            or exchange.recorded
            or self._off
            or isinstance(error, RequestNotFound)
        ):
            return
        self._close_minute()
        refusal = Refusal(
            request_id=exchange.request_id,
            client_request_id=_line(exchange.client.request_id, 64),
            started_at=exchange.wall,
            user_id=caller.user_id,
            token_id=caller.token_id,
            model=_line(exchange.model_asked or exchange.model_in_path, 120),
            endpoint=_line(endpoint, 120),
            status=error.http_status,
            error_code=_line(error.public_code or "", 64),
            error_param=_line(error.param or "", 64),
            error_message=_line(error.message, 300),
            client_ip=exchange.ip[:45],
        )
        token, user = ("token", caller.token_id), ("user", caller.user_id)
        single = self._counts.get(token, 0) < PER_TOKEN and self._counts.get(user, 0) < PER_USER
        if single and len(self._rows) < WAITING:
            self._counts[token] = self._counts.get(token, 0) + 1
            self._counts[user] = self._counts.get(user, 0) + 1
            self._rows.append(refusal)
            return
        key = (caller.token_id, refusal.error_code)
        before = self._repeated.get(key)
        if before is not None:
            before.requests += 1
        elif len(self._repeated) < WAITING:
            self._repeated[key] = refusal

    def _close_minute(self) -> None:
        """At the end of a minute, the requests that were only counted become rows."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._rows += list(self._repeated.values())[: max(0, WAITING - len(self._rows))]
            self._minute, self._counts, self._repeated = minute, {}, {}

    async def flush(self, final: bool = False) -> None:
        """Write what waits. `final`: the worker stops. Raises RelayUnavailable."""
        self._close_minute()
        if final:
            self._rows += self._repeated.values()
            self._repeated = {}
        rows = self._rows
        if not rows:
            return
        self._rows = []
        try:
            await snapshot_cache.in_thread(write, rows)
        except BaseException:
            self._rows = rows + self._rows  # the next round tries again
            raise


def _line(text: str, length: int) -> str:
    """A text of a client for a column: one line, without secrets, which people send as names of models, too."""
    return redact("".join(one if one.isprintable() else " " for one in text[: length * 4]))[:length]
