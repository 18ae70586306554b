"""The client apps that can be connected, by the names under which the command knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from portal.clients import claude_code, codex, gemini_cli, opencode
from portal.clients.app import ClientApp

APPS: Final[Mapping[str, ClientApp]] = {
    one.key: one for one in (claude_code.APP, codex.APP, opencode.APP, gemini_cli.APP)
}
