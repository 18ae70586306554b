"""Which channels, keys and models are out of service for a while, and when each may be tried again. Pure: moments are given, in seconds since 1970.

A cell is a (channel, key, model); 0 stands for all of them. A failure opens the circuit of its class's scope until the upstream's own time,
or for a while that doubles each time in a row. After that the cell is half open: one request is let through as a probe, the others go
elsewhere until it has come back. Success closes the circuit, and another failure opens it again for longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay.providers.classify import Failure
from relay.providers.failures import BY_WORD, FailureClass, Scope

Place = tuple[int, int, int]

IN_A_ROW: Final = 5  # failures that open the circuit, for classes of which it takes several
OF_THE_LAST: Final = (7, 10)  # or so many of the last
_MASK: Final = (1 << OF_THE_LAST[1]) - 1
PROBE_SECONDS: Final = 120.0  # after which a probe that never came back is given up
GRACE: Final = 3.0  # seconds that the worker which opened a circuit has to probe it, before the others do
_FORGET: Final = 600.0  # seconds after which an old failure says nothing any more


@dataclass(slots=True)
class Cell:
    """`until` 0: closed, only counting. `opened`: how often in a row. `foreign`: another worker opened it.

    `partial`: opened on a guess, and not each of the last ten tries failed: what is better than nothing when nothing else is left.
    """

    failures: int = 0
    recent: int = 0
    opened: int = 0
    since: float = 0.0
    until: float = 0.0
    probing: float = 0.0
    touched: float = 0.0
    kind: str = ""
    detail: str = ""
    foreign: bool = False
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Cooling:
    """Why something is out of service, and until when. `half_open`: the time has come, and a probe is under way."""

    place: Place
    until: float
    kind: FailureClass
    detail: str
    since: float
    half_open: bool = False


class Breaker:
    """The circuits of one worker. `changed`: places that others should hear of. Used on the event loop only."""

    def __init__(self) -> None:
        self.cells: dict[Place, Cell] = {}
        self.changed: set[Place] = set()

    # -- asking ------------------------------------------------------------------------------------------------------

    def blocked(self, channel: int, key: int, model: int, now: float, last_resort: bool = False) -> Cooling | None:
        """What keeps this combination from being tried now; of several the one that lasts longest.

        `last_resort`: nothing else is left. What fails now and then is better than nothing; what always fails, or asked to be left alone, is not.
        """
        if not self.cells:
            return None
        found: Cooling | None = None
        for place in places(channel, key, model):
            cell = self.cells.get(place)
            if cell is None or not cell.until or (last_resort and cell.partial):
                continue
            until = cell.until + GRACE if cell.foreign else cell.until
            probing = bool(cell.probing) and now - cell.probing < PROBE_SECONDS
            if (now < until or probing) and (found is None or until > found.until):
                found = Cooling(place, max(until, now + 1.0) if probing else until, BY_WORD.get(cell.kind, FailureClass.TRANSIENT), cell.detail, cell.since, now >= until)
        return found

    def enter(self, channel: int, key: int, model: int, now: float) -> Sequence[Cell]:
        """Begin a try. Returns the half-open cells that it probes; nobody else is let through until `leave`."""
        if not self.cells:
            return ()
        probed = []
        for place in places(channel, key, model):
            cell = self.cells.get(place)
            if cell is not None and cell.until and not (cell.probing and now - cell.probing < PROBE_SECONDS):
                cell.probing = now
                probed.append(cell)
        return probed

    def leave(self, probed: Sequence[Cell]) -> None:
        """The try is over, however it ended."""
        for cell in probed:
            cell.probing = 0.0

    # -- hearing -----------------------------------------------------------------------------------------------------

    def succeeded(self, channel: int, key: int, model: int, began: float) -> None:
        """An answer began. What was opened after this try began stays open: the answer says nothing about it."""
        if not self.cells:
            return
        for place in places(channel, key, model):
            cell = self.cells.get(place)
            if cell is None or (cell.until and began < cell.since):
                continue
            cell.failures, cell.recent = 0, (cell.recent << 1) & _MASK
            if cell.until:
                cell.until, cell.opened, cell.kind = 0.0, 0, ""
                cell.foreign = False
                self.changed.add(place)
            if not cell.recent:
                del self.cells[place]

    def failed(self, channel: int, key: int, model: int, failure: Failure, began: float, now: float) -> bool:
        """Take note of a failure. Returns whether it opened a circuit that was closed."""
        kind = failure.kind
        scope = Scope.CHANNEL if failure.unreachable else kind.scope  # an address that nobody answers at is dead for every key and model
        if scope is Scope.NOTHING:
            return False
        place = _place(scope, channel, key, model)
        cell = self.cells.get(place)
        if cell is None or (not cell.until and now - cell.touched > _FORGET):
            cell = self.cells[place] = Cell()
        cell.touched = now
        seconds = failure.wait if failure.wait is not None else failure.cooldown
        if cell.until and began < cell.since:
            # One of those that were under way when the circuit opened: it adds nothing but perhaps a longer wait.
            if seconds is not None and now + seconds > cell.until:
                cell.until = now + seconds
                self.changed.add(place)
            return False
        guessed = failure.guessed
        if guessed:
            cell.failures += 1
            if kind is FailureClass.STREAM_BROKEN:
                cell.recent >>= 1  # its beginning was taken for a success
            cell.recent = (cell.recent << 1 | 1) & _MASK
            if kind.counted and not cell.until and cell.failures < IN_A_ROW and cell.recent.bit_count() < OF_THE_LAST[0]:
                return False
            if cell.until and now < cell.until:
                # Tried although it is open, as the last that was left: that is no probe, and makes nothing longer.
                if cell.partial and cell.recent == _MASK:
                    cell.partial, cell.until = False, now + kind.cooldown
                    self.changed.add(place)
                return False
        fresh = not cell.until
        if seconds is None:
            seconds = min(kind.cooldown * 2.0 ** min(cell.opened, 12), kind.longest)
        if scope is Scope.KEY:
            seconds = min(seconds, kind.longest)  # the key itself is taken out of service, and comes back by a test
        cell.opened += 1
        cell.since, cell.until, cell.foreign = now, now + seconds, False
        cell.kind, cell.detail, cell.failures = kind.word, failure.detail[:200], 0
        cell.partial = guessed and cell.recent != _MASK
        self.changed.add(place)
        return fresh

    # -- others ------------------------------------------------------------------------------------------------------

    def take_over(self, place: Place, since: float, until: float, kind: str, detail: str, opened: int, guessed: bool = False) -> None:
        """Another worker opened a circuit, or opened it again."""
        cell = self.cells.setdefault(place, Cell())
        if not cell.until or until > cell.until:
            cell.since, cell.until, cell.kind, cell.detail, cell.opened, cell.partial, cell.foreign = since, until, kind, detail, opened, guessed, True

    def drop(self, place: Place) -> None:
        """Another worker, or a person, closed a circuit."""
        self.cells.pop(place, None)
        self.changed.discard(place)

    def forget(self, now: float) -> None:
        """Drop what has said nothing for a long time. A circuit whose time came long ago begins anew: nobody has asked since."""
        for place, cell in list(self.cells.items()):
            if now - max(cell.touched, cell.until) > _FORGET and not cell.probing:
                del self.cells[place]
                if cell.until:
                    self.changed.add(place)


def places(channel: int, key: int, model: int) -> tuple[Place, Place, Place, Place]:
    """Every cell that a try at this key of this channel for this model goes through."""
    return (channel, key, model), (channel, key, 0), (channel, 0, model), (channel, 0, 0)


def _place(scope: Scope, channel: int, key: int, model: int) -> Place:
    _, with_key, with_model = scope.value
    return channel, key if with_key else 0, model if with_model else 0
