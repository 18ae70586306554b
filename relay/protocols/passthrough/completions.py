"""The codec of streams of legacy completions, which may repeat their prompts before they answer. Pure.

vLLM sends a prompt in the first chunk of each choice, others in pieces like the answer. What is repeated is no output
of the model: it counts neither where no usage is reported nor against what a report may be.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from portal.lib.json import decode_object, encode, objects_of, text_of
from relay.protocols.chat_completions.stream import HOLD_LIMIT, ChatStream
from relay.protocols.sse import event_data, split_events
from relay.protocols.token_estimate import token_units

_LONGEST_ESCAPE = 6  # bytes of a character: \uXXXX


@dataclass(slots=True)
class _Repetition:
    """What one choice has repeated so far."""

    prompts: tuple[str, ...]  # that it may be repeating
    characters: int = 0
    units: float = 0.0
    over: bool = False

    def read(self, text: str) -> None:
        """Read the next piece of the choice."""
        at = self.characters
        going = tuple(one for one in self.prompts if one.startswith(text[: len(one) - at], at))
        whole = [one for one in going if len(one) <= at + len(text)]
        if not going:
            self.units, self.over = 0.0, True  # it was the beginning of an answer
            return
        repeated = text[: max(map(len, whole)) - at] if whole else text
        self.units += token_units(encode(repeated).strip(b'"'))
        self.prompts, self.characters, self.over = going, at + len(text), bool(whole)


class CompletionStream(ChatStream):
    """The codec of one stream. `relay.protocols.codec.Codec` describes what is inherited."""

    echoed: tuple[str, ...] = ()  # the prompts that it may repeat
    _repetitions: dict[int, _Repetition] = msgspec.field(default_factory=dict)  # by choice
    _repeating: bool = True  # a choice may still be

    def delivered_units(self) -> float:
        repeated = sum(one.units for one in self._repetitions.values())
        return max(0.0, ChatStream.delivered_units(self) - repeated)

    def _hold(self, buffer: bytes) -> bytes:
        longest = max(map(len, self.echoed), default=0)
        if self._repeating and longest and len(buffer) <= HOLD_LIMIT + _LONGEST_ESCAPE * longest:
            self._held = buffer  # until the event is whole, of which the request had the most
            return b""
        return ChatStream._hold(self, buffer)

    def _count_text(self, data: bytes) -> None:
        if self._repeating:
            self._read_repetitions(data)
        ChatStream._count_text(self, data)

    def _read_repetitions(self, events: bytes) -> None:
        for event in split_events(events):
            for position, choice in enumerate(objects_of(decode_object(event_data(event)) or {}, "choices")):
                index = choice.get("index")
                index = index if isinstance(index, int) else position
                if not 0 <= index < self.choices:
                    continue
                found = self._repetitions.setdefault(index, _Repetition(self.echoed))
                if not found.over:
                    found.read(text_of(choice, "text"))
        ended = sum(one.over for one in self._repetitions.values())
        self._repeating = ended < self.choices and bool(self.echoed)
