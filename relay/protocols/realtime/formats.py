"""The formats of audio in a realtime session, as bytes in a second. Pure.

Source: OpenAI's Realtime reference (`audio/pcm` at 24 kHz, `audio/pcmu`, `audio/pcma`; `pcm16`, `g711_ulaw`,
`g711_alaw` in older sessions), xAI's (other rates) and vLLM's server (16 kHz, nothing of it in its events), November
2026. What a format does not say, or one that is not known here, counts as 16-bit samples at 24 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, object_of, text_of

SAMPLES: Final = 48_000  # bytes per second of 16-bit samples at 24 kHz
STREAMED: Final = 32_000  # at 16 kHz
_RATES: Final = (8_000, 48_000)  # samples in a second, at least and at most
_MOST_RESPONSES: Final = 64
# Bytes of a sample, and samples in a second unless the format says so.
_FORMATS: Final = {
    "audio/pcm": (2, 24_000),
    "pcm16": (2, 24_000),
    "audio/pcmu": (1, 8_000),
    "audio/pcma": (1, 8_000),
    "g711_ulaw": (1, 8_000),
    "g711_alaw": (1, 8_000),
}


def bytes_per_second(session: Json, direction: str) -> int | None:
    """Of the audio that a session, or a response, has as `input` or `output`; None where it does not say."""
    audio = object_of(object_of(session, "audio"), direction)
    found = audio["format"] if "format" in audio else session.get(f"{direction}_audio_format")
    if not isinstance(found, (str, dict)):
        return None
    kind, rate = (found, None) if isinstance(found, str) else (text_of(found, "type"), found.get("rate"))
    width, samples = _FORMATS.get(kind, _FORMATS["pcm16"])
    if isinstance(rate, (int, float)) and _RATES[0] <= rate <= _RATES[1]:
        samples = int(rate)
    return width * samples


@dataclass(slots=True)
class Formats:
    """The formats of one session. What it was asked for is not in force before the upstream says so."""

    _input: int = SAMPLES
    _output: int = SAMPLES
    _asked: int | None = None  # of the input, by a client whose upstream has not told the session since
    _told: bool = False  # the upstream tells the format of the input
    _responses: dict[str, int] = field(default_factory=dict)  # of the output of single responses, by id

    @property
    def input(self) -> int:
        """While two formats may be in force, that in which as many bytes last longer."""
        return self._input if self._asked is None else min(self._input, self._asked)

    def output(self, response_id: str) -> int:
        return self._responses.get(response_id, self._output)

    def ask(self, session: Json) -> None:
        """A client asks for the formats of a session."""
        found = bytes_per_second(session, "input")
        if found is not None:
            self._asked = found if self._asked is None else min(found, self._asked)

    def tell(self, session: Json) -> None:
        """The upstream tells its session."""
        found = bytes_per_second(session, "input")
        if found is not None:
            self._input, self._asked, self._told = found, None, True
        self._output = bytes_per_second(session, "output") or self._output

    def refused(self) -> None:
        """The upstream refused an event, which may have been the one that asked."""
        if self._told:
            self._asked = None

    def begin(self, response_id: str, response: Json) -> None:
        """A response begins, which may have a format of its own."""
        found = bytes_per_second(response, "output")
        if found is not None:
            if len(self._responses) >= _MOST_RESPONSES:
                del self._responses[next(iter(self._responses))]
            self._responses[response_id] = found

    def stream(self) -> None:
        """The session is of vLLM's protocol."""
        self._input, self._asked = STREAMED, None
