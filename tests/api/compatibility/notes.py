"""Losses that no answer tells, each with its reason: what the page says about them is the disclosure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.api.compatibility.matrix import Cell


@dataclass(frozen=True)
class Note:
    """A documented difference: what cells of a row may lose. No clients or upstreams: all of them."""

    key: str
    text: str
    feature: str
    lost: frozenset[str]
    clients: frozenset[str] = frozenset()
    upstreams: frozenset[str] = frozenset()

    def covers(self, cell: Cell, silent: Sequence[str]) -> bool:
        return (
            cell.feature.name == self.feature
            and set(silent) == self.lost
            and (not self.clients or cell.client in self.clients)
            and (not self.upstreams or cell.column.api.NAME in self.upstreams)
        )


UNHEARD: Final = frozenset(("tokens of audio",))
NOTES: Final = (
    Note(
        "a",
        "Marks say where a prefix ends that is to be cached. These upstreams cache by themselves, or not at all: there "
        "is nothing to be told.",
        "Mark of the prompt cache",
        frozenset(("cache_mark",)),
    ),
    Note(
        "b",
        "Chat completions have no place for thinking that only its vendor can read. It is not told, and the model goes "
        "on without it.",
        "Redacted thinking in the next turn",
        frozenset(("redacted",)),
        clients=frozenset(("chat",)),
    ),
    Note(
        "c",
        "Gemini's API ends an answer in a way of its own only where a filter stops it. A refusal in the model's words "
        "is the text of an answer that ends well.",
        "Refusal",
        frozenset(("end of the answer",)),
        clients=frozenset(("gemini",)),
    ),
    Note(
        "d",
        "The usage does not tell which tokens are audio. Where they have a price of their own, the portal counts them "
        "by the length of the recording, and the usage record says that it is an estimate.",
        "Audio in the request",
        UNHEARD,
        upstreams=frozenset(("converse",)),
    ),
)
