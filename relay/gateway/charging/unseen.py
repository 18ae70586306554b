"""What models spend on what they do not show, learnt from answers whose usage was reported.

An answer that ends without a report, since its client has left or it broke off, may have been thought about for long.
Only the time that it took tells, whatever the client asked for: a stream's until its first text, at the rate at which
other answers of the same channel and model have thought; a plain answer's whole time, at the rate of their output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_FADE: Final = 0.9  # what the past weighs beside a new answer
_MOST: Final = 4096  # channels and models that are remembered
_LEAST_SECONDS: Final = 0.02  # a shorter time says nothing of a rate
_USUAL: Final = 60.0  # tokens per second of models that are known to reason, of which nothing has been learnt


@dataclass(slots=True)
class _Rate:
    """Tokens per second, as a mean that fades."""

    tokens: float = 0.0
    seconds: float = 0.0

    def learn(self, tokens: float, seconds: float) -> None:
        self.tokens = _FADE * self.tokens + tokens
        self.seconds = _FADE * self.seconds + max(seconds, _LEAST_SECONDS)

    def at(self, seconds: float) -> float:
        return self.tokens / self.seconds * seconds if self.seconds else 0.0


@dataclass(slots=True)
class UnseenTokens:
    """Of one worker, by channel and the model as the channel names it."""

    _thought: dict[tuple[int, str], _Rate] = field(default_factory=dict)
    _made: dict[tuple[int, str], _Rate] = field(default_factory=dict)

    def learn_stream(self, channel: int, model: str, hidden: float, seconds: float) -> None:
        """`hidden`: tokens of the output that were not shown. `seconds`: until the first text."""
        rates = self._thought
        if hidden > 0 or (channel, model) in rates:
            _rate(rates, channel, model).learn(max(0.0, hidden), seconds)

    def learn_plain(self, channel: int, model: str, output: int, seconds: float) -> None:
        _rate(self._made, channel, model).learn(output, seconds)

    def of_stream(self, channel: int, model: str, seconds: float, reasons: bool) -> float:
        """The tokens that a stream has probably spent unseen, whose first text took so long, or has not come.

        `reasons`: the model is known to.
        """
        rate = self._thought.get((channel, model))
        return rate.at(seconds) if rate is not None else _USUAL * seconds * reasons

    def of_plain(self, channel: int, model: str, seconds: float) -> float:
        """The same of a plain answer that has not come after so long."""
        rate = self._made.get((channel, model))
        return rate.at(seconds) if rate is not None else _USUAL * seconds


def _rate(rates: dict[tuple[int, str], _Rate], channel: int, model: str) -> _Rate:
    found = rates.get((channel, model))
    if found is None:
        if len(rates) >= _MOST:
            del rates[next(iter(rates))]
        found = rates[channel, model] = _Rate()
    return found
