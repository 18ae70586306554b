"""Ends a text before the stop sequence that it completes first, for upstreams whose API has no such parameter. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def sequences_of(stop: object) -> list[str]:
    """The sequences that a request's `stop` names: a text or a list of texts. Empty ones stop nothing."""
    found = stop if isinstance(stop, list) else [stop]
    return [one for one in found if isinstance(one, str) and one]


@dataclass(slots=True)
class StopSearch:
    """Looks for stop sequences in a text that arrives in pieces."""

    sequences: Sequence[str]
    found: str = ""  # the sequence at which the text ends
    _held: str = ""  # its end so far, with which a sequence may begin

    def feed(self, piece: str) -> str:
        """What of the text is certain to stand before any sequence; nothing once one has been found."""
        if self.found:
            return ""
        text = self._held + piece
        ends = [(place + len(one), place, one) for one in self.sequences if (place := text.find(one)) >= 0]
        if ends:
            _, place, self.found = min(ends)
            self._held = ""
            return text[:place]
        held = max((_overlap(text, one) for one in self.sequences), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """The end of the text, when it is known that nothing follows."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, sequence: str) -> int:
    """How many characters at the end of a text are the beginning of a sequence."""
    lengths = range(min(len(text), len(sequence) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(sequence[:length])), 0)
