"""The statements of the writer on PostgreSQL: each does for all users of a batch what would else be some for each.

They take their rows as JSON, a list for each row, so that a statement is the same for any number of rows and is
prepared once. Users are locked in the order of their ids, by a statement of its own: those after it see what was
committed by whoever held the locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.db import connection, models

from portal.services.pipelines import Statement
from relay.billing.ledger.pending import COLUMNS
from relay.billing.ledger.sql import ENTRY_COLUMNS
from relay.models import LedgerEntry, UsageRecord

BEGIN: Final = Statement("BEGIN", prepare=False)
COMMIT: Final = Statement("COMMIT", prepare=False)
# $1: ids of users, as JSON; $2: milliseconds that this and the other statements of the transaction wait for each lock;
# $3: whether its COMMIT waits for the disk, on or off. The settings are made before the first row is locked.
LOCK: Final = Statement(
    "WITH settings AS MATERIALIZED (SELECT set_config('lock_timeout', $2, true) AS locks, "
    "set_config('synchronous_commit', CASE $3 WHEN 'off' THEN 'off' ELSE current_setting('synchronous_commit') END, "
    "true) AS disk), "
    "locked AS MATERIALIZED (SELECT a.user_id FROM settings s, relay_ledgeraccount a WHERE a.kind = 'wallet' "
    "AND s.locks IS NOT NULL AND a.user_id IN (SELECT u::bigint FROM jsonb_array_elements_text($1::jsonb) u) "
    "ORDER BY a.user_id FOR UPDATE OF a) "
    "SELECT (SELECT locks FROM settings), (SELECT count(*) FROM locked)"
)
_OF_SCOPE: Final = (
    "a.user_id = v.user_id AND (a.token_id IS NULL OR a.token_id = v.token_id) "
    "AND a.first_day <= v.day AND a.last_day >= v.day"
)


def _rows(*columns: str) -> str:
    """The rows of $1 as a table `v`. `columns`: "name type"."""
    values = ", ".join(
        f"(r->>{number})::{column.split(' ', 1)[1]} AS {column.split(' ', 1)[0]}"
        for number, column in enumerate(columns)
    )
    return f"v AS MATERIALIZED (SELECT {values} FROM jsonb_array_elements($1::jsonb) r)"  # noqa: S608  # our own names


_SCOPED: Final = ("reservation text", "user_id bigint", "token_id bigint", "day integer", "amount bigint")
# $1: [reservation or empty, user, token, day, nano-USD, those that the house pays]
_CHARGE: Final = (
    f"WITH {_rows(*_SCOPED, 'house bigint')}, "  # noqa: S608  # our own names
    "held AS (UPDATE relay_reservation x SET amount = x.amount - v.amount FROM v "
    "WHERE x.id = v.reservation AND x.amount >= v.amount RETURNING x.id), "
    "covered AS (SELECT v.* FROM v WHERE v.reservation = '' OR v.reservation IN (SELECT id FROM held)), "
    "sums AS (SELECT a.id, SUM(v.amount)::bigint AS amount, "
    "SUM(CASE WHEN v.reservation = '' THEN 0 ELSE v.amount END)::bigint AS held, "
    "SUM(CASE WHEN a.kind = 'wallet' THEN v.house ELSE 0 END)::bigint AS house "
    f"FROM relay_ledgeraccount a JOIN covered v ON {_OF_SCOPE} GROUP BY a.id), "
    "charged AS (UPDATE relay_ledgeraccount a SET used = a.used + s.amount, reserved = a.reserved - s.held, "
    "granted = a.granted + s.house FROM sums s WHERE a.id = s.id)"
)
# $1: [reservation, user, token, day, nano-USD or null: all, which ends it, time of the entry]; each reservation once.
RELEASE: Final = Statement(
    f"WITH {_rows(*_SCOPED, 'at timestamptz')}, "  # noqa: S608  # our own names
    "found AS MATERIALIZED (SELECT v.*, LEAST(x.amount, COALESCE(v.amount, x.amount)) AS released "
    "FROM relay_reservation x JOIN v ON x.id = v.reservation ORDER BY x.id FOR UPDATE OF x), "
    "ended AS (DELETE FROM relay_reservation x USING found f WHERE x.id = f.reservation AND f.amount IS NULL), "
    "smaller AS (UPDATE relay_reservation x SET amount = x.amount - f.released FROM found f "
    "WHERE x.id = f.reservation AND f.amount IS NOT NULL), "
    "sums AS (SELECT a.id, SUM(v.released)::bigint AS released FROM relay_ledgeraccount a "
    f"JOIN found v ON {_OF_SCOPE} GROUP BY a.id), "
    "given AS (UPDATE relay_ledgeraccount a SET reserved = a.reserved - s.released FROM sums s WHERE a.id = s.id) "
    f"INSERT INTO relay_ledgerentry ({', '.join(ENTRY_COLUMNS)}) "
    "SELECT at, 'release', 'held', 'wallet', released, 0, user_id, token_id, day, '', reservation, NULL, '' "
    "FROM found WHERE released > 0"
)
# $1: [user, token, day]. Returns the accounts of these scopes.
ACCOUNTS: Final = Statement(
    f"WITH {_rows('user_id bigint', 'token_id bigint', 'day integer')} "  # noqa: S608  # our own names
    "SELECT DISTINCT a.id, a.kind, a.period, a.user_id, a.token_id, a.first_day, a.last_day, a.limited::int, "
    f"a.granted, a.used, a.reserved FROM relay_ledgeraccount a JOIN v ON {_OF_SCOPE}"
)
# $1: [reservation, user, token, day, nano-USD, owner, seconds when it expires, time of the entry]; each once.
RESERVE: Final = Statement(
    f"WITH {_rows(*_SCOPED, 'owner text', 'expires bigint', 'at timestamptz')}, "  # noqa: S608  # our own names
    "made AS (INSERT INTO relay_reservation (id, owner, user_id, token_id, day, amount, expires_at) "
    "SELECT reservation, owner, user_id, token_id, day, amount, expires FROM v ON CONFLICT (id) DO UPDATE "
    "SET amount = relay_reservation.amount + excluded.amount, expires_at = excluded.expires_at), "
    "sums AS (SELECT a.id, SUM(v.amount)::bigint AS amount FROM relay_ledgeraccount a "
    f"JOIN v ON {_OF_SCOPE} GROUP BY a.id), "
    "taken AS (UPDATE relay_ledgeraccount a SET reserved = a.reserved + s.amount FROM sums s WHERE a.id = s.id) "
    f"INSERT INTO relay_ledgerentry ({', '.join(ENTRY_COLUMNS)}) "
    "SELECT at, 'reserve', 'wallet', 'held', amount, 0, user_id, token_id, day, '', reservation, NULL, '' FROM v"
)
# $1: owners, as JSON; $2: seconds when their reservations expire. One that somebody else has locked is left out: it is
# prolonged the next time, long before it expires.
PROLONG: Final = Statement(
    "UPDATE relay_reservation SET expires_at = $2::bigint WHERE id IN (SELECT id FROM relay_reservation WHERE owner IN "
    "(SELECT o FROM jsonb_array_elements_text($1::jsonb) o) FOR UPDATE SKIP LOCKED)"
)


class Inserts:
    """The statements that insert records, from the columns of their table."""

    def __init__(self) -> None:
        # A row that exists is ignored, so that a commit of unknown outcome can be repeated.
        conflict = "ON CONFLICT (request_id) DO NOTHING"
        self.records = Statement(f"{_insert(UsageRecord, COLUMNS, '$1')} {conflict}")  # $1: rows of records
        # $1: as in _CHARGE, $2: rows of records, $3: those of entries. Returns the number of reservations that covered
        # theirs; another one than was meant must be rolled back.
        self.charges = Statement(
            f"{_CHARGE}, entries AS ({_insert(LedgerEntry, ENTRY_COLUMNS, '$3')}), "  # noqa: S608  # our own names
            f"records AS ({_insert(UsageRecord, COLUMNS, '$2')} {conflict}) SELECT count(*) FROM held"
        )


def _insert(table: type[models.Model], names: Sequence[str], parameter: str) -> str:
    fields = {field.attname: field for field in table._meta.concrete_fields}
    quote = connection.ops.quote_name
    columns = ", ".join(quote(fields[name].column or name) for name in names)
    values = ", ".join(f"(r->>{number})::{_type(fields[name])}" for number, name in enumerate(names))
    into = f"INSERT INTO {quote(table._meta.db_table)} ({columns})"
    return f"{into} SELECT {values} FROM jsonb_array_elements({parameter}::jsonb) r"  # noqa: S608


def _type(field: models.Field[object, object]) -> str:
    """The type of a column, without a length: a cast to it would cut a text off, where an INSERT is refused."""
    found = field.db_type(connection)
    assert found is not None  # noqa: S101  # a concrete field has one
    return found.split("(")[0]
