"""Requests signed with a fixed key, which is sent as it is in a header of each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StaticKey:
    """Where a request carries the key."""

    # Name of the header, in lower case.
    header: str
    # What stands before the key in it, with the space.
    prefix: str = ""
    # Further headers that carry it as it is, of gateways that read each API's own.
    also: tuple[str, ...] = ()

    is_json = False

    def check(self, secret: str, token_uris: Sequence[str]) -> None:
        """Any text may be a key."""

    def shown(self, secret: str) -> str:
        return secret

    def headers(self, secret: str) -> dict[str, str]:
        """The headers that sign a request with one key."""
        return {self.header: self.prefix + secret, **dict.fromkeys(self.also, secret)}

    def signer(self, secret: str, token_uris: Sequence[str]) -> None:
        """The headers are the same for every request."""


BEARER: Final = StaticKey("authorization", "Bearer ")  # RFC 6750, section 2.1
API_KEY: Final = StaticKey("api-key")
X_API_KEY: Final = StaticKey("x-api-key")
EVERY_API: Final = StaticKey("authorization", "Bearer ", ("x-api-key", "x-goog-api-key"))
X_GOOG_API_KEY: Final = StaticKey("x-goog-api-key")  # never in the address, which is written into logs
