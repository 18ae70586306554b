"""Agents on a terminal: how each is started, typed into, and read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_WIDTH, _HEIGHT = "150", "60"


@dataclass(frozen=True)
class Agent:
    """How a person starts an agent, and asks it to make the conversation shorter."""

    name: str  # as `manage.py connect` calls it
    package: str  # of npm
    start: str
    ready: str  # what is on its screen when it waits for a prompt
    busy: str  # what is there as long as it works
    compact: str  # what is typed
    environ: dict[str, str]
    prepare: Callable[[Path, Path], None] | None = None  # home folder, work folder
    warnings: str = ""  # the key that shows them


_CLAUDE: Final = {
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_AUTO_MODE_SERVER": "0",  # the scripted model has no checks beside its answers, as Anthropic's has
}


def _claude(home: Path, work: Path) -> None:
    """It has been started before, and trusts the folder."""
    import json

    trusted = {str(work): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}}
    known = {"hasCompletedOnboarding": True, "theme": "dark", "projects": trusted}
    (home / ".claude.json").write_text(json.dumps(known))


def _codex(home: Path, work: Path) -> None:
    file = home / ".codex" / "config.toml"
    file.write_text(f'{file.read_text()}\n[projects."{work}"]\ntrust_level = "trusted"\n')


AGENTS: Final = {
    one.name: one
    for one in (
        Agent(
            "claude",
            "@anthropic-ai/claude-code",
            "claude --allowedTools Bash Read Write Edit Agent Task",
            "❯",
            "esc to interrupt",
            "/compact",
            _CLAUDE,
            _claude,
        ),
        Agent(
            "codex",
            "@openai/codex",
            "codex -s danger-full-access -a never --disable daemon_auto_start",
            "›",
            "esc to interrupt",
            "/compact",
            {},
            _codex,
            "F2",
        ),
        Agent(
            "opencode",
            "opencode-ai",
            "opencode",
            "Ask anything",
            "esc interrupt",
            "/compact",
            {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
        ),
        Agent(
            "gemini",
            "@google/gemini-cli",
            "gemini -y",
            "Type your message",
            "esc to cancel",
            "/compress",
            {"GEMINI_CLI_TRUST_WORKSPACE": "true"},
        ),
    )
}


class Screen:
    """A terminal of tmux, on a server of its own."""

    def __init__(self, name: str, command: str, folder: Path, environ: dict[str, str]) -> None:
        self.socket = f"agents-{name}"
        self._tmux("kill-server")
        shell = ["env", *("=".join(item) for item in environ.items()), "bash", "--norc"]
        size = ["-x", _WIDTH, "-y", _HEIGHT, "-c", str(folder)]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "a", *size, *shell)
        self._tmux("set-option", "-g", "history-limit", "20000")
        self.put(command)
        self.press("Enter")

    def put(self, text: str) -> None:
        self._tmux("send-keys", "-t", "a", "-l", text)

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", "-t", "a", *keys)

    def text(self, everything: bool = False) -> str:
        return self._tmux("capture-pane", "-p", "-t", "a", *(("-S", "-20000") if everything else ()))

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        done: Any = subprocess.run(["tmux", "-L", self.socket, *words], capture_output=True, text=True, check=False)
        return str(done.stdout)
