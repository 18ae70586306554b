"""Past movements of money, with the accounts that they add up to: what `relay.usage.demo_data` has spent in a portal that is new.

Users and tokens must have no accounts yet. Entries are written as they come, accounts at the end, so that every figure of an account is
the sum of its entries, as `relay.billing.ledger.verify` wants it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings
from django.db import connection

from portal.lib.days import Days
from relay.billing.ledger.sql import ENTRY, EntryValues
from relay.models import LedgerAccount
from relay.models.ledger import EntryKind

_BATCH: Final = 1000


class History:
    """`amount`: nano-USD of one top-up, which a limited wallet gets whenever it has too little for a request."""

    def __init__(self, amount: int) -> None:
        self.entries: list[EntryValues] = []
        self._amount = amount
        self._days = Days(settings.TIME_ZONE)
        self._granted: dict[int, int] = defaultdict(int)
        self._used: dict[int, int] = defaultdict(int)
        self._of_tokens: dict[int, int] = defaultdict(int)

    def top_up(self, user_id: int, at: datetime) -> None:
        self._granted[user_id] += self._amount
        self._write(EntryKind.TOP_UP, "funding", "wallet", self._amount, user_id, at, None, "")

    def spend(self, user_id: int, token_id: int, at: datetime, amount: int, request_id: str, house: bool) -> None:
        """A request that was paid from the wallet, or by the portal (`house`). `amount` in nano-USD."""
        if house:
            self._granted[user_id] += amount
        while self._granted[user_id] - self._used[user_id] < amount:
            self.top_up(user_id, at)
        self._used[user_id] += amount
        self._of_tokens[token_id] += amount
        self._write(EntryKind.USAGE, "house" if house else "wallet", "revenue", amount, user_id, at, token_id, request_id)

    def write(self) -> None:
        """The entries so far. Inside the caller's transaction."""
        insert("relay_ledgerentry", ENTRY, self.entries)
        self.entries = []

    def close(self, wallets: Sequence[tuple[int, bool]], quotas: Sequence[tuple[int, int]]) -> None:
        """The accounts: `wallets` (user, limited?), `quotas` (token, user)."""
        rows = [LedgerAccount(key=f"wallet:{user}", kind="wallet", user_id=user, limited=limited, granted=self._granted[user], used=self._used[user]) for user, limited in wallets]
        rows += [LedgerAccount(key=f"quota:{token}", kind="quota", user_id=user, token_id=token, limited=False, used=self._of_tokens[token]) for token, user in quotas]
        LedgerAccount.objects.bulk_create(rows, batch_size=_BATCH)

    def _write(self, kind: str, debit: str, credit: str, amount: int, user_id: int, at: datetime, token_id: int | None, request_id: str) -> None:
        self.entries.append((at, str(kind), debit, credit, amount, 0, user_id, token_id, self._days.of(at.timestamp()), request_id, "", None, ""))


def insert(table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Many rows as fast as the database takes them. Moments are aware."""
    names = ", ".join(connection.ops.quote_name(name) for name in columns)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            return
        adapt = connection.ops.adapt_datetimefield_value
        native = [tuple(adapt(value.astimezone(UTC)) if isinstance(value, datetime) else value for value in row) for row in rows]
        cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(columns))})", native)  # noqa: S608
