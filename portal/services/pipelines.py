"""Statements that are sent to PostgreSQL together, in one round trip, without the driver's cursors.

A cursor of the driver takes 20 to 40 µs per statement, and Django's as long again; what libpq itself needs is 5. So the
few statements that are executed for every request go to libpq as they are, with parameters as text, of which `jsonb`
makes many rows.
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from psycopg import errors
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from portal.services.postgresql import BoundedConnection

_numbers = count(1)
_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)
# A pooler between here and the server has given us another connection to it, which knows other statements.
_POOLED: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)

Row = list[bytes | None]


class Statement:
    """A statement with its parameters as $1, $2 and so on. Made once per process.

    It is prepared once per connection, unless there is nothing to be planned, as of BEGIN.
    """

    __slots__ = ("name", "sql")

    def __init__(self, sql: str, prepare: bool = True) -> None:
        self.sql = sql.encode()
        self.name = b"airelays_%d" % next(_numbers) if prepare else b""


@dataclass(frozen=True, slots=True)
class Call:
    """A statement to be executed, and its parameters in the form of PostgreSQL's texts."""

    statement: Statement
    values: Sequence[bytes | None] = ()


def run(connection: BoundedConnection, calls: Sequence[Call]) -> list[list[Row]]:
    """Execute statements in one round trip. Returns the rows of each.

    The first that fails is raised, and those after it are not executed. Outside a transaction all of them are one.
    Raises psycopg.Error.
    """
    pgconn = connection.pgconn
    with connection.lock:
        try:
            pgconn.enter_pipeline_mode()
            results = connection.wait(_exchange(pgconn, calls, connection.prepared))
            pgconn.exit_pipeline_mode()
        except _POOLED as lost:
            connection.prepared = None
            pgconn.exit_pipeline_mode()
            raise errors.OperationalError(str(lost)) from None
        except errors.Error:
            if pgconn.status == ConnStatus.OK:
                pgconn.exit_pipeline_mode()
            raise
    return results


def _exchange(pgconn: PGconn, calls: Sequence[Call], prepared: set[bytes] | None) -> PQGen[list[list[Row]]]:
    """Send all, then read the results of all."""
    new: list[bytes] = []
    skipped: list[bool] = []  # of each result, whether it is that of a preparation
    for call in calls:
        statement = call.statement
        if prepared is None or not statement.name:
            pgconn.send_query_params(statement.sql, call.values)
        else:
            if statement.name not in prepared and statement.name not in new:
                pgconn.send_prepare(statement.name, statement.sql)
                new.append(statement.name)
                skipped.append(True)
            pgconn.send_query_prepared(statement.name, call.values)
        skipped.append(False)
    pgconn.pipeline_sync()
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    found: list[list[Row]] = []
    failed: PGresult | None = None
    for is_preparation in skipped:
        result = yield from _result(pgconn)
        status = result.status
        if status in _FAILED:
            failed = failed or result
        elif is_preparation and prepared is not None and status == ExecStatus.COMMAND_OK:
            prepared.add(new.pop(0))
        elif status != ExecStatus.PIPELINE_ABORTED:
            columns = range(result.nfields)
            found.append([[result.get_value(row, column) for column in columns] for row in range(result.ntuples)])
        if pgconn.status != ConnStatus.OK:
            break
    else:
        yield from _result(pgconn)  # of the end of the pipeline
    if failed is not None:
        raise errors.error_from_result(failed)
    return found


def _result(pgconn: PGconn) -> PQGen[PGresult]:
    """The next result. libpq ends those of each statement with nothing."""
    for _ in range(3):
        while pgconn.is_busy():
            if (yield Wait.R) & Ready.R:
                pgconn.consume_input()
        result = pgconn.get_result()
        if result is not None:
            return result
    raise errors.OperationalError("the connection was lost")
