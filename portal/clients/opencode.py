"""opencode.

Source: its documentation of providers and of opencode.json, and `packages/opencode/src/config/provider.ts` in
anomalyco/opencode, read in November 2026.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from portal.clients.app import ClientApp, Environment, SettingsFile
from portal.clients.edits import in_json
from portal.clients.target import OfferedModel, Target

_PROVIDER: Final = "airelays"
_READS: Final = {"vision": "image", "audio": "audio", "files": "pdf"}  # by ability


def _place(environment: Environment, home: Path) -> Path:
    if named := environment.get("OPENCODE_CONFIG"):
        return Path(named)
    folder = environment.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else home / ".config") / "opencode" / "opencode.json"


def _edit(text: str, target: Target) -> str:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "AIRelays",
        "options": {"baseURL": f"{target.address}/v1", "apiKey": target.token},
        "models": {one.name: _model(one) for one in target.models},
    }
    values: dict[tuple[str, ...], Any] = {("provider", _PROVIDER): provider, ("model",): f"{_PROVIDER}/{target.model}"}
    if not text.strip():
        values = {("$schema",): "https://opencode.ai/config.json", **values}
    return in_json(text, values)


def _model(one: OfferedModel) -> dict[str, Any]:
    """It wants both limits of a model, or none; without more it takes a model for one that is blind and costs nothing.

    A model that thinks gets its thoughts back: some upstreams refuse a conversation without them.
    """
    found: dict[str, Any] = {"name": one.name}
    if one.context_window and one.max_output_tokens:
        found["limit"] = {"context": one.context_window, "output": one.max_output_tokens}
    if reads := [_READS[ability] for ability in one.abilities if ability in _READS]:
        found |= {"attachment": True, "modalities": {"input": ["text", *reads], "output": ["text"]}}
    if "reasoning" in one.abilities:
        found |= {"reasoning": True, "interleaved": {"field": "reasoning_content"}}
    if "input" in one.prices and "output" in one.prices:
        read = one.prices.get("cached_input", one.prices["input"])
        cost = {"input": one.prices["input"], "output": one.prices["output"], "cache_read": read}
        found["cost"] = {**cost, "cache_write": one.prices.get("cache_write", one.prices["input"])}
    return found


def _imported(target: Target) -> dict[str, str]:
    return {"endpoint": f"{target.address}/v1", "model": target.model}


APP: Final = ClientApp("opencode", "opencode", (SettingsFile(_place, _edit),), begin="opencode", imported=_imported)
