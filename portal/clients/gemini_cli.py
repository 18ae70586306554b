"""Gemini CLI.

Source: its reference of settings and variables (geminicli.com/docs), read in November 2026.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from portal.clients.app import ClientApp, Environment, SettingsFile
from portal.clients.edits import in_env, in_json
from portal.clients.target import Target


def _variables(environment: Environment, home: Path) -> Path:
    return home / ".gemini" / ".env"


def _settings(environment: Environment, home: Path) -> Path:
    return home / ".gemini" / "settings.json"


def _edit_variables(text: str, target: Target) -> str:
    return in_env(
        text,
        {
            "GOOGLE_GEMINI_BASE_URL": target.address,
            "GEMINI_API_KEY": target.token,
            "GEMINI_MODEL": target.like("gemini"),
        },
    )


def _edit_settings(text: str, target: Target) -> str:
    return in_json(text, {("security", "auth", "selectedType"): "gemini-api-key"})


def _imported(target: Target) -> dict[str, str]:
    return {"endpoint": target.address, "model": target.like("gemini")}


APP: Final = ClientApp(
    "gemini",
    "Gemini CLI",
    (SettingsFile(_variables, _edit_variables), SettingsFile(_settings, _edit_settings)),
    overrides=("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GEMINI_MODEL"),
    begin="gemini",
    imported=_imported,
)
