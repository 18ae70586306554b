"""The app that a request comes from, as far as its user agent says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

LONGEST: Final = 32  # characters of a name

# By the beginning of the user agent in lower case, the longest first where one begins with another. Looked up
# 2026-11-30 in what the clients send, and in their code.
_BY_BEGINNING: Final = (
    ("claude-cli", "claude-code"),
    ("claude-code", "claude-code"),
    ("codex", "codex"),  # codex_cli_rs, codex_exec, codex-tui, codex_vscode, Codex Desktop
    ("opencode", "opencode"),
    ("geminicli", "gemini-cli"),
    ("cloudcodevscode", "gemini-cli"),
    ("qwencode", "qwen-code"),
    ("openwebui", "open-webui"),
    ("open webui", "open-webui"),
    ("roocode", "roo-code"),
    ("kilo-code", "kilo-code"),
    ("githubcopilot", "copilot"),
    ("openai/", "openai-sdk"),
    ("asyncopenai/", "openai-sdk"),
    ("azureopenai/", "openai-sdk"),
    ("asyncazureopenai/", "openai-sdk"),
    ("anthropic/", "anthropic-sdk"),
    ("asyncanthropic/", "anthropic-sdk"),
    ("google-genai-sdk/", "google-genai"),
    ("ai-sdk/", "ai-sdk"),
    ("ai/", "ai-sdk"),
    ("airelays", "airelays"),
    ("mozilla/", "browser"),
)
_LIBRARY: Final = re.compile(r"python/[0-9.]+ ([a-z][a-z0-9._-]*)/")  # aiohttp puts the language first
_PRODUCT: Final = re.compile(rf"[a-z][a-z0-9._-]{{0,{LONGEST - 1}}}")


def app_of(headers: Mapping[bytes, bytes]) -> str:
    """The name of the app, at most 32 letters, digits and `._-`; empty when nothing tells it.

    `headers`: by their names in lower case.
    """
    if b"x-openwebui-user-id" in headers or b"x-openwebui-chat-id" in headers:
        return "open-webui"  # its own user agent is that of the library
    agent = headers.get(b"user-agent")
    return _named(agent[:100]) if agent else ""


@lru_cache(maxsize=1024)
def _named(agent: bytes) -> str:
    text = agent.decode("latin-1").strip().lower()
    for beginning, name in _BY_BEGINNING:
        if text.startswith(beginning):
            return name
    found = _LIBRARY.match(text)
    if found is not None:
        return found[1][:LONGEST]
    product = _PRODUCT.match(text)
    return product[0].rstrip("._-") if product is not None else ""
