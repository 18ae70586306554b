"""What every way to sign requests gives, and the requests that are signed one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import httpx

SIGNER: Final = "signer"  # extension of a request: signs it on its way out (`signing`)


class BadKey(Exception):
    """A text is no key of this kind. `str()` is a sentence to be translated, for the person who typed it."""


class KeyRefused(Exception):
    """An upstream gave no token for a key, or the key cannot sign."""

    def __init__(self, status: int, message: str, code: str = "", retry_after: str = "") -> None:
        """`status`: that the failure is classified by. `message`, `code`: of the upstream's error object."""
        super().__init__(message)
        self.status, self.message, self.code, self.retry_after = status, message, code, retry_after


class Signer(Protocol):
    """Signs requests with one key."""

    async def signed(self, request: httpx.Request, send: httpx.AsyncBaseTransport) -> Mapping[str, str]:
        """The headers that sign a request. `send`: the way out, by which a token can be asked for.

        Raises KeyRefused, httpx.TransportError, relay.transport.resolver.ConnectRefused.
        """

    def renewed(self, used: Mapping[str, str]) -> bool:
        """Called after a 401 to headers that `signed` gave: whether signing again gives others, which may do."""


class Credentials(Protocol):
    """How a vendor's requests are signed."""

    @property
    def header(self) -> str:
        """The name of the header that carries the signature, in lower case."""

    @property
    def is_json(self) -> bool:
        """Whether a key is a JSON object, which may have several lines."""

    def check(self, secret: str, token_uris: Sequence[str]) -> None:
        """Raise BadKey for a text that is no key of this kind.

        `token_uris`: the addresses beside the vendor's own at which tokens may be asked for.
        """

    def shown(self, secret: str) -> str:
        """The part of a key by which people know it; masked all the same."""

    def headers(self, secret: str) -> dict[str, str]:
        """The headers that sign every request with a key in the same way; empty where each is signed by `signer`."""

    def signer(self, secret: str, token_uris: Sequence[str]) -> Signer | None:
        """What signs each request with a key; None where `headers` do. Raises BadKey."""
