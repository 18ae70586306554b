"""How much more output costs than input where no option says it: rules about names that are compiled in. Pure.

Source: one-api 0.6.11-preview.7 (MIT) and new-api 1.0.0-rc.24, read in November 2026.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_FOUR_THIRDS: Final = Decimal(4) / 3
_LLAMA: Final = {
    "llama2-70b-4096": Decimal("0.8") / Decimal("0.64"),
    "llama3-8b-8192": Decimal(2),
    "llama3-70b-8192": Decimal("0.79") / Decimal("0.59"),
}
# Of one-api, by the whole name.
_NAMED: Final = {
    **_LLAMA,
    **dict.fromkeys(("command", "command-light", "command-nightly", "command-light-nightly"), Decimal(2)),
    "command-r": Decimal(3),
    "command-r-plus": Decimal(5),
    "grok-beta": Decimal(3),
    "ibm-granite/granite-20b-code-instruct-8k": Decimal(5),
    "ibm-granite/granite-3.0-2b-instruct": Decimal("8.333333333333334"),
    "ibm-granite/granite-3.0-8b-instruct": Decimal(5),
    "ibm-granite/granite-8b-code-instruct-128k": Decimal(5),
    **dict.fromkeys(
        ("meta/llama-2-13b", "meta/llama-2-13b-chat", "meta/llama-2-7b", "meta/llama-2-7b-chat"), Decimal(5)
    ),
    **dict.fromkeys(("meta/meta-llama-3-8b", "meta/meta-llama-3-8b-instruct"), Decimal(5)),
    **dict.fromkeys(
        (
            "meta/llama-2-70b",
            "meta/llama-2-70b-chat",
            "meta/meta-llama-3-70b",
            "meta/meta-llama-3-70b-instruct",
        ),
        Decimal("2.75") / Decimal("0.65"),
    ),
    "meta/meta-llama-3.1-405b-instruct": Decimal(1),
    "mistralai/mistral-7b-instruct-v0.2": Decimal(5),
    "mistralai/mistral-7b-v0.1": Decimal(5),
    "mistralai/mixtral-8x7b-instruct-v0.1": Decimal(10) / 3,
}
# By how the name begins, the first that fits, after GPT.
_BEGINNINGS: Final = (
    ("o1", Decimal(4)),
    ("claude-3", Decimal(5)),
    ("claude-", Decimal(3)),
    ("mistral-", Decimal(3)),
    ("gemini-", Decimal(3)),
    ("deepseek-", Decimal(2)),
)
_FLASH: Final = Decimal("2.5") / Decimal("0.3")
# Of new-api: how names begin, the ratio, and whether it stands above the option. The first that fits counts.
_NEW_BEGINNINGS: Final = (
    ("gpt-4o-mini-tts", Decimal(20), False),
    ("gpt-4o", Decimal(4), False),
    ("gpt-5.4-nano", Decimal("6.25"), True),
    ("gpt-5.4", Decimal(6), True),
    ("gpt-4.5-preview", Decimal(2), True),
    ("gpt-4-turbo", Decimal(3), True),
    ("gpt-", Decimal(2), False),
    ("o1", Decimal(4), True),
    ("o3", Decimal(4), True),
    ("mistral-", Decimal(3), True),
    ("gemini-1.5", Decimal(4), True),
    ("gemini-2.0", Decimal(4), True),
    ("gemini-2.5-pro", Decimal(8), False),
    ("gemini-2.5-flash-lite", Decimal(4), False),
    ("gemini-2.5-flash", _FLASH, False),
    ("gemini-robotics-er-1.5", _FLASH, False),
    ("gemini-3-pro-image", Decimal(60), False),
    ("gemini-3-pro", Decimal(6), False),
    ("gemini-", Decimal(4), False),
    ("ERNIE-Speed-", Decimal(2), True),
    ("ERNIE-Lite-", Decimal(2), True),
    ("ERNIE-Character", Decimal(2), True),
    ("ERNIE-Functions", Decimal(2), True),
)
_NEW_NAMED: Final = {
    "gpt-4o-2024-05-13": Decimal(3),
    "gpt-4-1106": Decimal(3),
    "gpt-4-1105": Decimal(3),
    "chatgpt-4o-latest": Decimal(3),
    "command-r": Decimal(3),
    "command-r-plus": Decimal(5),
    "command-r-08-2024": Decimal(4),
    "command-r-plus-08-2024": Decimal(4),
    **_LLAMA,
}
_CLAUDES: Final = (
    "claude-3",
    "claude-sonnet-4",
    "claude-opus-4",
    "claude-haiku-4",
    "claude-fable-5",
    "claude-sonnet-5",
    "claude-opus-5",
)


def one_api_ratio(name: str) -> Decimal:
    """What one-api multiplies output with where neither the option nor its table has the model."""
    if name.startswith("gpt-3.5"):
        if name == "gpt-3.5-turbo" or name.endswith("0125"):
            return Decimal(3)
        return Decimal(2) if name.endswith("1106") else _FOUR_THIRDS
    if name.startswith("gpt-4"):
        if name.startswith("gpt-4o"):
            return Decimal(3) if name == "gpt-4o-2024-05-13" else Decimal(4)
        return Decimal(3) if name.startswith("gpt-4-turbo") or name.endswith("preview") else Decimal(2)
    if name == "chatgpt-4o-latest":
        return Decimal(3)
    found = next((ratio for beginning, ratio in _BEGINNINGS if name.startswith(beginning)), None)
    return found if found is not None else _NAMED.get(name, Decimal(1))


def new_api_ratio(name: str) -> tuple[Decimal, bool]:
    """What new-api multiplies output with, and whether it does so whatever the option says."""
    if name.endswith(("-all", "-gizmo-*")):
        return Decimal(2), False
    if name in _NEW_NAMED:
        return _NEW_NAMED[name], True
    if any(part in name for part in _CLAUDES) and not name.startswith(("gpt-", "o1", "o3")):
        return Decimal(5), True
    if name.startswith("gpt-5") and not name.startswith("gpt-5.4"):
        return (Decimal(6), False) if "." in name else (Decimal(8), True)
    if name.startswith("gemini-2.5-flash-preview"):
        return (Decimal(4) if name.endswith("-nothinking") else Decimal("3.5") / Decimal("0.15")), False
    if name.startswith("command"):
        return Decimal(4), False
    found = next(((ratio, fixed) for start, ratio, fixed in _NEW_BEGINNINGS if name.startswith(start)), None)
    return found if found is not None else (Decimal(1), False)


def priced_as(name: str) -> str:
    """The name under which new-api looks the prices of a model up: those of families share one."""
    if "-thinking-" in name:
        for family in ("gemini-2.5-flash-lite", "gemini-2.5-flash", "gemini-2.5-pro"):
            if name.startswith(family):
                return f"{family}-thinking-*"
    for family in ("gpt-4-gizmo", "gpt-4o-gizmo"):
        if name.startswith(family):
            return f"{family}-*"
    return name
