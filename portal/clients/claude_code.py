"""Claude Code.

Source: its documentation of settings, gateways, model windows and permission modes (code.claude.com/docs), read in
November 2026, and the program itself (2.1.197 and 2.1.332): with a token of its own it reads no limits from the headers
of answers, which tell subscribers theirs.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from portal.clients.app import ClientApp, Environment, SettingsFile
from portal.clients.edits import in_json
from portal.clients.target import Target

_OWN: Final = ("claude-", "anthropic")
_MILLION: Final = 1_000_000  # tokens


def _place(environment: Environment, home: Path) -> Path:
    folder = environment.get("CLAUDE_CONFIG_DIR")
    return (Path(folder) if folder else home / ".claude") / "settings.json"


def _models(target: Target) -> dict[str, str]:
    return {
        "ANTHROPIC_DEFAULT_OPUS_MODEL": target.like("opus"),
        "ANTHROPIC_DEFAULT_SONNET_MODEL": target.like("sonnet"),
        # Also for its work in the background.
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": target.like("haiku"),
    }


_OTHERS: Final[Mapping[str, str]] = {
    # It would be sent beside the token otherwise, where a shell has it.
    "ANTHROPIC_API_KEY": "",
    # Its list of models has those of the portal whose names begin with “claude”.
    "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
    # A line in the system prompt that differs between sessions, so that upstreams could not cache it.
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
}


# The budgets of the token below its prompt. The token is told to curl by a pipe, so that no list of processes has it.
_STATUS_LINE: Final = {
    "type": "command",
    "command": (
        """printf 'header = "Authorization: Bearer %s"' "$ANTHROPIC_AUTH_TOKEN" | """
        """curl -fs -m 3 -H 'accept: text/plain' -K - "$ANTHROPIC_BASE_URL/v1/usage\""""
    ),
}


def _edit(text: str, target: Target) -> str:
    variables = {
        "ANTHROPIC_BASE_URL": target.address,
        "ANTHROPIC_AUTH_TOKEN": target.token,
        **_models(target),
        **_OTHERS,
        **_of_other_models(target),
    }
    edited = in_json(text, {("env", name): value for name, value in variables.items()})
    has_one = "statusLine" in json.loads(edited)
    return edited if has_one else in_json(edited, {("statusLine",): _STATUS_LINE})


def _imported(target: Target) -> dict[str, str]:
    models = _models(target)
    return {
        "endpoint": target.address,
        "opusModel": models["ANTHROPIC_DEFAULT_OPUS_MODEL"],
        "sonnetModel": models["ANTHROPIC_DEFAULT_SONNET_MODEL"],
        "haikuModel": models["ANTHROPIC_DEFAULT_HAIKU_MODEL"],
        "config": b64encode(json.dumps({"env": {**_OTHERS, **_of_other_models(target)}}).encode()).decode(),
        "configFormat": "json",
    }


def _of_other_models(target: Target) -> dict[str, str]:
    """What Claude Code has to be told of a model that is none of Anthropic's.

    It takes the window of its own newest model for that of any other, or even a million tokens, and has the server
    check what its auto mode is about to do, which only Anthropic's does: it would stop at the first command.
    """
    begun = target.like("opus")
    if begun.startswith(_OWN):
        return {}
    found = {"CLAUDE_CODE_AUTO_MODE_SERVER": "0", "CLAUDE_CODE_AUTO_MODE_MODEL": target.like("sonnet")}
    window = next((one.context_window for one in target.models if one.name == begun), None)
    if window:
        found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(window)
        if window < _MILLION:
            found["CLAUDE_CODE_DISABLE_1M_CONTEXT"] = "1"
    return found


APP: Final = ClientApp(
    "claude",
    "Claude Code",
    (SettingsFile(_place, _edit),),
    begin="claude",
    imported=_imported,
)
