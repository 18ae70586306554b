"""Connections to MySQL and MariaDB that wait for an answer as long as `timeouts` says, and no longer.

The driver is PyMySQL, under the name of the one that Django asks for, which would have to be compiled. A time limit in
the server cannot end a wait for the server itself.
"""

from __future__ import annotations

import functools
import ssl
from typing import Any, Final

import pymysql
from pymysql.connections import Connection

from portal.services.mysql.options import HOUR
from portal.services.timeouts import statement_seconds

_LARGE_BYTES: Final = 512 * 1024  # servers take more in any case
_PACKET_TOO_LARGE: Final = 1153  # ER_NET_PACKET_TOO_LARGE
_VERIFIED: Final = frozenset(("VERIFY_CA", "VERIFY_IDENTITY"))


def install() -> None:
    """Let Django find the driver. Before `django.db.backends.mysql.base` is imported."""
    pymysql.install_as_MySQLdb()


class BoundedConnection(Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that is closed when the server does not answer in time. Raises OperationalError then."""

    _packet = 0  # the server's max_allowed_packet; 0: it was not asked yet

    def connect(self, sock: Any = None) -> None:
        self._read_timeout = self._write_timeout = self.connect_timeout
        super().connect(sock)

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        if len(sql) > _LARGE_BYTES and len(sql) >= (most := self._most_bytes()):
            raise pymysql.DataError(
                _PACKET_TOO_LARGE, f"a statement of {len(sql):,} bytes is more than max_allowed_packet ({most:,})"
            )
        self._read_timeout = self._write_timeout = statement_seconds() or HOUR
        super()._execute_command(command, sql)

    def _most_bytes(self) -> int:
        """The server breaks the connection off where a statement is larger, as if it were away itself: it would be
        tried again for ever.
        """
        if not self._packet:
            self.query("SELECT @@max_allowed_packet")
            self._packet = int(self._result.rows[0][0])
        return self._packet

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        """Where the URL says nothing of TLS, the driver makes a context for each connection, in 20 ms of the CPU."""
        return sslp if isinstance(sslp, ssl.SSLContext) else tls_context("PREFERRED", "", "", "")


@functools.cache
def tls_context(mode: str, ca: str, cert: str, key: str) -> ssl.SSLContext:
    """For a mode of MySQL's `ssl-mode` and paths of PEM files. Raises OSError for files that cannot be read.

    The driver's own contexts compare no names where no file of authorities is given.
    """
    context = ssl.create_default_context(cafile=ca or None)
    # Certificates that servers sign themselves do not have all extensions that newer Pythons ask for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = mode == "VERIFY_IDENTITY"
    context.verify_mode = ssl.CERT_REQUIRED if mode in _VERIFIED else ssl.CERT_NONE
    if cert:
        context.load_cert_chain(cert, key or None)
    return context
