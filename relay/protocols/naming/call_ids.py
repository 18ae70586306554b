"""Ids of calls in a conversation, each of them once: vendors number the calls of each answer anew. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

_ROOM = 8  # characters for the number of an id that was there before


@dataclass(slots=True)
class CallIds:
    """The ids that an upstream is told of the calls of one request, in their order."""

    fit: Callable[[str], str]  # an id in the letters, and of the length, that the upstream takes
    longest: int | None = None  # characters that an id may have
    _newest: dict[str, str] = field(default_factory=dict)  # by the client's
    _taken: set[str] = field(default_factory=set)

    def begin(self, given: str) -> str:
        """The id of another call."""
        fitting = self.fit(given) or "call"
        found, number = fitting, 1
        stem = fitting[: self.longest - _ROOM] if self.longest is not None else fitting
        while found in self._taken:
            number += 1
            found = f"{stem}_{number}"
        self._taken.add(found)
        self._newest[given] = found
        return found

    def of(self, given: str) -> str:
        """The id of the newest call that the client calls so."""
        return self._newest.get(given) or self.begin(given)
