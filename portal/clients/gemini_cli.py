"""Gemini CLI.

Source: its reference of settings and variables (geminicli.com/docs), read in November 2026, and the models of its own
that are in Gemini CLI 0.61: whatever model a person chose, it compresses conversations with one of them, and asks again
and again, without a pause, where that is not there. It does so at a share of the window that it has for any model, and
can be told another share alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from portal.clients.app import ClientApp, Environment, SettingsFile
from portal.clients.edits import in_env, in_json
from portal.clients.target import Target

# Its names for the models of what it does by itself.
_COMPRESSING: Final = tuple(
    f"chat-compression-{name}"
    for name in ("default", "3-pro", "3-flash", "3.1-flash-lite", "2.5-pro", "2.5-flash", "2.5-flash-lite")
)
_HELPING: Final = (
    *(f"gemini-{name}-flash-base" for name in ("2.5", "3", "3.5")),
    *("classifier", "prompt-completion", "fast-ack-helper", "edit-corrector", "summarizer-default"),
    *("summarizer-shell", "loop-detection-double-check", "agent-history-provider-summarizer"),
)
_WINDOW: Final = 1_048_576  # tokens, that it has for any model
_SHARE: Final = 0.5  # of the window, from which on it compresses


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
    own, helper = target.like("gemini"), target.like("flash")
    models = dict.fromkeys(_COMPRESSING, own) | dict.fromkeys(_HELPING, helper)
    values: dict[tuple[str, ...], Any] = {
        ("modelConfigs", "customAliases", name): {"extends": "base", "modelConfig": {"model": model}}
        for name, model in models.items()
    }
    window = next((one.context_window for one in target.models if one.name == own), None)
    if window and window < _WINDOW:
        values["model", "compressionThreshold"] = round(_SHARE * window / _WINDOW, 4)
    return in_json(text, {("security", "auth", "selectedType"): "gemini-api-key", **values})


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
