"""What sign-in talks to: identity providers whose addresses people typed. The SSRF guard is part of the connection.

A name is resolved once; every address it stands for must be permitted, and the connection goes to one of these, not to what a second
resolution might say.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from portal.lib import net
from portal.lib.texts import gettext_noop

allowances: Callable[[], Sequence[net.Allowance]] = lambda: ()  # noqa: E731  # replaced by whoever knows the allow-list
TIMEOUT = 10


def permitted_address(host: str, port: int) -> str:
    """An address of a host that may be connected to. Raises net.Refused, OSError."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    allowed = allowances()
    for text in found:
        address = net.parse_address(text)
        if address is None:
            raise net.Refused(gettext_noop("%(host)s stands for no address"), host=host)
        net.permit(host, address, port, allowed)
    return found[0]


class _Guarded:
    host: str
    port: int
    _dns_host: str

    def _new_conn(self) -> Any:
        try:
            self._dns_host = permitted_address(self.host, self.port)
        except (net.Refused, OSError) as reason:
            raise NewConnectionError(self, str(reason)) from None  # type: ignore[arg-type]
        return super()._new_conn()  # type: ignore[misc]


class _Connection(_Guarded, HTTPConnection):
    pass


class _TlsConnection(_Guarded, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class GuardedSession(requests.Session):
    """A session of `requests` that connects to permitted addresses only, through no proxy of the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.mount("https://", _Adapter())
        self.mount("http://", _Adapter())

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("timeout", TIMEOUT)
        return super().request(method, url, *args, **kwargs)
