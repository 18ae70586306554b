"""Work that waits for the writer: usage records with what they cost, reservations, releases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from portal.services.timeouts import refusals
from relay.billing.ledger.lines import Charge, Charged, Reserved, ReserveOrder, SpendScope
from relay.billing.ledger.rows import RowWrite
from relay.errors import RelayUnavailable

# Columns of a usage record, in the order of UsageRow.
COLUMNS: Final = (
    "request_id", "client_request_id", "started_at", "user_id", "token_id", "channel_id", "api_key_id", "model",
    "upstream_model", "endpoint", "streamed", "status", "end_reason", "error_code", "error_message", "input_tokens",
    "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "audio_input_tokens",
    "audio_output_tokens", "image_input_tokens", "images", "milliseconds", "characters", "usage_source", "latency_ms",
    "first_token_ms", "attempts", "attempt_log", "client_ip", "price_id", "price_multiplier", "cost", "shortfall",
    "upstream_cost", "reserved", "payer", "billing", "cached_audio_input_tokens",
    "cache_write_1h_tokens", "session", "agent", "parent_agent", "app", "conversation", "searches",
)  # fmt: skip
STARTED_AT: Final = COLUMNS.index("started_at")
USER: Final = COLUMNS.index("user_id")
SHORTFALL: Final = COLUMNS.index("shortfall")
UsageRow = tuple[Any, ...]
_RETRY_AFTER: Final = 5.0  # seconds, where the database could not be written


class Settlement(msgspec.Struct):
    """The charge that is written together with a usage record."""

    reservation: str  # the reservation that is charged, empty when the request needs none
    scope: SpendScope
    charge: Charge
    on_settled: Callable[[Charged | None], None]  # called on the event loop; None: the charge could not be written


@dataclass(slots=True)
class PendingRecord:
    """A usage record to be written, with its charge."""

    row: UsageRow
    settlement: Settlement | None  # None: the request costs nothing
    future: asyncio.Future[None] | None  # done when the record is on disk; None: nothing waits for it
    loop: asyncio.AbstractEventLoop
    rows: Sequence[RowWrite] = ()  # written in the same transaction
    charged: Charged | None = None  # the outcome
    # The row that is written in its place, without charge and rows: its answer is not given. Set on the event loop,
    # taken over in the thread.
    withdrawn: UsageRow | None = None
    fixed: bool = False  # its COMMIT has been sent, so that it may be on disk
    rescues: int = 0  # how often the database was away while it was written otherwise, since it had been refused
    unsure: bool = False  # it is not known whether it was written: the connection was lost
    released: Settlement | None = None  # the settlement of a record that was withdrawn

    def take_over(self) -> None:
        """Make it what it is to be since it was withdrawn."""
        if self.withdrawn is not None and self.row is not self.withdrawn:
            self.row, self.rows, self.charged = self.withdrawn, (), None
            self.settlement, self.released = None, self.settlement

    def resolve(self, error: BaseException | None, told: str) -> None:
        """Say what became of it, on the event loop. `told`: what who waits for it is told in the place of `error`."""
        if self.settlement is not None:
            self.settlement.on_settled(self.charged if error is None else None)
        elif self.released is not None:
            self.released.on_settled(Charged(0, 0))
        if self.future is not None and not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                refusals.add()
                self.future.set_exception(RelayUnavailable(told, retry_after=_RETRY_AFTER))


class RecordCounter(Protocol):
    """Counts records as they are committed, in the writer's thread. Raises nothing."""

    def begin(self, records: Sequence[PendingRecord]) -> None:
        """These are about to be committed."""

    def written(self, records: Sequence[PendingRecord]) -> None:
        """They are on disk; they are those that were to be committed last."""


class Withdrawn(Exception):
    """A record was withdrawn while its transaction ran."""


@dataclass(slots=True)
class PendingReservation:
    """A reservation to be made or to grow."""

    order: ReserveOrder
    future: asyncio.Future[Reserved]
    loop: asyncio.AbstractEventLoop
    on_reserved: Callable[[Reserved | None, bool], None]
    result: Reserved | None = None

    def resolve(self, error: BaseException | None, told: str) -> None:
        """The same of a reservation."""
        result = self.result if error is None else None
        wanted = not self.future.done()
        self.on_reserved(result, wanted)
        if wanted and result is not None:
            self.future.set_result(result)
        elif wanted:
            refusals.add()
            self.future.set_exception(RelayUnavailable(told, retry_after=_RETRY_AFTER))


@dataclass(slots=True)
class PendingRelease:
    """A reservation to be released."""

    reservation: str
    scope: SpendScope
    amount: int | None  # nano-USD; None: all of it, which ends it


@dataclass(slots=True)
class PendingProlongation:
    """The reservations of a worker, to be extended."""

    owner: str


PendingWork = PendingRecord | PendingReservation | PendingRelease | PendingProlongation


def scope_of(work: PendingWork) -> SpendScope | None:
    """Whose accounts work changes; None: nobody's."""
    if isinstance(work, PendingRecord):
        return work.settlement.scope if work.settlement is not None else None
    if isinstance(work, PendingReservation):
        return work.order.scope
    return work.scope if isinstance(work, PendingRelease) else None


def reservation_of(work: PendingWork) -> str:
    """The id of the reservation that work changes; empty: none."""
    if isinstance(work, PendingRecord):
        return work.settlement.reservation if work.settlement is not None else ""
    if isinstance(work, PendingReservation):
        return work.order.reservation
    return work.reservation if isinstance(work, PendingRelease) else ""


def user_of(work: PendingWork) -> int:
    """The id of the user whom work is for; 0: nobody."""
    scope = scope_of(work)
    if scope is not None:
        return scope.user_id
    return (work.row[USER] or 0) if isinstance(work, PendingRecord) else 0


@dataclass(slots=True)
class UserBatch:
    """The part of a batch that concerns one user."""

    settlements: dict[tuple[str, SpendScope], list[PendingRecord]] = field(default_factory=dict)
    releases: list[PendingRelease] = field(default_factory=list)
    reserves: list[PendingReservation] = field(default_factory=list)


def work_by_user(batch: Iterable[PendingWork], records: Iterable[PendingRecord]) -> dict[int, UserBatch]:
    users: dict[int, UserBatch] = {}
    for record in records:
        if record.settlement is not None:
            settlement = record.settlement
            user_batch = users.get(settlement.scope.user_id) or users.setdefault(settlement.scope.user_id, UserBatch())
            user_batch.settlements.setdefault((settlement.reservation, settlement.scope), []).append(record)
    for work in batch:
        if isinstance(work, PendingRelease):
            users.setdefault(work.scope.user_id, UserBatch()).releases.append(work)
        elif isinstance(work, PendingReservation):
            users.setdefault(work.order.scope.user_id, UserBatch()).reserves.append(work)
    return users


def with_shortfall(record: PendingRecord) -> UsageRow:
    if record.charged is None or not record.charged.shortfall:
        return record.row
    return (*record.row[:SHORTFALL], record.charged.shortfall, *record.row[SHORTFALL + 1 :])
