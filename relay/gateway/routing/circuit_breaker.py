"""Circuit breakers for channels, keys and models: which are cooling down, and when each may be tried again.

Pure: callers pass the time, in seconds since 1970. The place of a circuit is a (channel, key, model), where 0 stands
for all. A failure opens the circuit of its class's scope until the time the upstream gave, or for a period that doubles
with each failure in a row. After that the circuit is half open: one request is let through as a probe, and the others
go elsewhere until it has returned. Success closes the circuit; another failure opens it again for longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay.providers.classify import Failure
from relay.providers.failures import BY_WORD, CooldownScope, FailureClass

CircuitPlace = tuple[int, int, int]

CONSECUTIVE_FAILURES: Final = 5  # that open a circuit, for failure classes of which one is not enough
RECENT_FAILURES: Final = (7, 10)  # failures of the last attempts that open it as well
_MASK: Final = (1 << RECENT_FAILURES[1]) - 1
PROBE_SECONDS: Final = 120.0  # after which a probe that has not returned is ignored
GRACE: Final = 3.0  # seconds in which only the worker that opened a circuit probes it
_FORGET: Final = 600.0  # seconds after which an old failure no longer counts


@dataclass(slots=True)
class Circuit:
    """The circuit of one place. Times are seconds since 1970."""

    failures: int = 0  # in a row
    recent: int = 0  # the last ten attempts as bits, 1: failed
    opened: int = 0  # how many times in a row
    since: float = 0.0  # when it opened
    until: float = 0.0  # when it may be tried again, 0: closed
    probing: float = 0.0  # when its probe began, 0: none
    touched: float = 0.0  # the last failure
    kind: str = ""  # the word of a failure class
    detail: str = ""
    foreign: bool = False  # another worker opened it
    partial: bool = False  # opened on a guess, and some of the last ten attempts succeeded: usable as a last resort


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """An open circuit, as it blocks an attempt. Times are seconds since 1970."""

    place: CircuitPlace
    until: float
    kind: FailureClass
    detail: str
    since: float
    half_open: bool = False  # its time is over, and a probe is in flight


class CircuitBreaker:
    """The circuits of one worker. Used on the event loop only."""

    def __init__(self) -> None:
        self.circuits: dict[CircuitPlace, Circuit] = {}
        self.changed: set[CircuitPlace] = set()  # to be published to the other workers

    # -- attempts ----------------------------------------------------------------------------------------------------

    def blocked(self, channel: int, key: int, model: int, now: float, last_resort: bool = False) -> OpenCircuit | None:
        """The open circuit that blocks this combination now; of several the one that lasts longest.

        `last_resort`: nothing else is left. Partial circuits do not block then: what fails now and then is better than
        nothing. What always fails, or asked for a pause, stays blocked.
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
                    place,
                    max(until, now + 1.0) if probing else until,
                    BY_WORD.get(circuit.kind, FailureClass.TRANSIENT),
                    circuit.detail,
                    circuit.since,
                    now >= until,
                )
        return found

    def enter(self, channel: int, key: int, model: int, now: float) -> Sequence[Circuit]:
        """Begin an attempt. Returns the half-open circuits that it probes; they block all others until `leave`."""
        if not self.circuits:
            return ()
        probed = []
        for place in places(channel, key, model):
            circuit = self.circuits.get(place)
            if (
                circuit is not None
                and circuit.until
                and not (circuit.probing and now - circuit.probing < PROBE_SECONDS)
            ):
                circuit.probing = now
                probed.append(circuit)
        return probed

    def leave(self, probed: Sequence[Circuit]) -> None:
        """The probing attempt has ended, in any way."""
        for circuit in probed:
            circuit.probing = 0.0

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def succeeded(self, channel: int, key: int, model: int, began: float) -> None:
        """An answer began.

        Circuits that opened after the attempt began stay open: the answer says nothing about them.
        """
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
        """Count a failure. Returns whether it opened a circuit that was closed."""
        kind = failure.kind
        # Affects every key and model of the address.
        scope = CooldownScope.CHANNEL if failure.unreachable else kind.scope
        if scope is CooldownScope.NOTHING:
            return False
        place = _place(scope, channel, key, model)
        circuit = self.circuits.get(place)
        if circuit is None or (not circuit.until and now - circuit.touched > _FORGET):
            circuit = self.circuits[place] = Circuit()
        circuit.touched = now
        seconds = failure.wait if failure.wait is not None else failure.cooldown
        if circuit.until and began < circuit.since:
            # It was in flight when the circuit opened, and can only make the wait longer.
            if seconds is not None and now + seconds > circuit.until:
                circuit.until = now + seconds
                self.changed.add(place)
            return False
        guessed = failure.guessed
        if guessed:
            circuit.failures += 1
            if kind is FailureClass.STREAM_BROKEN:
                circuit.recent >>= 1  # its beginning was counted as a success
            circuit.recent = (circuit.recent << 1 | 1) & _MASK
            if (
                kind.counted
                and not circuit.until
                and circuit.failures < CONSECUTIVE_FAILURES
                and circuit.recent.bit_count() < RECENT_FAILURES[0]
            ):
                return False
            if circuit.until and now < circuit.until:
                # Tried as a last resort while open: not a probe, so the wait does not grow.
                if circuit.partial and circuit.recent == _MASK:
                    circuit.partial, circuit.until = False, now + kind.cooldown
                    self.changed.add(place)
                return False
        fresh = not circuit.until
        if seconds is None:
            seconds = min(kind.cooldown * 2.0 ** min(circuit.opened, 12), kind.longest)
        if scope is CooldownScope.KEY:
            seconds = min(seconds, kind.longest)  # the key itself is disabled, and enabled again by a test
        circuit.opened += 1
        circuit.since, circuit.until, circuit.foreign = now, now + seconds, False
        circuit.kind, circuit.detail, circuit.failures = kind.word, failure.detail[:200], 0
        circuit.partial = guessed and circuit.recent != _MASK
        self.changed.add(place)
        return fresh

    # -- other workers -----------------------------------------------------------------------------------------------

    def take_over(
        self,
        place: CircuitPlace,
        since: float,
        until: float,
        kind: str,
        detail: str,
        opened: int,
        guessed: bool = False,
    ) -> None:
        """Another worker opened a circuit, or opened it again."""
        circuit = self.circuits.setdefault(place, Circuit())
        if not circuit.until or until > circuit.until:
            (
                circuit.since,
                circuit.until,
                circuit.kind,
                circuit.detail,
                circuit.opened,
                circuit.partial,
                circuit.foreign,
            ) = since, until, kind, detail, opened, guessed, True

    def drop(self, place: CircuitPlace) -> None:
        """Another worker, or a person, closed a circuit."""
        self.circuits.pop(place, None)
        self.changed.discard(place)

    def forget(self, now: float) -> None:
        """Drop circuits without recent failures, including open ones that have not been tried since their time came."""
        for place, circuit in list(self.circuits.items()):
            if now - max(circuit.touched, circuit.until) > _FORGET and not circuit.probing:
                del self.circuits[place]
                if circuit.until:
                    self.changed.add(place)


def places(channel: int, key: int, model: int) -> tuple[CircuitPlace, CircuitPlace, CircuitPlace, CircuitPlace]:
    """The places of all circuits that an attempt at this channel, key and model passes through."""
    return (channel, key, model), (channel, key, 0), (channel, 0, model), (channel, 0, 0)


def _place(scope: CooldownScope, channel: int, key: int, model: int) -> CircuitPlace:
    _, with_key, with_model = scope.value
    return channel, key if with_key else 0, model if with_model else 0
