"""How long answers can be: what a model may think beside the limit of its answer, and where answers exceeded it.

Vendors differ in whether a limit holds for what a model thinks as well, and relays do not say which vendor is behind
them. Once an answer has cost more than its limit allows, money is held for the longest one from then on.
"""

from __future__ import annotations

from typing import Final

from relay.gateway.snapshot.routes import Routes
from relay.gateway.snapshot.views import ModelView

ASSUMED_OUTPUT: Final = 32_768  # tokens of a non-streaming answer, for models whose output limit is unknown
USUAL_WINDOW: Final = 131_072  # tokens of context, of a model that nothing is known of
_SECONDS: Final = 86_400.0  # for which an answer is remembered, since one that a user provoked concerns all others
_MOST: Final = 4096  # channels and models that are remembered
_SLACK: Final = 64  # tokens, or a quarter of the limit, by which an answer may exceed it and count as within


class AnswerLengths:
    """Of one worker, by channel and model."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], float] = {}

    def learn(self, channel: int, model: int, output: int, limit: int, now: float) -> None:
        """An answer has so many tokens of output, as reported, by a limit of its own. `now`: seconds since 1970."""
        if output <= limit + max(_SLACK, limit // 4):
            return
        self._seen.pop((channel, model), None)
        while len(self._seen) >= _MOST:
            del self._seen[next(iter(self._seen))]
        self._seen[channel, model] = now

    def exceeds(self, channel: int, model: int, now: float) -> bool:
        """Whether answers of the model at the channel exceed their limits."""
        seen = self._seen.get((channel, model))
        return seen is not None and now - seen < _SECONDS

    def exceeds_any(self, routes: Routes, model: int, now: float) -> bool:
        """The same of any of the channels."""
        seen = self._seen
        if len(routes) <= len(seen):
            return any([self.exceeds(route.channel.id, model, now) for route in routes])
        return any(
            [
                of == model and now - at < _SECONDS and routes.number_of(channel) is not None
                for (channel, of), at in seen.items()
            ]
        )


answer_lengths: Final = AnswerLengths()


def thinking_beside(limit: int, named: int | None, model: ModelView, routes: Routes, now: float) -> int:
    """The tokens that an answer may have beside its limit, at any of the channels of its routes.

    `named`: those of thinking that the request names, 0 where it turns it off, None: none.
    """
    longest, window = model.max_output_tokens or ASSUMED_OUTPUT, model.context_window or USUAL_WINDOW
    if answer_lengths.exceeds_any(routes, model.id, now):
        return max(longest, min(named or 0, window))
    if not limit:  # nothing is to be written, so nothing is thought about
        return 0
    within = all([route.channel.limits_thinking for route in routes.examples])
    if named:  # where the limit cannot hold it, some relays raise the limit
        return min(named, window) if named >= limit or not within else 0
    reasons = not model.abilities or "reasoning" in model.abilities
    return longest if reasons and named is None and not within else 0
