"""The list of models in the form that Codex reads: its catalogue, by which it knows the window, the reasoning levels
and the inputs of a model. Pure.

Source: `ModelInfo` in openai/codex (`codex-rs/protocol/src/openai_models.rs`) and the catalogue within Codex 0.171;
Codex reads at most 1 MiB (`codex-rs/model-provider/src/models_endpoint.rs`). November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from portal.lib.json import Json, encode, text_of
from relay.protocols.codex.instructions import INSTRUCTIONS

_MOST_BYTES: Final = 1_000_000  # Codex passes over a catalogue of more than 1 MiB, with all that is in it
_USUAL_LEVEL: Final = "medium"
_LEVELS: Final = {
    "minimal": "Hardly any reasoning, for the fastest answers",
    "low": "Little reasoning, for tasks that are clear",
    "medium": "Weighs speed against depth, for everyday work",
    "high": "More reasoning, for difficult problems",
    "xhigh": "Much more reasoning, for very difficult problems",
    "max": "As much reasoning as the model can do",
}
_OUTPUT: Final[Json] = {"mode": "tokens", "limit": 10_000}  # of a tool, that Codex puts into the conversation


def catalogue(models: Iterable[Json]) -> bytes:
    """The catalogue as JSON, of those model objects of the portal that chat, as many as Codex reads."""
    entries: list[bytes] = []
    size = 0
    for model in models:
        if not _chats(model):
            continue
        entry = encode(_entry(model, len(entries) + 1))
        size += len(entry) + 1
        if size > _MOST_BYTES:
            break
        entries.append(entry)
    return b'{"models":[%s]}' % b",".join(entries)


def is_known(found: str, tag: str) -> bool:
    """Whether an `If-None-Match` header names this entity tag. Weak ones count, as RFC 9110 has it for GET."""
    return any(one.strip().removeprefix("W/") in {tag, "*"} for one in found.split(","))


def _entry(model: Json, place: int) -> Json:
    """A model object of the portal as Codex's `ModelInfo`; what is not known is left out, or null where it must be."""
    name, abilities = text_of(model, "id"), _words(model, "abilities")
    levels = [level for level in _words(model, "reasoning_levels") if level in _LEVELS]
    found: Json = {
        "slug": name,
        "display_name": name if "alias_target" in model else text_of(model, "display_name") or name,
        "description": None,
        "supported_reasoning_levels": [{"effort": level, "description": _LEVELS[level]} for level in levels],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": place,
        "availability_nux": None,
        "upgrade": None,
        "base_instructions": INSTRUCTIONS,
        "supports_reasoning_summaries": bool(levels),
        "default_reasoning_summary": "auto",
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": _OUTPUT,
        "supports_parallel_tool_calls": True,
        "experimental_supported_tools": [],
    }
    if levels:
        found["default_reasoning_level"] = _USUAL_LEVEL if _USUAL_LEVEL in levels else levels[0]
    if window := model.get("context_window"):
        found["context_window"] = found["max_context_window"] = window
    if abilities:
        found["input_modalities"] = ["text", "image"] if "vision" in abilities else ["text"]
    return found


def _chats(model: Json) -> bool:
    abilities = _words(model, "abilities")
    return not abilities or "chat" in abilities


def _words(model: Json, member: str) -> list[str]:
    found = model.get(member)
    return [word for word in found if isinstance(word, str)] if isinstance(found, list) else []
