"""What an endpoint asks of the gateway for one exchange."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from relay.errors import RelayError
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.views import ChannelView, Pair
from relay.protocols.usage import NO_USAGE, Usage

ChannelCheck = Callable[[ChannelView], RelayError | None]


@dataclass(slots=True)
class GatewayRequest:
    """What an endpoint asks of the gateway for one exchange. Token counts are estimates."""

    endpoint: str  # its name in usage records, one of `relay.providers.apis.PATHS`
    model: str  # as the client wrote it
    named: tuple[str, ...] = field(default=(), kw_only=True)  # further models, which its tools use
    check_channel: ChannelCheck  # returns why a channel cannot serve the request, None if it can
    stream: bool = False
    prompt_tokens: int = 0
    # The tokens that the prompt can have, by its bytes, for which money is held where there is enough; None when
    # something adds to it, so that it can fill the model's context.
    most_prompt: Callable[[], int | None] | None = None
    output_limit: int | None = 0  # tokens of each of `choices` answers; None: the request names no limit
    choices: int = 1
    conversation: str = ""  # requests of the same conversation go to the same channel; empty: none
    # Images, characters and milliseconds that are known beforehand, and tokens of audio and images in the prompt;
    # those of images that it asks for, of which `output_limit` is the most that they may have.
    units: Usage = NO_USAGE
    audio_between: tuple[int, int] | None = None  # milliseconds that the audio in it can have; None: it has none
    unmeasured: RelayError | None = None  # why the length of that audio cannot be told; None: it can
    # The tokens of audio and images in its prompt, where `units` do not say them. Rarely called.
    input_parts: Callable[[], Usage] | None = None
    exact: bool = False  # the answer cannot be limited to fewer tokens, so its full cost must be covered
    whole: bool = False  # an answer that is cut off is of no use: it is not limited to fewer tokens than `output_limit`
    # The event that a stream gets in place of an error's body once its head is sent; None where that is not sent early.
    error_event: Callable[[bytes], bytes] | None = None
    prefer: Pair | None = None  # the channel and key that store the previous response
    # The input in tokens that the request cannot exceed, or None when something can add to it. None: it is not known.
    most_input: Callable[[], int | None] | None = None
    # Of the tokens of its prompt, those that can be audio and images; None: any can. Asked where these are dearer.
    dearer_input: Callable[[], Usage | None] | None = None
    least_output: int = 0  # tokens below which an answer is not begun that cannot be told its limit; 0: a few
    # Work that waits until the request has been admitted and can be paid for, such as reading the files that it names.
    put_in: Callable[[Exchange], Awaitable[None]] | None = None
    # The estimated tokens that it is certain to have, as `relay.protocols.usage.Expected` has them. None: not known.
    least_input: Callable[[float], float] | None = None
    # Tokens of thinking that it names for each answer, beside the limit where the upstream counts so; None: none.
    thinking: int | None = None
