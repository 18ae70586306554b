"""HTTP requests to identity providers, whose URLs people typed, with protection against server-side request forgery.

A host name is resolved once. All of its addresses must be permitted, and the connection goes to one of them, not to
what a second lookup might return.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from portal import limits
from portal.lib import net
from portal.lib.texts import gettext_noop
from portal.services import outside

T = TypeVar("T")
_allowed: ContextVar[tuple[net.Allowance, ...] | None] = ContextVar(
    "allowed", default=None
)  # read before a thread asks
_MOST = 1 << 20  # bytes of an answer


def in_time(host: str, ask: Callable[[], T]) -> T:
    """Ask a provider, in a thread that may not use the database. Raises requests.Timeout when it takes too long."""
    token = _allowed.set(tuple(outside.allowances()))
    try:
        return outside.call(f"the sign-in provider {host}", limits.PROVIDER_SECONDS, ask)
    except outside.NotAnswering as error:
        raise requests.Timeout(str(error)) from None
    finally:
        _allowed.reset(token)


def permitted_address(host: str, port: int) -> str:
    """Return an address of a host after checking all of them. Raises net.AddressRefused, OSError."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    allowed = _allowed.get()
    if allowed is None:
        allowed = tuple(outside.allowances())
    for text in found:
        address = net.parse_address(text)
        if address is None:
            raise net.AddressRefused(gettext_noop("%(host)s stands for no address"), host=host)
        net.permit(host, address, port, allowed)
    return found[0]


class _CheckedConnection:
    """Mixin of connections that resolves and checks the host."""

    host: str
    port: int
    _dns_host: str

    def _new_conn(self) -> Any:
        try:
            self._dns_host = permitted_address(self.host, self.port)
        except (net.AddressRefused, OSError) as reason:
            raise NewConnectionError(self, str(reason)) from None  # type: ignore[arg-type]
        return super()._new_conn()  # type: ignore[misc]


class _Connection(_CheckedConnection, HTTPConnection):
    pass


class _TlsConnection(_CheckedConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class CheckedSession(requests.Session):
    """A session of `requests` that connects to permitted addresses only and ignores proxies of the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.mount("https://", _Adapter())
        self.mount("http://", _Adapter())

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("timeout", limits.PROVIDER_SECONDS)
        if str(method).upper() not in {"GET", "HEAD"}:
            kwargs["allow_redirects"] = False  # a form with a secret would be sent to the new address
        ask = partial(self._ask, method, url, *args, **{**kwargs, "stream": True})
        return in_time(str(urlsplit(str(url)).hostname), ask)

    def _ask(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().request(method, url, *args, **kwargs)
        with answer:
            body = answer.raw.read(_MOST + 1, decode_content=True)
        if len(body) > _MOST:
            raise requests.exceptions.ContentDecodingError(f"more than {_MOST} bytes")
        answer._content, answer._content_consumed = body, True
        return answer
