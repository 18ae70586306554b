"""Circuit breakers for channels, keys and models: which are cooling down, and when each may be tried again.

Pure: callers pass the time, in seconds since 1970. The place of a circuit is a (channel, key, model), where 0 stands
for all. A failure that proves something about the upstream (`is_proof`) opens the circuit of its class's scope until
the time the upstream gave, or for a period that doubles with each failure in a row. Any other failure may be the doing
of the request: it counts, and opens the circuit when the requests of at least two users failed in the same way without
a success in between. What one user's requests alone suggest is for a breaker of that user's own
(`relay.gateway.routing.suspicions`).

When its time is over the circuit is half open: one request is let through as a probe, and the others go elsewhere until
it has returned. Where there is no elsewhere, all pass if the upstream itself had named the time, and a number that
doubles each second if not. Success closes the circuit; another failure opens it again for longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from relay.providers.classify import Failure
from relay.providers.failures import BY_WORD, CooldownScope, FailureClass

CircuitPlace = tuple[int, int, int]

CONSECUTIVE_FAILURES: Final = 5  # that open a circuit, for failure classes of which one is not enough
RECENT_FAILURES: Final = (7, 10)  # failures of the last attempts that open it as well
PROBE_SECONDS: Final = 120.0  # after which a probe that has not returned is ignored
GRACE: Final = 3.0  # seconds in which only the worker that opened a circuit probes it
_LOGGED: Final = 20_000  # changes that are kept for those who follow them
_FORGET: Final = 600.0  # seconds after which an old failure no longer counts
_FIRST_GUESS: Final = 60.0  # seconds of the longest first cooldown when it is not proven that it is needed
_LONGEST_OWN: Final = 300.0  # seconds of the longest cooldown for the requests of one user
_LIMITS: Final = frozenset((FailureClass.RATE, FailureClass.QUOTA_WINDOW, FailureClass.OVERLOAD))
_WAIT_STATUSES: Final = frozenset((429, 498, 503, 529))  # with which an upstream says when to come back
# A pause that an upstream names is believed for no longer; after that, one request asks again.
_LONGEST_PAUSE: Final = {FailureClass.RATE: 3600.0, FailureClass.OVERLOAD: 3600.0, FailureClass.QUOTA_WINDOW: 86_400.0}
# Failures that, while none of the last ten attempts succeeded, are reason enough to answer for the upstream.
_MAY_BE_DOWN: Final = frozenset((FailureClass.RATE, FailureClass.OVERLOAD))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended: whose request it was, and the group of its failure, empty for a success."""

    user: int
    failed: str
    at: float  # seconds since 1970
    began: bool = False  # an answer began, and broke off


@dataclass(slots=True)
class Circuit:
    """The circuit of one place. Times are seconds since 1970."""

    recent: list[Outcome] = field(default_factory=list)  # the last ten attempts
    opened: int = 0  # how many times in a row
    since: float = 0.0  # when it opened
    until: float = 0.0  # when it may be tried again, 0: closed
    probing: float = 0.0  # when its latest probe began
    probes: int = 0  # in flight
    touched: float = 0.0  # the last failure
    kind: str = ""  # the word of a failure class
    detail: str = ""
    foreign: bool = False  # another worker opened it
    partial: bool = False  # opened on a guess: usable as a last resort
    named: bool = False  # the upstream named the time

    def note(self, outcome: Outcome) -> None:
        """Add the outcome of an attempt."""
        self.recent.append(outcome)
        del self.recent[: -RECENT_FAILURES[1]]

    def in_a_row(self, group: str) -> list[int]:
        """The users of the failures of a group since the last success; of an open circuit, since it opened."""
        found = []
        for outcome in reversed(self.recent):
            if not outcome.failed or (self.until and outcome.at <= self.since):
                break
            if outcome.failed == group:
                found.append(outcome.user)
            if outcome.began:
                break
        return found

    def never_succeeds(self, alone: bool) -> bool:
        """Whether all of the last ten attempts failed."""
        users = [outcome.user for outcome in self.recent if outcome.failed]
        return _enough(users, RECENT_FAILURES[1], alone)


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """An open circuit, as it blocks an attempt. Times are seconds since 1970."""

    place: CircuitPlace
    until: float
    kind: FailureClass
    detail: str
    since: float
    half_open: bool = False  # its time is over, and a probe is in flight
    named: bool = False  # the upstream named the time; else it is a guess
    own: bool = False  # only for the requests of the user who asks


def is_proof(failure: Failure) -> bool:
    """Whether a single failure says something about the upstream, whoever asked and whatever they asked for.

    So do a connection that could not be made, since not a byte of the request had been sent; a code that the vendor
    reserves for our key, account or quota; a pause that a header or member names, with a status that promises one;
    and rules of the administrator. Everything else a request may have caused, or is about one API: also a redirect, a
    5xx, with or without a body (a request that crashes a server behind a proxy gets one), a timeout, a limit that has
    room for smaller requests, and a text of any kind. Whether a key may use a model is no proof either, since a model
    can be one that the client chose: a member of a family, a tool's, a transcription's.
    """
    kind = failure.kind
    if failure.ordered or failure.unreachable:
        return True
    if kind is FailureClass.CONFIG:
        return failure.status == 0
    if kind in {FailureClass.KEY_DEAD, FailureClass.BILLING}:
        return failure.reserved
    if kind in _LIMITS and failure.wait is not None and failure.shared_part:
        return failure.reserved or (failure.wait_named and failure.status in _WAIT_STATUSES)
    return False


class CircuitBreaker:
    """The circuits of one worker. Used on the event loop only."""

    def __init__(self, own: bool = False) -> None:
        """`own`: for the requests of one user only, so that their failures alone are enough."""
        self.circuits: dict[CircuitPlace, Circuit] = {}
        self.changed: set[CircuitPlace] = set()  # to be published to the other workers
        self._own = own
        self._log: list[CircuitPlace] = []  # the latest places whose circuits changed
        self._logged = 0  # how many were dropped from it

    # -- what changed ------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """How many changes there have been."""
        return self._logged + len(self._log)

    def since(self, position: int) -> Sequence[CircuitPlace] | None:
        """The places of the changes after a position, None: they are not known any more."""
        if position < self._logged:
            return None
        return self._log[position - self._logged :] if position < self.position else ()

    def note(self, place: CircuitPlace) -> None:
        """Something changed at a place that may let attempts through, or block them."""
        if self._own:
            return
        if len(self._log) >= _LOGGED:
            del self._log[: _LOGGED // 2]
            self._logged += _LOGGED // 2
        self._log.append(place)

    def _change(self, place: CircuitPlace) -> None:
        self.changed.add(place)
        self.note(place)

    # -- attempts ----------------------------------------------------------------------------------------------------

    def blocked(self, at: CircuitPlace, now: float, last_resort: bool = False) -> OpenCircuit | None:
        """The open circuit that blocks an attempt at this place now; of several the one that lasts longest.

        `last_resort`: nothing else is left. Partial circuits do not block then: what fails now and then is better than
        nothing; nor do half-open ones, as the top of this file says. What always fails, or asked for a pause, stays
        blocked.
        """
        if not self.circuits:
            return None
        found: OpenCircuit | None = None
        for place in places(at):
            until = self.closed_until(place, now, last_resort)
            if until and (found is None or until > found.until):
                circuit = self.circuits[place]
                found = OpenCircuit(
                    place,
                    until,
                    BY_WORD.get(circuit.kind, FailureClass.TRANSIENT),
                    circuit.detail,
                    circuit.since,
                    now >= (circuit.until + GRACE if circuit.foreign and not last_resort else circuit.until),
                    circuit.named,
                    self._own,
                )
        return found

    def closed_until(self, place: CircuitPlace, now: float, last_resort: bool = False) -> float:
        """Until when this circuit alone blocks an attempt, as `blocked`; 0: it does not.

        One that waits for a probe is to be asked again in a second.
        """
        circuit = self.circuits.get(place)
        if circuit is None or not circuit.until or (last_resort and circuit.partial):
            return 0.0
        until = circuit.until + GRACE if circuit.foreign and not last_resort else circuit.until
        if now < until:
            return until
        probing = bool(circuit.probes) and now - circuit.probing < PROBE_SECONDS
        if probing and last_resort:
            probing = not circuit.named and circuit.probes >= 2 ** min(int(now - until), 10)
        return max(until, now + 1.0) if probing else 0.0

    def enter(self, at: CircuitPlace, now: float) -> Sequence[Circuit]:
        """Begin an attempt. Returns the open circuits that it probes, for `leave`; while it does, others go elsewhere.

        An attempt while another one is the probe is no reason to wait longer for that one.
        """
        if not self.circuits:
            return ()
        probed = []
        for place in places(at):
            circuit = self.circuits.get(place)
            if circuit is not None and circuit.until:
                if not circuit.probes or now - circuit.probing >= PROBE_SECONDS:
                    circuit.probing, circuit.probes = now, 0
                circuit.probes += 1
                probed.append(circuit)
        return probed

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def succeeded(self, at: CircuitPlace, began: float) -> None:
        """An answer began.

        Circuits that opened after the attempt began stay open: the answer says nothing about them.
        """
        if not self.circuits:
            return
        for place in places(at):
            circuit = self.circuits.get(place)
            if circuit is None or (circuit.until and began < circuit.since):
                continue
            circuit.note(_SUCCESS)
            if circuit.until:
                circuit.until, circuit.since, circuit.opened, circuit.kind = 0.0, 0.0, 0, ""
                circuit.foreign = circuit.named = False
                self._change(place)
            if not any(outcome.failed for outcome in circuit.recent):
                del self.circuits[place]

    def failed(self, at: CircuitPlace, user: int, failure: Failure, began: float, now: float) -> bool:
        """Count a failure of a user's request. Returns whether it opened a circuit that was closed."""
        kind = failure.kind
        # Affects every key and model of the address.
        scope = CooldownScope.CHANNEL if failure.unreachable else kind.scope
        if scope is CooldownScope.NOTHING or not (failure.shared_part or self._own):
            return False
        place = _place(scope, at)
        circuit = self.circuits.get(place)
        if circuit is None or (not circuit.until and now - circuit.touched > _FORGET):
            circuit = self.circuits[place] = Circuit()
        circuit.touched = now
        proof = is_proof(failure)
        if circuit.until and began < circuit.since:
            # It was in flight when the circuit opened, and can only make the wait longer.
            until = now + self._seconds(circuit, failure, proof)
            if (proof or self._own) and failure.wait is not None and until > circuit.until:
                circuit.until = until
                self._change(place)
            return False
        broke_off = kind is FailureClass.STREAM_BROKEN
        if broke_off and circuit.recent and not circuit.recent[-1].failed:
            circuit.recent.pop()  # its beginning was counted as a success
        circuit.note(Outcome(user, _group(kind), now, broke_off))
        if not proof:
            if circuit.until and now < circuit.until:
                # Tried as a last resort while open: not a probe, so the wait does not grow.
                if circuit.partial and self._may_be_down(circuit, kind):
                    circuit.partial, circuit.until = False, now + kind.cooldown
                    self._change(place)
                return False
            if not self._suffices(circuit, failure):
                return False
        fresh = not circuit.until
        seconds = self._seconds(circuit, failure, proof)
        circuit.opened += 1
        circuit.since, circuit.until, circuit.foreign = now, now + seconds, False
        circuit.kind, circuit.detail = kind.word, failure.detail[:200]
        circuit.partial = not proof and not (failure.shared_part and self._may_be_down(circuit, kind))
        circuit.named = failure.wait is not None and (proof or self._own)
        self._change(place)
        return fresh

    def _suffices(self, circuit: Circuit, failure: Failure) -> bool:
        """Whether the latest failures open a circuit, or open it again, though the last one proves nothing."""
        kind = failure.kind
        users = circuit.in_a_row(_group(kind))
        if not kind.counted or circuit.until or (self._own and failure.wait is not None):
            return self._own or len(set(users)) > 1
        recent = [outcome.user for outcome in circuit.recent if outcome.failed == _group(kind)]
        return _enough(users, CONSECUTIVE_FAILURES, self._own) or _enough(recent, RECENT_FAILURES[0], self._own)

    def _may_be_down(self, circuit: Circuit, kind: FailureClass) -> bool:
        """Whether to answer for an upstream of which it is only a guess that it is best left alone."""
        return (kind.counted or kind in _MAY_BE_DOWN) and circuit.never_succeeds(self._own)

    def _seconds(self, circuit: Circuit, failure: Failure, proof: bool) -> float:
        """How long a circuit that this failure opens stays open."""
        kind = failure.kind
        if proof and (failure.wait is not None or failure.cooldown is not None):
            seconds = failure.cooldown or 0.0 if failure.wait is None else failure.wait * failure.shared_part
            if kind.scope is CooldownScope.KEY:
                return min(seconds, kind.longest)  # the key itself is disabled, and enabled again by a test
            return min(seconds, _LONGEST_PAUSE.get(kind, seconds)) if not failure.ordered else seconds
        doubled = 2.0 ** min(circuit.opened, 12)
        if proof:
            return min(kind.cooldown * doubled, kind.longest)
        if self._own and failure.wait is not None:
            return min(failure.wait, _LONGEST_OWN)
        return min(
            min(kind.cooldown, _FIRST_GUESS) * doubled, kind.longest, _LONGEST_OWN if self._own else kind.longest
        )

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
        self.note(place)
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
            circuit.named = not guessed and BY_WORD.get(kind) in _LIMITS

    def drop(self, place: CircuitPlace) -> None:
        """Another worker, or a person, closed a circuit."""
        if self.circuits.pop(place, None) is not None:
            self.note(place)
        self.changed.discard(place)

    def forget(self, now: float) -> None:
        """Drop circuits without recent failures, including open ones that have not been tried since their time came."""
        for place, circuit in list(self.circuits.items()):
            if now - max(circuit.touched, circuit.until) > _FORGET and not circuit.probes:
                del self.circuits[place]
                if circuit.until:
                    self._change(place)


def leave(probed: Iterable[Circuit]) -> None:
    """The attempt that probes these circuits has ended, in any way, or its answer has begun."""
    for circuit in probed:
        circuit.probes = max(circuit.probes - 1, 0)


def places(at: CircuitPlace) -> tuple[CircuitPlace, CircuitPlace, CircuitPlace, CircuitPlace]:
    """The places of all circuits that an attempt at this channel, key and model passes through."""
    channel, key, model = at
    return at, (channel, key, 0), (channel, 0, model), (channel, 0, 0)


def _place(scope: CooldownScope, at: CircuitPlace) -> CircuitPlace:
    _, with_key, with_model = scope.value
    channel, key, model = at
    return channel, key if with_key else 0, model if with_model else 0


def _group(kind: FailureClass) -> str:
    """Which failures are the same: those that are counted, as signs of an upstream that is down, or one class."""
    return "down" if kind.counted else kind.word


def _enough(users: Sequence[int], number: int, alone: bool) -> bool:
    """Whether there are so many failures, and, unless `alone`, at least two of them are of other users than the rest.

    So a user whose every request fails needs others to fail as well, more than once, before it concerns everybody.
    """
    if alone:
        return len(users) >= number
    return sum(min(count, number - 2) for count in Counter(users).values()) >= number


_SUCCESS: Final = Outcome(0, "", 0.0)
