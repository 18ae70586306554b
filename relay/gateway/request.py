"""What an endpoint asks of the gateway for one exchange: which model, which channels can serve it, and what it may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.errors import RelayError
from relay.gateway.snapshot.views import ChannelView, Pair
from relay.protocols.usage import Usage

NO_UNITS: Final = Usage()
Fit = Callable[[ChannelView], RelayError | None]


@dataclass(slots=True)
class GatewayRequest:
    """One request as the gateway sees it. Token counts are estimates."""

    endpoint: str  # its name in usage records, one of `relay.providers.vendors.PATHS`
    model: str  # as the client wrote it
    fit: Fit  # why a channel cannot serve the request, None when it can
    stream: bool = False
    prompt_tokens: int = 0
    output_limit: int | None = 0  # tokens of each of `choices` answers; None: the request names no limit
    choices: int = 1
    conversation: str = ""  # requests with the same one go to the same channel
    units: Usage = NO_UNITS  # images, characters and milliseconds that are known beforehand
    exact: bool = False  # the answer cannot be made cheaper by asking for less, so all of it must be covered
    prefer: Pair | None = None  # the channel and key that know what came before
