"""Prices from ratios: a ratio of 1 is one unit of quota a token. 500,000 units are 1 USD unless an option says else.

one-api looks a price up by the name that the channel's mapping gives, and may have one a type of channel; new-api by
the name that the client sent. Both round each request up to a whole unit of quota; here it is a nano-USD.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Final

from relay.importers.description import Level, Remark, SourceChannel, SourcePrice
from relay.importers.one_api.expressions import NoTiers, Tiers, read_tiers
from relay.importers.one_api.ratios import new_api_ratio, one_api_ratio, priced_as
from relay.importers.one_api.settings import ProgramOptions, compiled

_MILLION: Final = 1_000_000
_UNKNOWN: Final = {"one-api": Decimal(30), "new-api": Decimal("37.5")}  # ratios of models without one
_HOUR: Final = Decimal("1.6")  # a cache write for an hour costs so much more than one for five minutes
_WRITE: Final = Decimal("1.25")  # of Claude, where no option says it
_IMAGES: Final = ("dall-e", "gpt-image", "imagen", "flux", "cogview", "wanx", "stable-diffusion")


class Prices:
    """The prices of one installation."""

    def __init__(self, program: str, options: ProgramOptions) -> None:
        self._program, self._options = program, options
        self._usd = _MILLION / options.quota_per_usd  # USD per 1M tokens at the ratio 1
        self._tables = {
            name: options.table(name)
            for name in (
                "ModelRatio", "CompletionRatio", "CacheRatio", "CreateCacheRatio", "ModelPrice", "ImageRatio",
                "AudioRatio", "AudioCompletionRatio",
            )
        }  # fmt: skip
        modes = options.json("billing_setting.billing_mode")
        expressions = options.json("billing_setting.billing_expr")
        self._modes = modes if isinstance(modes, dict) else {}
        self._expressions = expressions if isinstance(expressions, dict) else {}

    def of_channels(self, channels: Iterable[tuple[SourceChannel, int, Mapping[str, str]]]) -> Iterator[SourcePrice]:
        """The prices of all models of channels: `(channel, number of its type, what it maps models to)`."""
        first: dict[str, Tiers] = {}
        for channel, number, mapping in channels:
            for route in channel.routes:
                own = self._of(route.model, mapping.get(route.model) or route.model, number)
                if route.model not in first:
                    found, remarks = own
                    first[route.model] = found
                    yield SourcePrice(
                        id=id_of_model(route.model),
                        name=route.model,
                        tiers=found,
                        remarks=remarks,
                        left_out=_why(found, remarks),
                    )
                elif own[0] and own[0] != first[route.model]:
                    yield SourcePrice(
                        id=f"{channel.id}:{id_of_model(route.model)}",
                        name=route.model,
                        channel=channel.id,
                        tiers=own[0],
                        remarks=(Remark(f"It has a price of its own on the channel “{channel.name}”.", Level.NOTE),),
                    )

    def _of(self, model: str, mapped: str, number: int) -> tuple[Tiers, tuple[Remark, ...]]:
        if self._program == "one-api":
            return self._by_ratio_of_type(mapped, number)
        return self._of_new_api(model)

    def _by_ratio_of_type(self, name: str, number: int) -> tuple[Tiers, tuple[Remark, ...]]:
        plain = name
        if name.startswith(("qwen-", "command-")) and name.endswith("-internet"):
            plain = name.removesuffix("-internet")
        ratio = self._either("ModelRatio", plain, number)
        remarks: tuple[Remark, ...] = ()
        if ratio is None:
            ratio = _UNKNOWN["one-api"]
            remarks = (Remark("It had no ratio there, so that the highest one, 30, was charged: as here."),)
        more = plain if name.startswith("qwen-") else name
        completion = self._either("CompletionRatio", more, number)
        if completion is None:
            completion = one_api_ratio(more)
        price = ratio * self._usd
        return ((0, {"input": price, "output": price * completion}),), remarks

    def _either(self, table: str, name: str, number: int) -> Decimal | None:
        """A number of the option or compiled in, of the channel's type before that of all."""
        for key in (f"{name}({number})", name):
            for found in (self._tables[table], compiled(self._program, table)):
                if key in found:
                    return found[key]
        return None

    def _of_new_api(self, model: str) -> tuple[Tiers, tuple[Remark, ...]]:
        if self._modes.get(model) == "tiered_expr":
            expression = self._expressions.get(model)
            try:
                return read_tiers(str(expression or "")), ()
            except NoTiers:
                text = "Its price is an expression that is more than tiers of prices: set one here."
                return (), (Remark(text, Level.LEFT_OUT),)
        name = priced_as(model)
        price = self._tables["ModelPrice"].get(name)
        if price is not None and price >= 0:
            return self._by_call(model, price)
        ratio = self._tables["ModelRatio"].get(name)
        remarks: tuple[Remark, ...] = ()
        if ratio is None:
            if not self._options.flag("SelfUseModeEnabled"):
                return (), (Remark("It had no price there, so that it was refused: as here.", Level.LEFT_OUT),)
            ratio = _UNKNOWN["new-api"]
            remarks = (Remark("It had no ratio there, so that 37.5 was charged: as here."),)
        return ((0, self._classes(name, ratio)),), remarks

    def _by_call(self, model: str, price: Decimal) -> tuple[Tiers, tuple[Remark, ...]]:
        if any(part in model.lower() for part in _IMAGES):
            text = "Its price is of an image of the plain size: there, larger and better ones cost a multiple of it."
            return ((0, {"input": Decimal(0), "output": Decimal(0), "per_image": price}),), (Remark(text),)
        return ((0, {"input": Decimal(0), "output": Decimal(0), "per_call": price}),), ()

    def _classes(self, name: str, ratio: Decimal) -> Mapping[str, Decimal]:
        price = ratio * self._usd
        tables = self._tables
        completion, fixed = new_api_ratio(name)
        if not fixed or "/" in name:
            completion = tables["CompletionRatio"].get(name, completion)
        found = {"input": price, "output": price * completion}
        if (cached := tables["CacheRatio"].get(name)) is not None:
            found["cached_input"] = price * cached
        write = tables["CreateCacheRatio"].get(name, _WRITE if "claude" in name.lower() else None)
        if write is not None:
            found["cache_write"] = price * write
            if "claude" in name.lower():
                found["cache_write_1h"] = price * write * _HOUR
        if (image := tables["ImageRatio"].get(name)) is not None:
            found["image_input"] = price * image
        if (audio := tables["AudioRatio"].get(name)) is not None:
            found["audio_input"] = price * audio
            found["audio_output"] = price * audio * tables["AudioCompletionRatio"].get(name, Decimal(1))
        return found


def id_of_model(name: str) -> str:
    """An id for a name that other letter cases do not share: MySQL keeps them not apart."""
    return name if name == name.lower() else f"{name[:100]}#{sha256(name.encode()).hexdigest()[:16]}"


def _why(tiers: Tiers, remarks: tuple[Remark, ...]) -> str:
    return "" if tiers else " ".join(remark.text for remark in remarks)
