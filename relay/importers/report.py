"""What an import did, or would do: how many rows of each kind, and one line for everything that is not carried over
as it was. No secrets. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from portal.lib import money
from relay.importers.description import Item, Level, Remark

# Kinds of rows in the order of reports, and what many of them are called.
KINDS: Final = {
    "group": "groups",
    "user": "users",
    "channel": "channels",
    "key": "upstream keys",
    "model": "models",
    "price": "prices",
    "token": "tokens",
    "code": "redemption codes",
    "usage": "rows of the log",
}


@dataclass(slots=True)
class Counts:
    """What became of the rows of one kind."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    left_out: int = 0
    removed: int = 0  # by an undo


@dataclass(frozen=True, slots=True)
class Line:
    """One remark about one thing, or about the whole source."""

    kind: str  # a word of KINDS, or "source"
    id: str
    name: str
    level: Level
    text: str


@dataclass(slots=True)
class Report:
    """The outcome of an import."""

    program: str
    source: str  # where from, without a password
    installation: str
    applied: bool
    counts: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    lines: list[Line] = field(default_factory=list)
    balances: int = 0  # nano-USD that were added to wallets, less what was taken
    quotas: int = 0  # the same of tokens

    def tell(self, kind: str, item: Item | None, text: str, level: Level = Level.CHANGED) -> None:
        self.lines.append(Line(kind, item.id if item else "", item.name if item else "", level, text))

    def remarks(self, kind: str, item: Item | None, remarks: Iterable[Remark]) -> None:
        for remark in remarks:
            self.tell(kind, item, remark.text, remark.level)

    def leave_out(self, kind: str, item: Item, why: str) -> None:
        self.counts[kind].left_out += 1
        self.tell(kind, item, why, Level.LEFT_OUT)

    @property
    def changes(self) -> int:
        """How many rows were, or would be, made or changed."""
        return sum(found.new + found.changed + found.removed for found in self.counts.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "source": self.source,
            "installation": self.installation,
            "applied": self.applied,
            "counts": {kind: asdict(self.counts[kind]) for kind in KINDS if kind in self.counts},
            "balances_usd": money.plain(self.balances),
            "quotas_usd": money.plain(self.quotas),
            "remarks": [asdict(line) for line in self.lines],
        }
