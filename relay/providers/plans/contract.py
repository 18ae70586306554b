"""What signs the requests of one person's plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import httpx

from portal.lib.json import Json
from relay.providers.plans.shapes import Shape


class PlanSigner(Protocol):
    """The sign-in of one person."""

    @property
    def shape(self) -> Shape: ...

    async def signed(self, request: httpx.Request, send: httpx.AsyncBaseTransport) -> Mapping[str, str]:
        """The headers of a request in the person's name. Raises PlanRefused, httpx.TransportError."""

    async def renew(self, used: Mapping[str, str], send: httpx.AsyncBaseTransport) -> None:
        """Refresh the token after a 401 to these headers, unless somebody has done so. Raises as `signed` does."""

    def saw(self, found: Json) -> None:
        """Note what an answer said of the usage windows."""
