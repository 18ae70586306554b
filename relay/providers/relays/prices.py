"""What other relays charge for each of their models, as the several kinds of relays say it. Pure.

Source: new-api's `GetPricing` and its documentation of ratios, LiteLLM's `/model/info`, and this product's
docs/api.md, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from portal.lib.texts import whole_number

_MILLION: Final = Decimal(1_000_000)
_PLACES: Final = Decimal("0.000000001")
_MOST: Final = Decimal(1_000_000)  # USD: more is no price
_MOST_TOKENS: Final = 2**31 - 1  # above which a price can hold
_PER_RATIO: Final = Decimal(2)  # USD for a million tokens of input, at new-api's ratio 1
_HOUR_LONG: Final = Decimal("1.6")  # times what other writes to the cache cost there
_OURS: Final = (
    "input", "cached_input", "cached_audio_input", "cache_write", "cache_write_1h", "output", "reasoning",
    "audio_input", "audio_output", "image_input", "per_call", "per_image", "per_second", "per_character",
    "per_search",
)  # fmt: skip
_LITELLM: Final[Mapping[str, tuple[str, Decimal]]] = {
    "input": ("input_cost_per_token", _MILLION),
    "output": ("output_cost_per_token", _MILLION),
    "cached_input": ("cache_read_input_token_cost", _MILLION),
    "cache_write": ("cache_creation_input_token_cost", _MILLION),
    "cache_write_1h": ("cache_creation_input_token_cost_above_1hr", _MILLION),
    "reasoning": ("output_cost_per_reasoning_token", _MILLION),
    "audio_input": ("input_cost_per_audio_token", _MILLION),
    "audio_output": ("output_cost_per_audio_token", _MILLION),
    "per_image": ("output_cost_per_image", Decimal(1)),
    "per_second": ("input_cost_per_second", Decimal(1)),
    "per_character": ("input_cost_per_character", Decimal(1)),
}
Classes = dict[str, Decimal]  # USD per million tokens, or per unit, by the price classes of this product
Tiers = dict[int, Classes]  # by the tokens above which they hold; 0: every prompt
PriceList = dict[str, Tiers]  # by the model's name there


@dataclass(frozen=True, slots=True)
class PriceSource:
    """Where a relay says what it charges, and in which form."""

    # What to GET, relative to the base URL, or, with a leading //, to its host.
    path: str
    # From the JSON answer to prices. It may raise whatever a missing or odd member makes it raise.
    read: Callable[[Any], PriceList]


def read_prices(source: PriceSource, answer: Any) -> PriceList:
    """Empty when the answer is not what is expected there."""
    try:
        found = source.read(answer)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError):
        return {}
    return {name: tiers for name, tiers in found.items() if 0 in tiers}


def _usd(value: object) -> Decimal | None:
    """An amount; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    found = Decimal(str(value))
    return found.quantize(_PLACES) if found.is_finite() and 0 <= found <= _MOST else None


def _complete(classes: Iterable[tuple[str, Decimal | None]]) -> Classes | None:
    """The classes that have a price; None where neither tokens nor a unit have one."""
    found = {name: usd for name, usd in classes if usd is not None}
    if not found:
        return None
    return {"input": Decimal(0), "output": Decimal(0), **found}


def _of_this_product(answer: Any) -> PriceList:
    """`GET /v1/models` of this product: the prices of whoever asks, with what their group pays."""
    found: PriceList = {}
    for entry in answer["data"]:
        pricing = entry.get("pricing")
        if not isinstance(pricing, dict) or pricing.get("currency") != "USD" or pricing["tokens_per"] != "1000000":
            continue
        tiers: Tiers = {}
        for tier in ({"above_tokens": 0, **pricing}, *pricing.get("tiers", ())):
            classes = _complete((name, _usd(tier[name])) for name in _OURS if name in tier)
            above = tier["above_tokens"]
            if classes is not None and whole_number(above, 0, _MOST_TOKENS) is not None:
                tiers[int(above)] = classes
        found[entry["id"]] = tiers
    return found


def _of_new_api(answer: Any) -> PriceList:
    """`GET /api/pricing`. Of the groups that may use a model the default one counts, else the dearest."""
    ratios = {name: Decimal(str(ratio)) for name, ratio in (answer.get("group_ratio") or {}).items()}
    found: PriceList = {}
    for entry in answer["data"]:
        groups = [ratios[name] for name in entry.get("enable_groups") or () if name in ratios]
        group = ratios.get("default") if not groups or "default" in entry["enable_groups"] else max(groups)
        factor = group if group is not None else Decimal(1)
        if entry.get("quota_type") == 1:
            classes = _complete([("per_call", _usd(str(Decimal(str(entry["model_price"])) * factor)))])
        else:
            base = Decimal(str(entry["model_ratio"])) * _PER_RATIO * factor
            if base < 0:  # no price
                continue
            audio = base * Decimal(str(entry.get("audio_ratio") or 1))
            parts = {
                "input": base,
                "output": base * Decimal(str(entry.get("completion_ratio") or 0)),
                "cached_input": _times(base, entry.get("cache_ratio")),
                "cache_write": _times(base, entry.get("create_cache_ratio")),
                "cache_write_1h": _times(base * _HOUR_LONG, entry.get("create_cache_ratio")),
                "image_input": _times(base, entry.get("image_ratio")),
                "audio_input": _times(base, entry.get("audio_ratio")),
                "audio_output": _times(audio, entry.get("audio_completion_ratio")),
            }
            classes = _complete((name, _usd(str(usd))) for name, usd in parts.items() if usd is not None)
        if classes is not None:
            found[entry["model_name"]] = {0: classes}
    return found


def _times(base: Decimal, ratio: object) -> Decimal | None:
    return base * Decimal(str(ratio)) if isinstance(ratio, (int, float)) and not isinstance(ratio, bool) else None


def _of_litellm(answer: Any) -> PriceList:
    """`GET /model/info`: USD for each token. Of several deployments of a model the first counts."""
    found: PriceList = {}
    for entry in answer["data"]:
        info = entry.get("model_info") or {}
        classes = _complete(
            (
                *(
                    (name, _usd(str(Decimal(str(info[member])) * factor)))
                    for name, (member, factor) in _LITELLM.items()
                    if isinstance(info.get(member), (int, float))
                ),
                (
                    "per_search",
                    _usd((info.get("search_context_cost_per_query") or {}).get("search_context_size_medium")),
                ),
            )
        )
        if classes is not None:
            found.setdefault(entry["model_name"], {0: classes})
    return found


SOURCES: Final = (
    PriceSource("/models", _of_this_product),
    PriceSource("//api/pricing", _of_new_api),
    PriceSource("/model/info", _of_litellm),
)
