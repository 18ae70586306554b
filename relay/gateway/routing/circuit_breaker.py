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
from relay.providers.failures import BY_WORD, CooldownScope, FailureClass

CircuitPlace = tuple[int, int, int]

IN_A_ROW: Final = 5  # failures that open the circuit, for classes of which it takes several
OF_THE_LAST: Final = (7, 10)  # or so many of the last
_MASK: Final = (1 << OF_THE_LAST[1]) - 1
PROBE_SECONDS: Final = 120.0  # after which a probe that never came back is given up
GRACE: Final = 3.0  # seconds that the worker which opened a circuit has to probe it, before the others do
_FORGET: Final = 600.0  # seconds after which an old failure says nothing any more


@dataclass(slots=True)
class Circuit:
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
class OpenCircuit:
    """Why something is out of service, and until when. `half_open`: the time has come, and a probe is under way."""

    place: CircuitPlace
    until: float
    kind: FailureClass
    detail: str
    since: float
    half_open: bool = False


class CircuitBreaker:
    """The circuits of one worker. `changed`: places that others should hear of. Used on the event loop only."""

    def __init__(self) -> None:
        self.circuits: dict[CircuitPlace, Circuit] = {}
        self.changed: set[CircuitPlace] = set()

    # -- asking ------------------------------------------------------------------------------------------------------

    def blocked(self, channel: int, key: int, model: int, now: float, last_resort: bool = False) -> OpenCircuit | None:
        """What keeps this combination from being tried now; of several the one that lasts longest.

        `last_resort`: nothing else is left. What fails now and then is better than nothing; what always fails, or asked to be left alone, is not.
        """
        if not self.circuits:
            return None
        found: OpenCircuit | None = None
        for place in places(channel, key, model):
            circuit = self.circuits.get(place)
            if circuit is None or not circuit.until or (last_resort and circuit.partial):
                continue
            until = circuit.until + GRACE if circuit.foreign else circuit.until
            probing = bool(circuit.probing) and now - circuit.probing < PROBE_SECONDS
            if (now < until or probing) and (found is None or until > found.until):
                found = OpenCircuit(
                    place, max(until, now + 1.0) if probing else until, BY_WORD.get(circuit.kind, FailureClass.TRANSIENT), circuit.detail, circuit.since, now >= until
                )
        return found

    def enter(self, channel: int, key: int, model: int, now: float) -> Sequence[Circuit]:
        """Begin a try. Returns the half-open cells that it probes; nobody else is let through until `leave`."""
        if not self.circuits:
            return ()
        probed = []
        for place in places(channel, key, model):
            circuit = self.circuits.get(place)
            if circuit is not None and circuit.until and not (circuit.probing and now - circuit.probing < PROBE_SECONDS):
                circuit.probing = now
                probed.append(circuit)
        return probed

    def leave(self, probed: Sequence[Circuit]) -> None:
        """The try is over, however it ended."""
        for circuit in probed:
            circuit.probing = 0.0

    # -- hearing -----------------------------------------------------------------------------------------------------

    def succeeded(self, channel: int, key: int, model: int, began: float) -> None:
        """An answer began. What was opened after this try began stays open: the answer says nothing about it."""
        if not self.circuits:
            return
        for place in places(channel, key, model):
            circuit = self.circuits.get(place)
            if circuit is None or (circuit.until and began < circuit.since):
                continue
            circuit.failures, circuit.recent = 0, (circuit.recent << 1) & _MASK
            if circuit.until:
                circuit.until, circuit.opened, circuit.kind = 0.0, 0, ""
                circuit.foreign = False
                self.changed.add(place)
            if not circuit.recent:
                del self.circuits[place]

    def failed(self, channel: int, key: int, model: int, failure: Failure, began: float, now: float) -> bool:
        """Take note of a failure. Returns whether it opened a circuit that was closed."""
        kind = failure.kind
        scope = CooldownScope.CHANNEL if failure.unreachable else kind.scope  # an address that nobody answers at is dead for every key and model
        if scope is CooldownScope.NOTHING:
            return False
        place = _place(scope, channel, key, model)
        circuit = self.circuits.get(place)
        if circuit is None or (not circuit.until and now - circuit.touched > _FORGET):
            circuit = self.circuits[place] = Circuit()
        circuit.touched = now
        seconds = failure.wait if failure.wait is not None else failure.cooldown
        if circuit.until and began < circuit.since:
            # One of those that were under way when the circuit opened: it adds nothing but perhaps a longer wait.
            if seconds is not None and now + seconds > circuit.until:
                circuit.until = now + seconds
                self.changed.add(place)
            return False
        guessed = failure.guessed
        if guessed:
            circuit.failures += 1
            if kind is FailureClass.STREAM_BROKEN:
                circuit.recent >>= 1  # its beginning was taken for a success
            circuit.recent = (circuit.recent << 1 | 1) & _MASK
            if kind.counted and not circuit.until and circuit.failures < IN_A_ROW and circuit.recent.bit_count() < OF_THE_LAST[0]:
                return False
            if circuit.until and now < circuit.until:
                # Tried although it is open, as the last that was left: that is no probe, and makes nothing longer.
                if circuit.partial and circuit.recent == _MASK:
                    circuit.partial, circuit.until = False, now + kind.cooldown
                    self.changed.add(place)
                return False
        fresh = not circuit.until
        if seconds is None:
            seconds = min(kind.cooldown * 2.0 ** min(circuit.opened, 12), kind.longest)
        if scope is CooldownScope.KEY:
            seconds = min(seconds, kind.longest)  # the key itself is taken out of service, and comes back by a test
        circuit.opened += 1
        circuit.since, circuit.until, circuit.foreign = now, now + seconds, False
        circuit.kind, circuit.detail, circuit.failures = kind.word, failure.detail[:200], 0
        circuit.partial = guessed and circuit.recent != _MASK
        self.changed.add(place)
        return fresh

    # -- others ------------------------------------------------------------------------------------------------------

    def take_over(self, place: CircuitPlace, since: float, until: float, kind: str, detail: str, opened: int, guessed: bool = False) -> None:
        """Another worker opened a circuit, or opened it again."""
        circuit = self.circuits.setdefault(place, Circuit())
        if not circuit.until or until > circuit.until:
            circuit.since, circuit.until, circuit.kind, circuit.detail, circuit.opened, circuit.partial, circuit.foreign = since, until, kind, detail, opened, guessed, True

    def drop(self, place: CircuitPlace) -> None:
        """Another worker, or a person, closed a circuit."""
        self.circuits.pop(place, None)
        self.changed.discard(place)

    def forget(self, now: float) -> None:
        """Drop what has said nothing for a long time. A circuit whose time came long ago begins anew: nobody has asked since."""
        for place, circuit in list(self.circuits.items()):
            if now - max(circuit.touched, circuit.until) > _FORGET and not circuit.probing:
                del self.circuits[place]
                if circuit.until:
                    self.changed.add(place)


def places(channel: int, key: int, model: int) -> tuple[CircuitPlace, CircuitPlace, CircuitPlace, CircuitPlace]:
    """Every cell that a try at this key of this channel for this model goes through."""
    return (channel, key, model), (channel, key, 0), (channel, 0, model), (channel, 0, 0)


def _place(scope: CooldownScope, channel: int, key: int, model: int) -> CircuitPlace:
    _, with_key, with_model = scope.value
    return channel, key if with_key else 0, model if with_model else 0
