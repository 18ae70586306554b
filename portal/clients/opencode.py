"""opencode.

Source: its documentation of providers and of opencode.json, read in November 2026.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from portal.clients.app import ClientApp, Environment, SettingsFile
from portal.clients.edits import in_json
from portal.clients.target import OfferedModel, Target

_PROVIDER: Final = "airelays"


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
    """It wants both limits of a model, or none."""
    known = one.context_window and one.max_output_tokens
    limit = {"limit": {"context": one.context_window, "output": one.max_output_tokens}} if known else {}
    return {"name": one.name, **limit}


def _imported(target: Target) -> dict[str, str]:
    return {"endpoint": f"{target.address}/v1", "model": target.model}


APP: Final = ClientApp("opencode", "opencode", (SettingsFile(_place, _edit),), begin="opencode", imported=_imported)
