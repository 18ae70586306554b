"""Connections to PostgreSQL that wait for an answer as long as `timeouts` says, and no longer.

The driver waits for ever for a server that has stopped in the middle (a frozen machine, a broken network, a disk that
hangs) and for a lock that is not given up. A time limit in the server, such as `statement_timeout`, cannot end a wait
for the server itself.
"""

from __future__ import annotations

from typing import Any, Final, Self

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import RV, PQGen

from portal import limits
from portal.services.timeouts import statement_seconds, statement_timeout

_CANCEL_SECONDS: Final = 1.0  # for the request to stop a statement that was given up
_LOOK_SECONDS: Final = 60.0  # after which a server that is waited for without a limit is asked whether it is there
_WAKE_SECONDS: Final = 0.1  # between looks at signals, as in the driver
# Of a transaction in which nothing happens, which belongs to a process that was stopped: its locks are given up.
_IDLE_TRANSACTION: Final = "SET idle_in_transaction_session_timeout = '60s'"
# The server has closed the connection, as after a process or the server itself was stopped for a while. To the driver
# these are faults of whoever asks, such as a row that is refused; they are none: what was asked for is tried again.
_ENDED_BY_SERVER: Final = (errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server does not answer in time. Raises OperationalError then."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Names of statements of `portal.services.pipelines` that its server knows; None: a pooler is in between, so
        # that it is not known which server that is.
        self.prepared: set[bytes] | None = set()

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        connection = super().connect(conninfo, **options)
        if connection.autocommit:
            connection.execute(_IDLE_TRANSACTION)
        return connection

    def wait(self, gen: PQGen[RV], interval: float = _WAKE_SECONDS, timeout: float | None = None) -> RV:
        """Run one exchange with the server."""
        if timeout is not None:  # the driver's own
            return super().wait(gen, interval, timeout)
        try:
            return self._wait_bounded(gen, interval)
        except _ENDED_BY_SERVER as ended:
            raise errors.OperationalError(str(ended)) from None

    def _wait_bounded(self, gen: PQGen[RV], interval: float) -> RV:
        seconds = statement_seconds()
        while True:
            try:
                return super().wait(gen, interval, _LOOK_SECONDS if seconds is None else seconds)
            except errors._WaitTimeout:
                if seconds is None and self._server_answers():
                    continue  # it is busy with this statement
                self._give_up()
                raise errors.OperationalError(
                    f"the server did not answer within {_LOOK_SECONDS if seconds is None else seconds:g} seconds"
                ) from None

    def _server_answers(self) -> bool:
        """Whether the server answers on another connection."""
        try:
            target = conninfo.make_conninfo(
                self.info.dsn, password=self.info.password or None, connect_timeout=limits.DATABASE_SECONDS
            )
            with statement_timeout(limits.DATABASE_SECONDS), BoundedConnection.connect(target) as other:
                other.execute("SELECT 1")
        except errors.Error:
            return False
        return True

    def _give_up(self) -> None:
        """Ask a server that may only be slow to stop, and close the connection, whose state is not known."""
        try:
            self.cancel_safe(timeout=_CANCEL_SECONDS)
        except errors.Error:
            pass
        self.pgconn.finish()
