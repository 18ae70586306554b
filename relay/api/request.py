"""The request object of the relay stack: Django's, without the work that the relay does not need."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils.functional import cached_property

from portal.lib.json import Json
from relay.endpoints.errors import invalid
from relay.errors import InvalidRequest
from relay.gateway.exchange.exchange import AsgiScope, Exchange
from relay.gateway.snapshot.callers import Caller
from relay.protocols.fields import BadRequest, check_inner_names, read_object
from relay.protocols.naming.references import Reference


class RelayRequest(ASGIRequest):
    """A request with its exchange, through which the body is read.

    META, cookies and query are computed on first use.
    """

    def __init__(self, scope: AsgiScope, path: str, exchange: Exchange) -> None:
        self.scope = scope
        self.path = self.path_info = path
        self.script_name = ""
        self.method = scope["method"].upper()
        self.exchange = exchange
        self.resolver_match = None
        self.content_type = None
        self.content_params = None
        self._stream = BytesIO()
        self._read_started = False
        self._post_parse_error = False

    @cached_property
    def META(self) -> dict[str, Any]:  # type: ignore[override]  # Django's name
        return ASGIRequest({**self.scope, "path": self.path}, BytesIO()).META


def with_key_of_query(scope: AsgiScope) -> list[tuple[bytes, bytes]]:
    """The headers of a request of Gemini's API, with the token that its query has as `key`. The query loses it, so that
    no log, record or page has it.
    """
    pairs = scope["query_string"].split(b"&")
    keys = [pair[4:] for pair in pairs if pair.startswith(b"key=")]
    scope["query_string"] = b"&".join(pair for pair in pairs if not pair.startswith(b"key="))
    headers: list[tuple[bytes, bytes]] = list(scope["headers"])
    if keys and not any(name == b"x-goog-api-key" for name, _ in headers):
        headers.append((b"x-goog-api-key", unquote_to_bytes(keys[0])))
    return headers


def exchange_of(request: HttpRequest) -> Exchange:
    """The exchange of a request of the relay stack."""
    exchange: Exchange = request.exchange  # type: ignore[attr-defined]  # set by RelayRequest
    return exchange


def caller_of(request: HttpRequest) -> Caller:
    """The caller of a request that `token_auth` has authenticated."""
    caller = exchange_of(request).caller
    assert caller is not None  # noqa: S101  # token_auth has run
    return caller


def query_of(request: HttpRequest) -> dict[str, str]:
    """The query's parameters. Raises InvalidRequest if one that is no list is there twice."""
    return single_parameters((name, value) for name, values in request.GET.lists() for value in values)


def single_parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters of a query by name. Raises InvalidRequest if one that is no list is there twice."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found and name != "include" and not name.endswith("[]"):
            raise InvalidRequest(f"The parameter “{name[:64]}” is in the address twice. Send it once.", param=name[:64])
        found[name] = value
    return found


async def json_body(request: HttpRequest, named: list[Reference] | None = None) -> Json:
    """Read a body that is a JSON object; an empty body counts as an empty object. Raises RelayError.

    `named`: takes the objects that it names which may be the user's own; None: they are refused.
    """
    body = await exchange_of(request).read_body(settings.CONFIG.max_body_bytes)
    try:
        found = read_object(body, named)
        check_inner_names(found)
        return found
    except BadRequest as bad:
        raise invalid(bad) from None
