"""Writes ledger entries for usage in the past, and the accounts that they add up to. Used by `relay.usage.demo_data`.

The users and tokens must have no accounts yet. Entries are written in batches and accounts at the end, so that every
figure of an account is the sum of its entries, as `relay.billing.ledger.verify` requires.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings
from django.db import connection

from portal.lib.days import Days
from relay.billing.ledger.sql import ENTRY_COLUMNS, EntryValues
from relay.models import LedgerAccount
from relay.models.ledger import EntryKind

_BATCH: Final = 1000


class LedgerBackfill:
    """Collects entries of the past and the figures of the accounts that they move."""

    def __init__(self, amount: int) -> None:
        """`amount`: nano-USD of one top-up. A wallet gets one whenever it has too little for a request."""
        self.entries: list[EntryValues] = []  # not written yet
        self._amount = amount
        self._days = Days(settings.TIME_ZONE)
        # Nano-USD, by id of user or token.
        self._granted: dict[int, int] = defaultdict(int)
        self._used: dict[int, int] = defaultdict(int)
        self._used_by_token: dict[int, int] = defaultdict(int)

    def top_up(self, user_id: int, at: datetime) -> None:
        """Add one top-up to a wallet."""
        self._granted[user_id] += self._amount
        self._write(EntryKind.TOP_UP, "funding", "wallet", self._amount, user_id, at, None, "")

    def spend(self, user_id: int, token_id: int, at: datetime, amount: int, request_id: str, house: bool) -> None:
        """Charge a request to the user's wallet or, with `house`, to the portal. `amount` in nano-USD."""
        if house:
            self._granted[user_id] += amount
        while self._granted[user_id] - self._used[user_id] < amount:
            self.top_up(user_id, at)
        self._used[user_id] += amount
        self._used_by_token[token_id] += amount
        self._write(
            EntryKind.USAGE, "house" if house else "wallet", "revenue", amount, user_id, at, token_id, request_id
        )

    def write(self) -> None:
        """Write the entries collected so far, inside the caller's transaction."""
        insert_rows("relay_ledgerentry", ENTRY_COLUMNS, self.entries)
        self.entries = []

    def create_accounts(self, wallets: Sequence[tuple[int, bool]], quotas: Sequence[tuple[int, int]]) -> None:
        """Create the accounts. `wallets`: ids of users, and whether limited.

        `quotas`: ids of tokens and their users.
        """
        rows = [
            LedgerAccount(
                key=f"wallet:{user}",
                kind="wallet",
                user_id=user,
                limited=limited,
                granted=self._granted[user],
                used=self._used[user],
            )
            for user, limited in wallets
        ]
        rows += [
            LedgerAccount(
                key=f"quota:{token}",
                kind="quota",
                user_id=user,
                token_id=token,
                limited=False,
                used=self._used_by_token[token],
            )
            for token, user in quotas
        ]
        LedgerAccount.objects.bulk_create(rows, batch_size=_BATCH)

    def _write(
        self,
        kind: str,
        debit: str,
        credit: str,
        amount: int,
        user_id: int,
        at: datetime,
        token_id: int | None,
        request_id: str,
    ) -> None:
        self.entries.append(
            (
                at,
                str(kind),
                debit,
                credit,
                amount,
                0,
                user_id,
                token_id,
                self._days.of(at.timestamp()),
                request_id,
                "",
                None,
                "",
            )
        )


def insert_rows(table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows by the fastest way of the database: COPY on PostgreSQL. Datetimes must be aware."""
    names = ", ".join(connection.ops.quote_name(name) for name in columns)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            return
        adapt = connection.ops.adapt_datetimefield_value
        native = [
            tuple(adapt(value.astimezone(UTC)) if isinstance(value, datetime) else value for value in row)
            for row in rows
        ]
        placeholders = ", ".join(["%s"] * len(columns))
        cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({placeholders})", native)  # noqa: S608
