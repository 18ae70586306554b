"""Claude Code.

Source: its documentation of settings and of gateways (code.claude.com/docs), read in November 2026.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from portal.clients.app import ClientApp, Environment, SettingsFile
from portal.clients.edits import in_json
from portal.clients.target import Target


def _place(environment: Environment, home: Path) -> Path:
    folder = environment.get("CLAUDE_CONFIG_DIR")
    return (Path(folder) if folder else home / ".claude") / "settings.json"


def _edit(text: str, target: Target) -> str:
    variables = {
        "ANTHROPIC_BASE_URL": target.address,
        "ANTHROPIC_AUTH_TOKEN": target.token,
        # It would be sent beside the token otherwise, where a shell has it.
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": target.like("opus"),
        "ANTHROPIC_DEFAULT_SONNET_MODEL": target.like("sonnet"),
        # Also for its work in the background.
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": target.like("haiku"),
        # A line in the system prompt that differs between sessions, so that upstreams could not cache it.
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    }
    return in_json(text, {("env", name): value for name, value in variables.items()})


APP: Final = ClientApp(
    "claude",
    "Claude Code",
    (SettingsFile(_place, _edit),),
    begin="claude",
)
