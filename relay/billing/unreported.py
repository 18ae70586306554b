"""Completes what an upstream reported with what was measured, for every class that has a price. Pure.

A report counts for the classes that are in it. A transcription that reports seconds says nothing of the tokens by which
its model is sold, and images that report tokens say nothing of how many of these were pictures.
"""

from __future__ import annotations

from msgspec.structs import replace

from relay.billing.prices import Price
from relay.protocols.usage import Usage

# The parts of tokens that can have a price of their own, and what they are a part of.
_PARTS = (("audio_input", "input"), ("image_input", "input"), ("audio_output", "output"))
_UNITS = (("images", "image"), ("milliseconds", "second"), ("characters", "character"))


def may_lack(price: Price, usage: Usage) -> bool:
    """Whether a class that has a price may be missing. Quick, since it is asked for every request."""
    return (
        price.has_units
        or price.prices_parts
        or (not usage.input and price.dearest_input > 0)
        or (not usage.output and price.dearest_output > 0)
    )


def with_unreported(price: Price, reported: Usage, measured: Usage) -> tuple[Usage, bool]:
    """The usage to charge, and whether all that has a price was reported.

    `measured`: what went through by the portal's own count, in which an estimate may be. Tokens of a kind that the
    report does not tell apart are as large a part of it as of what was measured. Images and characters are counted, and
    no estimate.
    """
    found: dict[str, int] = {}
    if not reported.input and measured.input and price.dearest_input > 0:
        found["input"] = measured.input
    if not reported.output and measured.output and price.dearest_output > 0:
        found["output"] = measured.output
    apart = {
        "audio_input": price.audio_input is not None,
        "image_input": price.image_input is not None,
        "audio_output": price.audio_output is not None,
    }
    for part, whole in _PARTS:
        share, total = getattr(measured, part), getattr(measured, whole)
        if apart[part] and share and not getattr(reported, part):
            tokens = found.get(whole, getattr(reported, whole))
            found[part] = min(tokens, -(-tokens * share // max(total, share)))
    complete = not any(found.values())
    for unit, member in _UNITS:
        if not getattr(reported, unit) and (counted := getattr(measured, unit)):
            found[unit] = counted
            complete = complete and not (unit == "milliseconds" and getattr(price, member))
    return (replace(reported, **found) if found else reported), complete
