"""Work of users of whose rows somebody else has locked one: it waits apart, in its order, and nobody else's does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, Protocol

from relay.billing.ledger.pending import (
    PendingRecord,
    PendingReservation,
    PendingWork,
    reservation_of,
    scope_of,
    user_of,
)
from relay.billing.ledger.sql import LedgerSql, begin, rollback

logger: Final = logging.getLogger(__name__)

_FAILED_USERS: Final = 4  # in a row who have to wait, after which the others are not tried
_REFUSING_SECONDS: Final = 1.0  # after which new requests of a user are refused at once
_RESERVATION_SECONDS: Final = 5.0  # after which reservations are refused
_PAUSES: Final = (0.02, 0.5)  # seconds between looks whether rows are free, first and longest
_AT_ONCE: Final = 500  # users that are looked at together
_SHARE: Final = 10  # a try that may have to wait for a lock takes at most this part of the time


@dataclass(slots=True)
class _Waiting:
    """A user's work."""

    since: float
    works: list[PendingWork] = field(default_factory=list)
    alone: bool = False  # the row is none that `locked_users` looks at: only a try can tell
    retry_at: float = 0.0


class _Locked(Exception):
    """Somebody else has locked rows of a user for too long."""


class LockedUsers:
    """The users who wait, and their work. Times are `time.monotonic()`."""

    def __init__(self) -> None:
        self._users: dict[int, _Waiting] = {}
        self._retry_at = 0.0
        self._pause = _PAUSES[0]
        self.refused: frozenset[int] = frozenset()  # whose new requests are refused

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, user_id: int) -> bool:
        waiting = self._users.get(user_id)
        return waiting is not None and bool(waiting.works)

    @property
    def pending(self) -> int:
        return sum(len(waiting.works) for waiting in self._users.values())

    def hold(self, batch: Sequence[PendingWork]) -> list[PendingWork]:
        """Keep the work of users who wait. Returns the rest, with records that change no account."""
        if not self._users:
            return list(batch)
        rest = []
        for work in batch:
            user_id = user_of(work)
            if user_id not in self or (isinstance(work, PendingRecord) and not work.settlement and not work.rows):
                rest.append(work)
            else:
                self._users[user_id].works.append(work)
        return rest

    def add(self, user_id: int, works: Sequence[PendingWork], alone: bool = False) -> None:
        now = time.monotonic()
        if not self._users:
            self._pause = _PAUSES[0]
            self._retry_at = now + self._pause
        waiting = self._users.setdefault(user_id, _Waiting(now))
        waiting.works += works
        waiting.alone = alone
        waiting.retry_at = max(waiting.retry_at, now + _PAUSES[0])

    def overdue(self) -> list[PendingReservation]:
        """Take out the reservations that have waited long enough."""
        now, found = time.monotonic(), []
        for waiting in self._users.values():
            if now - waiting.since > _RESERVATION_SECONDS:
                found += [work for work in waiting.works if isinstance(work, PendingReservation)]
                waiting.works = [work for work in waiting.works if not isinstance(work, PendingReservation)]
        return found

    def looked_at(self) -> dict[int, list[PendingWork]]:
        """The users of whom it can be looked up whether their rows are free: some of them, others the next time."""
        users = [user_id for user_id, waiting in islice(self._users.items(), _AT_ONCE) if not waiting.alone]
        for user_id in users:
            self._users[user_id] = self._users.pop(user_id)
        return {user_id: self._users[user_id].works for user_id in users}

    def to_be_tried(self) -> int | None:
        """The user whose work is to be tried next, since nothing else can tell whether it can be written."""
        now = time.monotonic()
        due = [
            (waiting.retry_at, user_id)
            for user_id, waiting in self._users.items()
            if waiting.alone and waiting.retry_at <= now
        ]
        return min(due)[1] if due else None

    @property
    def seconds(self) -> float:
        """How long it is until the next round."""
        return max(0.0, self._retry_at - time.monotonic())

    def take_all(self) -> list[PendingWork]:
        found = self.take(self._users)
        self.plan()
        return found

    def take(self, users: Iterable[int]) -> list[PendingWork]:
        """Take the work of users to write it. What cannot be written is added again."""
        found: list[PendingWork] = []
        for user_id in users:
            waiting = self._users[user_id]
            found += waiting.works
            waiting.works = []
        return found

    def tried(self, user_id: int, seconds: float) -> None:
        """A try has taken so long."""
        if user_id in self._users:
            self._users[user_id].retry_at = time.monotonic() + max(_PAUSES[1], _SHARE * seconds)

    def plan(self) -> None:
        """At the end of a round: forget who no longer waits, and set the time of the next."""
        now = time.monotonic()
        before = len(self._users)
        self._users = {user_id: waiting for user_id, waiting in self._users.items() if waiting.works}
        self._pause = _PAUSES[0] if len(self._users) < before else min(2 * self._pause, _PAUSES[1])
        self._retry_at = now + self._pause
        self.refused = frozenset(
            user_id for user_id, waiting in self._users.items() if now - waiting.since > _REFUSING_SECONDS
        )


class Transactions(Protocol):
    """Those of the writer."""

    def parts(self, batch: Sequence[PendingWork]) -> list[list[PendingWork]]: ...
    def locked(self, batch: Iterable[PendingWork]) -> set[int]: ...


class LockedWork:
    """Keeps what belongs to users of whom somebody has locked a row, and writes it when that is over.

    Used in the writer's thread, but for `refuses`.
    """

    def __init__(
        self,
        commits: Transactions,
        write: Callable[[Sequence[PendingWork]], None],
        finish: Callable[[Sequence[PendingWork], BaseException | None], None],
    ) -> None:
        self._commits, self._write, self._finish = commits, write, finish
        self._users = LockedUsers()
        self._again = False  # a batch is being tried for the second time

    def __len__(self) -> int:
        return len(self._users)

    @property
    def pending(self) -> int:
        """How many pieces of work wait."""
        return self._users.pending if self._users else 0

    @property
    def seconds(self) -> float:
        """How long it is until `retry` does something."""
        return self._users.seconds

    def refuses(self, user_id: int) -> bool:
        """Whether new requests of a user are refused."""
        return user_id in self._users.refused

    def hold(self, batch: Sequence[PendingWork]) -> list[PendingWork]:
        """Keep the work of users who wait. Returns the rest."""
        return self._users.hold(batch)

    def put(self, work: PendingWork) -> None:
        """Keep work until its user's turn comes."""
        self._users.add(user_of(work), [work], alone=True)

    def without_locked(self, batch: Sequence[PendingWork]) -> list[PendingWork]:
        """The same, of users as well of whom a row is locked now: whoever has locked one may go on to others."""
        rest = self._users.hold(batch)
        return self._without(self._commits.locked(rest), rest) if self._users else rest

    def separate(self, batch: Sequence[PendingWork]) -> bool:
        """Write a batch that has waited too long for a lock, without the work of those whose rows are locked.

        Returns False where everybody's seem to be.
        """
        locked = self._commits.locked(batch)
        if locked:
            rest = self._without(locked, batch)
            if rest:
                self._write(rest)
            return True
        users = _by_user(batch)
        if len(users) == 1:
            self._users.add(*users.popitem(), alone=True)
            return True
        if not self._again:  # as a rule the lock has been given up meanwhile
            self._again = True
            try:
                self._write(batch)
            finally:
                self._again = False
            return True
        failed = 0
        for user_id, works in users.items():
            if failed < _FAILED_USERS:
                self._write(works)
                failed = failed + 1 if user_id in self._users else 0
            else:  # a table is locked, as by a migration
                self._users.add(user_id, works, alone=True)
        return failed < _FAILED_USERS

    def _without(self, locked: set[int], batch: Sequence[PendingWork]) -> list[PendingWork]:
        for user_id, works in _by_user(batch).items() if locked else ():
            if user_id in locked:
                self._users.add(user_id, works)
        return [work for work in batch if user_of(work) not in locked]

    def retry(self) -> None:
        """Write what waited for locks that have been given up, when it is time to look."""
        users = self._users
        if not users or users.seconds > 0:
            return
        self._finish(users.overdue(), _Locked())
        looked_at = users.looked_at()
        locked = self._commits.locked(chain.from_iterable(looked_at.values())) if looked_at else set()
        self._write_taken([user_id for user_id in looked_at if user_id not in locked])
        tried = users.to_be_tried()
        if tried is not None:
            started = time.monotonic()
            self._write_taken([tried])
            users.tried(tried, time.monotonic() - started)
        users.plan()

    def _write_taken(self, users: Sequence[int]) -> None:
        for part in self._commits.parts(self._users.take(users)):
            rest = self._users.hold(part)
            if rest:
                self._write(rest)

    def end(self, seconds: float) -> None:
        """At the end of the thread: wait so long for locks, then give up."""
        until = time.monotonic() + seconds
        while self._users and time.monotonic() < until:
            time.sleep(self.seconds)
            self.retry()
        if self._users:
            lost = self._users.take_all()
            logger.error("%d usage records and so on cannot be written: their users' rows are locked", len(lost))
            self._finish(lost, _Locked())


def _by_user(batch: Sequence[PendingWork]) -> dict[int, list[PendingWork]]:
    found: dict[int, list[PendingWork]] = {}
    for work in batch:
        found.setdefault(user_of(work), []).append(work)
    return found


def locked_users(db: LedgerSql, batch: Iterable[PendingWork]) -> set[int]:
    """The users of a batch of whose accounts or reservations somebody else has locked one.

    Rows of other tables are not looked at. Raises DatabaseError.
    """
    works = list(batch)
    scopes = {scope for work in works if (scope := scope_of(work)) is not None}
    if not db.skips_locked or not scopes:
        return set()
    users, tokens = sorted({scope.user_id for scope in scopes}), sorted({scope.token_id for scope in scopes})
    reservations = sorted({key for work in works if (key := reservation_of(work))})
    accounts = (
        f"SELECT id, user_id FROM relay_ledgeraccount{db.of_user} WHERE user_id IN ({_placeholders(users)}) "  # noqa: S608
        f"AND (token_id IS NULL OR token_id IN ({_placeholders(tokens)})) AND last_day >= %s"
    )
    begin(db)
    try:
        found = _locked(db, accounts, (*users, *tokens, min(scope.day for scope in scopes)))
        if reservations:
            ids = _placeholders(reservations)
            found |= _locked(db, f"SELECT id, user_id FROM relay_reservation WHERE id IN ({ids})", reservations)  # noqa: S608
    finally:
        rollback(db)
    return found


def _locked(db: LedgerSql, select: str, values: Sequence[object]) -> set[int]:
    """The users of rows of (id, user) that somebody else has locked."""
    there = db.run(select, values).fetchall()
    free = {row[0] for row in db.run(f"{select} FOR UPDATE SKIP LOCKED", values).fetchall()}
    return {user_id for key, user_id in there if key not in free}


def _placeholders(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))
