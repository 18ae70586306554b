"""What the run sells: models, prices, and what a count of an upstream costs, computed without the portal's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

# Nano-USD of a token, a character, an image and a second. A cent is 10,000,000.
CENT: Final = 10_000_000
BATCH_SHARE: Final = "0.5"  # of the price: AIRELAYS_BATCH_PRICE
_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Tariff:
    """The price of one model in nano-USD, all of them even, so that half of each is whole."""

    input: int = 0
    cached: int = 0
    output: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image: int = 0
    second: int = 0
    character: int = 0

    def price(self) -> dict[str, str]:
        """The fields of a `ModelPrice`: USD per 1M tokens, and per unit."""
        tokens = {"input": self.input, "output": self.output}
        tokens |= {"cached_input": self.cached} if self.cached else {}
        tokens |= {"audio_input": self.audio_input, "audio_output": self.audio_output} if self.audio_input else {}
        units = {"per_image": self.image, "per_second": self.second, "per_character": self.character}
        found = {name: str(Decimal(nano) / 1000) for name, nano in tokens.items()}
        return found | {name: str(Decimal(nano) / 10**9) for name, nano in units.items() if nano}

    def cost(self, counted: Mapping[str, int]) -> int:
        """Nano-USD of what was counted, rounded up.

        `counted`: tokens as `input` and `output`, of which `cached`, `audio_input` (without cached ones) and
        `audio_output` are parts, `images`, `characters` and `milliseconds`.
        """
        cached, heard, spoken = (counted.get(name, 0) for name in ("cached", "audio_input", "audio_output"))
        tokens = (counted.get("input", 0) - cached - heard) * self.input + cached * self.cached
        tokens += heard * self.audio_input + spoken * self.audio_output
        tokens += (counted.get("output", 0) - spoken) * self.output
        units = counted.get("images", 0) * self.image + counted.get("characters", 0) * self.character
        return tokens + units - (-counted.get("milliseconds", 0) * self.second // 1000)


TARIFFS: Final = {
    "text": Tariff(input=2500, cached=250, output=10_000),
    "vectors": Tariff(input=20),
    "speech": Tariff(character=15_000),
    "transcript": Tariff(second=100_000),
    "picture": Tariff(image=40_000_000),
    "talk": Tariff(input=4000, cached=400, output=16_000, audio_input=32_000, audio_output=64_000),
}
# The channels: their priority, whether a request that was not answered is tried elsewhere, and the API for text.
CHANNELS: Final = {
    "a": (5, "always", "both"),
    "b": (5, "broken", "both"),
    "c": (5, "broken", "chat"),
    "spare": (0, "always", "both"),
}
KEYS: Final = 3  # of each channel


def upstream_key(channel: str, number: int) -> str:
    return f"sk-upstream-{channel}-{number}-0123456789abcdef"


def tokens_of(text: str) -> int:
    """The run's own tokenizer: four characters a token."""
    return -(-len(text) // 4)


def add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
