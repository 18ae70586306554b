"""Passes a stream of the Interactions API through: events stay bytes, but for those with ids of interactions. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from portal.lib.json import Json, decode, encode, object_of, objects_of, text_of
from relay.protocols.characters import read_object, read_typed, read_whole_object
from relay.protocols.codec import EventCodec
from relay.protocols.error_objects import event_name, is_error_object, named_error, states, unreadable_error
from relay.protocols.events import NOTHING_MADE, payload, typed_event
from relay.protocols.interactions.errors import stream_error
from relay.protocols.interactions.events import COMPLETED, CREATED, DONE, UPDATED, steps_of
from relay.protocols.interactions.objects import FAILED, REASONS, RUNNING, clean_errors, error_of
from relay.protocols.interactions.usage import SEARCH, parse_interaction_usage, searches_in
from relay.protocols.token_estimate import is_opaque, text_units
from relay.protocols.usage import Usage, newer, present

_UNCOUNTED_LIMIT: Final = 32 * 1024  # bytes of text that are counted at once
_WITH_INTERACTION: Final = frozenset((CREATED, COMPLETED))
_USAGES: Final = (b'"usage"', b'"total_usage"')


class _Typed(msgspec.Struct):
    event_type: object = None


class _Metadata(msgspec.Struct):
    total_usage: msgspec.Raw = msgspec.Raw()


class _Metered(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    metadata: _Metadata | None = None


_typed: Final = msgspec.json.Decoder(_Typed)
_metered: Final = msgspec.json.Decoder(_Metered)


@dataclass(slots=True)
class InteractionStream(EventCodec):
    """The codec of a stream that passes through. `relay.protocols.codec.Codec` describes the attributes."""

    own: Json = field(default_factory=dict)  # members of the interaction that the portal sets in the upstream's place
    stored: bool = False  # the interaction is stored, also one that breaks off
    upstream_id: str = ""  # the upstream's id of the interaction
    token: str = ""  # by which a long answer goes on
    final: Json | None = None  # the complete interaction, after the end
    log: list[bytes] = field(default_factory=list)  # the data of all events that have been returned, where it is stored
    _opening: list[bytes] = field(default_factory=list)  # events held until the answer's first content
    _begun: Json = field(default_factory=dict)  # the interaction at its beginning
    _ended: str = ""  # a state in which it has come to its end, though it has not said that it is completed
    _uncounted: list[bytes] = field(default_factory=list)
    _uncounted_size: int = 0
    _asked: list[Json] = field(default_factory=list)  # steps that search, and deltas of them

    def handle_event(self, event: bytes) -> bytes:
        data = payload(event)
        if not data:
            self.error = named_error(event)
            return event if self.started and self.error is None else b""  # a comment
        if data == b"[DONE]":
            return b""  # the portal's own follows the record
        kind = self._kind(event, data)
        if self.error is not None:
            self.error = self._by_own_id(self.error)
            return b""
        if kind in _WITH_INTERACTION or kind == UPDATED:
            return self._of_interaction(kind, data)
        if any(mark in data for mark in _USAGES):
            self._meter(data)
        return self._pass(event, data)

    def _kind(self, event: bytes, data: bytes) -> str:
        """The type of an event; sets `error` for one, and for what is no event of this API."""
        try:
            typed = read_typed(_typed, data).event_type
        except (msgspec.DecodeError, ValueError, RecursionError):
            self.error = unreadable_error(event, data)
            return ""
        kind = typed if isinstance(typed, str) else event_name(event)
        if kind == "error" or not kind:
            found, _ = read_object(data)
            if found is not None and (kind == "error" or is_error_object(found, False)):
                self.error = encode({"error": object_of(found, "error")}) if object_of(found, "error") else data
        return kind

    def _of_interaction(self, kind: str, data: bytes) -> bytes:
        """An event with the interaction, or with its id."""
        found = read_whole_object(data) or {}
        if kind == UPDATED:
            self.token = text_of(found, "continuation_token") or self.token
            self._ended = "" if text_of(found, "status") in RUNNING else text_of(found, "status")
            if "interaction_id" in found and "id" in self.own:
                found["interaction_id"] = self.own["id"]
            self._meter(data)
            return self._pass(typed_event(kind, (written := encode(found))), written)
        interaction = object_of(found, "interaction")
        self.upstream_id = text_of(interaction, "id") or self.upstream_id
        self.token = text_of(interaction, "continuation_token") or self.token
        interaction.update({name: value for name, value in self.own.items() if name in interaction or name == "id"})
        for name in REASONS:
            if name in interaction:
                interaction[name] = decode(self._by_own_id(encode(interaction[name])))
        error = error_of(interaction) if text_of(interaction, "status") == FAILED else None
        clean_errors(interaction)
        found["interaction"] = interaction
        written = encode(found)
        if kind == CREATED:
            self._begun = interaction
            return self._pass(typed_event(kind, written), written)
        if usage := interaction.get("usage"):
            self.usage = newer(self.usage, parse_interaction_usage(encode(usage)))
        self._asked += objects_of(interaction, "steps")
        if self.usage is not None and not self.usage.searches:
            self.usage = replace(self.usage, searches=searches_in(self._asked, text_of(self._begun, "model")))
        if error is not None and not self.started:
            self.error = error
            return b""
        made = self.started or bool(interaction.get("steps")) or (self.usage is not None and self.usage.output > 0)
        if not made and text_of(interaction, "status") == "completed":
            self.error = NOTHING_MADE
            return b""
        self.failed = error
        return self._end(interaction, written)

    def _end(self, interaction: Json, written: bytes) -> bytes:
        out = b"".join(self._opening)
        self._opening = []
        if self.stored:
            self.final = self._with_steps({**self._begun, **interaction})
            self.log.append(written)
        self.done = self.started = True
        self._terminal = typed_event(COMPLETED, written) + DONE
        return out

    def finish(self, clean: bool = True) -> bytes:
        out = EventCodec.finish(self, clean)
        if not (self.done or self._cut) and self.error is None and self._ended and self.started and clean:
            self.final = self._with_steps({**self._begun, "status": self._ended}) if self.stored else None
            self.done, self._terminal = True, DONE
        return out

    def so_far(self) -> Json:
        """The interaction with what has been returned of it, for one that breaks off."""
        return self._with_steps(dict(self._begun))

    def _with_steps(self, interaction: Json) -> Json:
        return interaction if interaction.get("steps") else {**interaction, "steps": steps_of(self.log)}

    def delivered_units(self) -> float:
        self._count_now()
        return self._units

    def is_opaque(self) -> bool:
        self._count_now()
        return self._opaque

    def media(self) -> Usage:
        """Searches: images and sound have their tokens."""
        return Usage(searches=searches_in(self._asked, text_of(self._begun, "model")))

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return stream_error(message, kind, code, param)

    # -- internals -----------------------------------------------------------------------------------------------------

    def _pass(self, event: bytes, data: bytes) -> bytes:
        """An event to be sent on. Those before the answer's first content are held: it may be tried elsewhere."""
        if self.stored:
            self.log.append(data)
        if SEARCH.encode() in data:
            found = read_whole_object(data) or {}
            self._asked += [object_of(found, "step"), object_of(found, "delta")]
        if not self.started and not _says_something(data):
            self._opening.append(event)
            return b""
        self.started = True
        self._uncounted.append(data)
        self._uncounted_size += len(data)
        if self._uncounted_size > _UNCOUNTED_LIMIT:
            self._count_now()
        if self._opening:
            event = b"".join((*self._opening, event))
            self._opening = []
        return event

    def _by_own_id(self, error: bytes) -> bytes:
        """What went wrong, with the portal's id of the interaction in place of the upstream's, which nobody can use."""
        own = text_of(self.own, "id")
        return error.replace(self.upstream_id.encode(), own.encode()) if own and self.upstream_id else error

    def _meter(self, data: bytes) -> None:
        """Take over the usage in an event, for an answer that breaks off."""
        try:
            found = read_typed(_metered, data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return
        raw = found.usage if present(found.usage) else found.metadata.total_usage if found.metadata else msgspec.Raw()
        if present(raw):
            self.usage = newer(self.usage, parse_interaction_usage(raw))

    def _count_now(self) -> None:
        pieces, self._uncounted, self._uncounted_size = self._uncounted, [], 0
        if pieces:
            data = b"\n".join(pieces)
            self._units += text_units(data)
            self._opaque = self._opaque or is_opaque(data)


def _says_something(data: bytes) -> bool:
    """Whether an event is more than the head of the interaction, or of a step."""
    if b'"step.delta"' in data:
        return True
    step = object_of(read_whole_object(data) or {}, "step")
    return any(states(value) for name, value in step.items() if name != "type")
