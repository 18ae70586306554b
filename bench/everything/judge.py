"""Compares what clients saw, what upstreams counted, what was recorded and what was paid, request by request."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.everything.chaos import Event
from bench.everything.clients import Seen
from bench.everything.tariff import TARIFFS
from bench.everything.upstreams.counting import Attempt

_BATCH_HALF: Final = 2  # BATCH_SHARE, as a divisor
_UNPAID_KINDS: Final = {"files", "batch"}
_SLACK_SHARE, _SLACK_TOKENS = 0.3, 30  # by which an unfinished answer may be estimated otherwise than it was counted
_BROKEN: Final = 3.0  # seconds after a kill in which clients notice it
_COLUMNS: Final = (
    "request_id", "client_request_id", "model", "endpoint", "status", "end_reason", "error_code", "usage_source",
    "cost", "shortfall", "billing", "attempts", "user_id", "extract(epoch from started_at)::float8", "latency_ms",
)  # fmt: skip
RECORDS_SQL: Final = f"SELECT {', '.join(_COLUMNS)} FROM relay_usagerecord"  # noqa: S608  # names above
PAID_SQL: Final = (
    "SELECT request_id, sum(amount) FILTER (WHERE kind = 'usage'), sum(amount) FILTER (WHERE kind = 'shortfall'), "
    "count(*) FROM relay_ledgerentry WHERE kind IN ('usage', 'shortfall') GROUP BY request_id"
)
WALLETS_SQL: Final = "SELECT user_id, used FROM relay_ledgeraccount WHERE kind = 'wallet'"


@dataclass
class Kept:
    """A usage record."""

    request_id: str
    tag: str
    model: str
    endpoint: str
    status: int
    end_reason: str
    error_code: str
    usage_source: str
    cost: int
    shortfall: int
    billing: str
    attempts: int
    user_id: int
    at: float
    milliseconds: int


@dataclass
class Mismatch:
    request_id: str
    tag: str
    what: str

    def __str__(self) -> str:
        return f"{self.request_id or '(no id)'} {self.tag}: {self.what}"


@dataclass
class Money:
    """The comparison. Amounts in nano-USD."""

    mismatches: list[Mismatch] = field(default_factory=list)
    counted: int = 0  # whole answers, by the upstreams
    paid: int = 0
    exact: int = 0  # records that cost what the upstream counted, to the nano-USD
    estimated: int = 0  # of unfinished answers
    estimated_counted: int = 0
    estimated_paid: int = 0
    unbilled: Counter[str] = field(default_factory=Counter)  # whole answers of upstreams without a charge, by why
    unbilled_counted: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # charged, and the client was told that it failed


def attempts_of(file: Path) -> list[Attempt]:
    return [Attempt(**json.loads(line)) for line in file.read_text().splitlines() if line.endswith("}")]


def cost_of(attempt: Attempt) -> int:
    tariff = TARIFFS.get(attempt.model)
    return tariff.cost(attempt.counted) if tariff is not None else 0


class Judge:
    """Judges the money of all requests."""

    def __init__(
        self, seen: Sequence[Seen], attempts: Iterable[Attempt], events: Sequence[Event], query: Callable[[str], Any]
    ) -> None:
        self.seen, self.events = seen, events
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in sorted(attempts, key=lambda one: one.at):
            self.attempts[attempt.tag].append(attempt)
        self._records = [Kept(*row) for row in query(RECORDS_SQL)]
        self._by_tag: dict[str, list[Kept]] = defaultdict(list)
        for record in self._records:
            self._by_tag[record.tag].append(record)
        self._by_id = {record.request_id: record for record in self._records}
        self._paid = {row[0]: (int(row[1] or 0), int(row[2] or 0), int(row[3])) for row in query(PAID_SQL)}
        self._wallets = {int(row[0]): int(row[1]) for row in query(WALLETS_SQL)}
        self.money = Money()

    def killed(self, began: float, ended: float) -> bool:
        return any(event.what == "kill" and event.touches(began, ended, 0.5, 1.0) for event in self.events)

    def broke(self, seen: Seen) -> bool:
        """Whether the client's connection broke when a worker was killed."""
        broken = seen.how in {"broken", "failed", "left"}
        return broken and any(e.what == "kill" and -1.0 <= seen.ended - e.at <= _BROKEN for e in self.events)

    def judge(self) -> Money:
        for seen in self.seen:
            if seen.kind == "batchline":
                self._line(seen)
            elif seen.kind == "realtime":
                self._session(seen)
            elif seen.kind not in _UNPAID_KINDS:
                self._request(seen)
        self._strangers()
        self._ledger()
        return self.money

    def _wrong(self, request_id: str, tag: str, what: str) -> None:
        self.money.mismatches.append(Mismatch(request_id, tag, what))

    # -- requests ----------------------------------------------------------------------------------------------------

    def _request(self, seen: Seen) -> None:
        records, attempts = self._by_tag.get(seen.tag, []), self.attempts.get(seen.tag, [])
        whole = [attempt for attempt in attempts if attempt.end == "whole"]
        if len(records) > 1:
            self._wrong(records[1].request_id, seen.tag, f"{len(records)} records of one request")
            return
        record = records[0] if records else None
        if record is None:
            if seen.how == "whole":
                self._wrong(seen.request_id, seen.tag, "the client has the whole answer, and there is no record")
            elif whole:
                self._not_billed(seen, whole)
            return
        if seen.request_id and record.request_id != seen.request_id:
            self._wrong(record.request_id, seen.tag, f"the client was told {seen.request_id}")
        if seen.how == "whole":
            self._whole(record, seen, whole, 1)
        elif whole and record.end_reason in {"completed", "client_gone"}:
            if seen.how == "status":
                self.money.refused[f"{seen.status} {seen.code}"] += 1
            self._exactly(record, whole, 1)
        else:
            self._unfinished(record, seen, attempts)

    def _whole(self, record: Kept, seen: Seen, whole: list[Attempt], share: int) -> None:
        if not whole:
            self._wrong(record.request_id, seen.tag, "the client has a whole answer that no upstream made")
            return
        if record.end_reason != "completed" or record.status != 200:
            what = f"the client has the whole answer, the record says {record.end_reason} {record.status}"
            self._wrong(record.request_id, seen.tag, what)
        if seen.got and seen.got not in {attempt.sent for attempt in whole}:
            what = f"the client has {seen.got} characters, the upstream sent {whole[-1].sent}"
            self._wrong(record.request_id, seen.tag, what)
        self._exactly(record, whole, share)

    def _exactly(self, record: Kept, whole: list[Attempt], share: int) -> None:
        counted = cost_of(whole[-1]) // share
        self.money.counted += counted
        self.money.paid += record.cost
        if record.cost not in {cost_of(attempt) // share for attempt in whole}:
            what = f"{record.cost} was charged, the upstream counted {counted} ({record.usage_source})"
            self._wrong(record.request_id, whole[-1].tag, what)
        else:
            self.money.exact += 1

    def _unfinished(self, record: Kept, seen: Seen, attempts: list[Attempt]) -> None:
        """An answer that broke off is charged by what was made of it; a refusal costs nothing."""
        if not record.cost:
            whole = [attempt for attempt in attempts if attempt.end == "whole"]
            if whole:
                self._not_billed(seen, whole, record)
            return
        if seen.how == "status" or not attempts:
            what = f"{record.cost} was charged, the client got {seen.how} {seen.status} {seen.code}"
            self._wrong(record.request_id, seen.tag, what)
            return
        made = cost_of(attempts[-1])
        tariff = TARIFFS[record.model]
        slack = made * _SLACK_SHARE + _SLACK_TOKENS * (tariff.output + tariff.input)
        self.money.estimated += 1
        self.money.estimated_counted += made
        self.money.estimated_paid += record.cost
        if abs(record.cost - made) > slack:
            what = f"{record.cost} was charged for an unfinished answer, the upstream had counted {made}"
            self._wrong(record.request_id, seen.tag, what)

    def _not_billed(self, seen: Seen, whole: list[Attempt], record: Kept | None = None) -> None:
        """An upstream made an answer that nobody paid for: right where its worker was killed."""
        last = whole[-1]
        ended = last.at + last.seconds
        if self.killed(last.at, ended + (20 if self._away(last) else 1)) or self.broke(seen):
            self.money.unbilled["its worker was killed"] += 1
            self.money.unbilled_counted += cost_of(last)
            return
        known = f"a record of {record.end_reason} {record.status} {record.error_code}" if record else "no record"
        what = f"the upstream made a whole answer for {cost_of(last)}, and there is {known}; the client: {seen.how}"
        self._wrong(record.request_id if record else seen.request_id, seen.tag, f"{what} {seen.status} {seen.code}")

    # -- batches and sessions ----------------------------------------------------------------------------------------

    def _line(self, seen: Seen) -> None:
        """One line has one record that is charged; others of it failed, or died with their worker."""
        whole = [attempt for attempt in self.attempts.get(seen.tag, []) if attempt.end == "whole"]
        record = self._by_id.get(seen.request_id)
        if seen.how != "whole":
            if record is not None and record.cost:
                self._wrong(
                    record.request_id, seen.tag, f"{record.cost} was charged, the line is {seen.how} {seen.code}"
                )
            return
        if record is None:
            self._wrong(seen.request_id, seen.tag, "the line has its answer, and there is no record")
            return
        record.tag = seen.tag
        self._whole(record, seen, whole, _BATCH_HALF)
        for attempt in whole[:-1]:
            if not self.killed(attempt.at, attempt.at + attempt.seconds + 15) and not self._away(attempt):
                what = f"the upstream made it {len(whole)} times without a kill between"
                self._wrong(record.request_id, seen.tag, what)
                return

    def _away(self, attempt: Attempt) -> bool:
        ended = attempt.at + attempt.seconds
        return any(e.what == "postgresql" and e.touches(attempt.at, ended, 1.0, 5.0) for e in self.events)

    def _session(self, seen: Seen) -> None:
        """Each response and transcription of a session that its upstream finished has a record of that cost."""
        attempts = self.attempts.get(seen.tag, [])
        records = [record for record in self._by_tag.get(seen.tag, []) if record.cost]
        left = Counter((record.model, record.cost) for record in records)
        ids = {(record.model, record.cost): record.request_id for record in records}
        answered = sum(record.model == "talk" for record in records)
        if answered < seen.done:
            self._wrong("", seen.tag, f"the client has {seen.done} whole responses, {answered} were charged")
        for attempt in attempts:
            found = (attempt.model, cost_of(attempt))
            if attempt.end != "whole":
                continue
            if left[found]:
                left[found] -= 1
                self.money.exact += 1
                self.money.counted += found[1]
                self.money.paid += found[1]
            elif found[1] and not self._session_unbilled(seen, attempt, found[1]):
                costs = sorted((record.model, record.cost) for record in records)
                self._wrong("", seen.tag, f"the upstream counted {found} ({attempt.status}), the records have {costs}")
        unfinished = [attempt for attempt in attempts if attempt.end != "whole"]
        for (model, cost), number in left.items():
            for _ in range(number):
                made = [attempt for attempt in unfinished if attempt.model == model]
                if not made:
                    what = f"{cost} was charged for {model}, which the upstream did not count"
                    self._wrong(ids[model, cost], seen.tag, what)
                    continue
                unfinished.remove(made[0])
                counted = cost_of(made[0])
                self.money.estimated += 1
                self.money.estimated_counted += counted
                self.money.estimated_paid += cost
                tariff = TARIFFS[model]
                slack = counted * _SLACK_SHARE + _SLACK_TOKENS * (tariff.output + tariff.input) + tariff.second
                if abs(cost - counted) > slack:
                    what = f"{cost} was charged for an unfinished {model}, the upstream had counted {counted}"
                    self._wrong(ids[model, cost], seen.tag, what)

    def _session_unbilled(self, seen: Seen, attempt: Attempt, cost: int) -> bool:
        if not self.killed(attempt.at, max(seen.ended, attempt.at + attempt.seconds) + 2):
            return False
        self.money.unbilled["its worker was killed"] += 1
        self.money.unbilled_counted += cost
        return True

    # -- the whole ---------------------------------------------------------------------------------------------------

    def _strangers(self) -> None:
        """Nothing is charged that no client asked for."""
        known = {seen.tag for seen in self.seen}
        for record in self._records:
            if record.cost and record.tag not in known:
                where = f"{record.endpoint} {record.end_reason}"
                self._wrong(record.request_id, record.tag, f"{record.cost} was charged, no client has it ({where})")

    def _ledger(self) -> None:
        """The ledger has an entry of the cost of each record, the wallets the sums of them."""
        used: Counter[int] = Counter()
        for record in self._records:
            paid, shortfall, entries = self._paid.pop(record.request_id, (0, 0, 0))
            used[record.user_id] += paid
            if paid + shortfall != record.cost or shortfall != record.shortfall or entries > 1:
                what = f"the record costs {record.cost}, the ledger has {paid} + {shortfall} in {entries} entries"
                self._wrong(record.request_id, record.tag, what)
            if record.shortfall:
                self._wrong(record.request_id, record.tag, f"{record.shortfall} was not covered, of a full wallet")
        for request_id, (paid, _, _) in self._paid.items():
            self._wrong(request_id, "", f"the ledger has {paid} of a request without a record")
        for user, sum_ in self._wallets.items():
            if sum_ != used[user]:
                self._wrong("", f"user {user}", f"the wallet has used {sum_}, its requests cost {used[user]}")


def explain(seen: Seen, attempts: Sequence[Attempt], events: Sequence[Event]) -> str:
    """Why a client got an error, empty: nothing that was done explains it."""
    touching = {e.what for e in events if e.touches(seen.at, seen.ended, 1.0, 5.0)}
    faults = {attempt.fault for attempt in attempts if attempt.fault and attempt.end != "whole"}
    if seen.code == "relay_unavailable" and touching & {"redis", "postgresql"}:
        return " or ".join(sorted(touching & {"redis", "postgresql"})) + " restarted"
    if seen.how in {"broken", "failed"} and "kill" in touching:
        return "its worker was killed"
    if (seen.how == "failed" or seen.kind == "speech") and "postgresql" in touching:
        return "postgresql restarted"  # what is sent as sound can only be cut
    if seen.kind == "files" and seen.code == "not_found" and "kill" in touching and seen.message[:9] == "deleting:":
        return "its worker was killed after it had deleted"  # and aiohttp sent the request again
    if faults and seen.status != 500:
        return "upstream: " + ", ".join(sorted(faults))
    if seen.kind == "realtime" and "kill" in touching:
        return "its worker was killed"
    if seen.kind == "realtime" and touching & {"redis", "postgresql"}:
        return " or ".join(sorted(touching & {"redis", "postgresql"})) + " restarted"
    return ""
