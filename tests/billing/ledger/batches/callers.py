"""Those whose requests the writer books, in tests of its batches."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from accounts.models import User
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.lines import Charge, Charged, Reserved, ReserveOrder, SpendScope
from relay.billing.ledger.pending import PendingRecord, PendingRelease, PendingReservation, PendingWork, Settlement
from relay.billing.ledger.rows import Moment, RowWrite, insert
from relay.billing.ledger.writer import UsageWriter
from relay.models import Reservation, StoredResponse, Token
from tests.support.money import usage_row
from tests.support.portal import Portal

NEED = 1000


class Caller:
    """A token, and a reservation of a worker for it."""

    def __init__(self, live: Portal, of: Caller | None = None) -> None:
        self.live = live
        self.user: User = of.user if of is not None else live.user(balance=NANO)
        secret = live.token(self.user)
        self.token = Token.objects.filter(user=self.user).latest("pk")
        assert secret
        self.scope = SpendScope(self.user.pk, self.token.pk, movements.today())
        self.reservation = live.name("r")[:32].ljust(32, "x")

    def reserve(self, need: int = NEED, headroom: int = 0, more: int = 0) -> PendingReservation:
        order = ReserveOrder(self.reservation, "host:1:2:x", self.scope, (), need, headroom, need, more)
        return PendingReservation(order, LOOP.create_future(), LOOP, _ignored)

    def record(
        self, cost: int, covered: int = NEED, house: bool = False, awaited: bool = False, **values: Any
    ) -> PendingRecord:
        request_id = self.live.name("req_")
        row = usage_row(
            request_id=request_id,
            started_at=time.time(),
            cost=cost,
            latency_ms=1,
            **{"status": 200, "user_id": self.user.pk, "token_id": self.token.pk, "attempt_log": "[]", **values},
        )
        charge = Charge(request_id, cost, covered, house, time.time())
        settlement = Settlement("" if house else self.reservation, self.scope, charge, _settled) if cost else None
        return PendingRecord(row, settlement, LOOP.create_future() if awaited else None, LOOP)

    def release(self, amount: int | None = None) -> PendingRelease:
        return PendingRelease(self.reservation, self.scope, amount)

    @property
    def held(self) -> int:
        return sum(Reservation.objects.filter(id=self.reservation).values_list("amount", flat=True))


def answer(user: Any, response_id: str) -> RowWrite:
    now, keys = Moment(time.time()), ("user_id", "response_id")
    empty = dict.fromkeys(("request_id", "previous_id", "conversation_id", "input", "owner", "upstream_id"), "")
    kept = {"model": "m", "status": "completed", "body": "{}", "upstream_keeps": False, **empty}
    moments = {"created_at": now, "expires_at": now}
    return insert(StoredResponse, keys, user_id=user.pk, response_id=response_id, **kept, **moments)


LOOP = asyncio.new_event_loop()


def _ignored(result: Reserved | None, wanted: bool) -> None:
    return None


def _settled(charged: Charged | None) -> None:
    return None


def write(writer: UsageWriter, *batch: PendingWork) -> None:
    for part in writer._commits.parts(batch):
        writer._write(part)
    LOOP.run_until_complete(asyncio.sleep(0))
