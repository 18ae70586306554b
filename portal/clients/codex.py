"""Codex.

Source: its reference of config.toml (developers.openai.com/codex) and its provider settings, read in November 2026.
From 0.156 on it asks a provider for its catalogue of models, when both the address and the feature are set; without a
catalogue it warns with each start that it knows nothing of the model, and never makes long conversations shorter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from portal.clients.app import ClientApp, Environment, SettingsFile
from portal.clients.edits import in_toml
from portal.clients.target import Target

_PROVIDER: Final = "airelays"


def _place(environment: Environment, home: Path) -> Path:
    folder = environment.get("CODEX_HOME")
    return (Path(folder) if folder else home / ".codex") / "config.toml"


def _edit(text: str, target: Target) -> str:
    provider = {
        "name": "AIRelays",
        "base_url": f"{target.address}/v1",
        "model_catalog_url": f"{target.address}/v1/models",
        "wire_api": "responses",
        "experimental_bearer_token": target.token,
    }
    return in_toml(
        text,
        {
            ("model",): target.model,
            ("model_provider",): _PROVIDER,
            ("features", "api_key_model_discovery"): True,
            **{("model_providers", _PROVIDER, name): value for name, value in provider.items()},
        },
    )


def _imported(target: Target) -> dict[str, str]:
    return {"endpoint": f"{target.address}/v1", "model": target.model}


APP: Final = ClientApp("codex", "Codex", (SettingsFile(_place, _edit),), begin="codex", imported=_imported)
