"""What an endpoint asks of the gateway for one exchange."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace as replace_struct

from relay.errors import RelayError
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.views import ChannelView, Pair, Route
from relay.protocols.naming.sessions import SessionIds
from relay.protocols.usage import COUNTERS, NO_USAGE, Usage

ChannelCheck = Callable[[ChannelView], RelayError | None]


@dataclass(frozen=True, slots=True)
class Overridden:
    """What the overrides of a channel make of a request, as far as it decides what the request may cost."""

    output_limit: int | None  # tokens of each answer; None: no limit
    choices: int = 1
    units: Usage = NO_USAGE
    added: int = 0  # estimated tokens of the prompt beside the client's own
    thinking: int | None = None
    as_asked: bool = False  # `thinking` is not known: what the request names stays
    unsure: bool = False  # the prompt may be longer or shorter by what is not known


class GatewayRequest(msgspec.Struct):
    """What an endpoint asks of the gateway for one exchange. Token counts are estimates. A struct is made in C."""

    endpoint: str  # its name in usage records, one of `relay.providers.apis.PATHS`
    model: str  # as the client wrote it
    check_channel: ChannelCheck  # returns why a channel cannot serve the request, None if it can
    stream: bool = False
    prompt_tokens: int = 0
    # The tokens that the prompt can have, by its bytes, for which money is held where there is enough; None when
    # something adds to it, so that it can fill the model's context.
    most_prompt: Callable[[], int | None] | None = None
    output_limit: int | None = 0  # tokens of each of `choices` answers; None: the request names no limit
    choices: int = 1
    # Requests of the same session go to the same channel; without one, those of the same conversation (empty: none).
    session: Callable[[], SessionIds] | None = None  # that its body names; None: it names none
    conversation: str = ""
    # Images, characters, milliseconds and searches that are known beforehand, and tokens of audio and images in the
    # prompt; those of images that it asks for, of which `output_limit` is the most that they may have.
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
    # No other can serve it: the error where these do not serve the model any more. None: others can.
    only_there: RelayError | None = None
    # The input in tokens that the request cannot exceed, or None when something can add to it. None: it is not known.
    most_input: Callable[[], int | None] | None = None
    # Of the tokens of its prompt, those that can be audio and images; None: any can. Asked where these are dearer.
    dearer_input: Callable[[], Usage | None] | None = None
    least_output: int = 0  # tokens below which an answer is not begun that cannot be told its limit; 0: a few
    # Work that waits until the request has been admitted and can be paid for, such as reading the files that it names.
    put_in: Callable[[Exchange], Awaitable[None]] | None = None
    # The estimated tokens that it is certain to have, as `Expected` of `relay.gateway.charging.believed` has them.
    # None: not known.
    least_input: Callable[[float], float] | None = None
    # Tokens of thinking that it names for each answer, beside the limit where the upstream counts so; None: none.
    thinking: int | None = None
    hour_writes: bool = True  # it may have a part of its prompt kept in a cache for an hour, which is dearer
    # What a route's channel makes of it, by the model's own name; None: it is sent as it is. Asked before money is
    # held.
    overridden: Callable[[str, Route], Overridden | None] | None = None
    added: int = 0  # of the tokens of its prompt, those that overrides of some channel add
    named: tuple[str, ...] = ()  # further models, which its tools use

    def covering(self, public: str, routes: Sequence[Route]) -> GatewayRequest:
        """The request that costs as much as any of the routes may make of it. `public`: the model's own name."""
        asked = self.overridden
        if asked is None:
            return self
        found = [asked(public, route) if route.channel.overrides is not None else None for route in routes]
        made = [one for one in found if one is not None]
        if not made:
            return self
        own = Overridden(self.output_limit, self.choices, self.units, 0, self.thinking)
        every = [*made, *([own] if len(made) < len(found) else [])]
        limits = [one.output_limit for one in every]
        known = [limit for limit in limits if limit is not None]
        added = max(one.added for one in every)
        named = [self.thinking if one.as_asked else one.thinking for one in every]
        budgets = [one for one in named if one is not None]
        unsure = any(one.unsure for one in every)
        least = self.least_input
        return replace_struct(
            self,
            prompt_tokens=self.prompt_tokens + added,
            added=added,
            output_limit=max(known) if len(known) == len(limits) else None,
            choices=max(one.choices for one in every),
            units=replace_struct(_most_of([one.units for one in every]), searches=self.units.searches),
            thinking=max(budgets, default=None),
            most_prompt=_longer(self.most_prompt, added, unsure),
            most_input=_longer(self.most_input, added * _BYTES_PER_TOKEN, unsure),
            least_input=(lambda _enough: 0.0) if unsure and least is not None else least,
            hour_writes=True,
        )


_BYTES_PER_TOKEN = 16  # more than any token has of what people write into a rule


def _longer(most: Callable[[], int | None] | None, added: int, unsure: bool) -> Callable[[], int | None] | None:
    """The most tokens of a prompt to which so many are added. `unsure`: it can have any number then."""
    if most is None:
        return None

    def found() -> int | None:
        own = most()
        return None if own is None or unsure else own + added

    return found


def _most_of(units: Sequence[Usage]) -> Usage:
    return replace_struct(units[0], **{name: max(getattr(one, name) for one in units) for name in COUNTERS})
