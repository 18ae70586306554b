"""Addresses and protocols of GPT-Load. It passes on the path that a client asked for, behind an upstream's address; the
base URL of a channel here has the version path in it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

# The vendor here, by the type of a group, and the path that its own API begins with.
PROVIDERS: Final[Mapping[str, str]] = {
    "openai": "openai", "openai-response": "openai", "anthropic": "anthropic", "gemini": "gemini",
}  # fmt: skip
_VERSIONS: Final[Mapping[str, str]] = {
    "openai": "/v1", "openai-response": "/v1", "anthropic": "/v1", "gemini": "/v1beta",
}  # fmt: skip
_ENDPOINTS: Final = ("/chat/completions", "/responses", "/messages", "/embeddings", "/completions")
_HOSTS: Final[Mapping[str, str]] = {
    "openai": "api.openai.com", "openai-response": "api.openai.com", "anthropic": "api.anthropic.com",
    "gemini": "generativelanguage.googleapis.com",
}  # fmt: skip


def base_url(kind: str, address: str, tested: str = "") -> str:
    """The base URL of an upstream; empty: the vendor's own. `tested`: the path by which its keys are tested."""
    address = address.strip().rstrip("/")
    version = _VERSIONS[kind]
    for end in _ENDPOINTS:
        if tested.startswith("/") and tested.partition("?")[0].endswith(end):
            version = tested.partition("?")[0].removesuffix(end)
    if (
        urlsplit(address).netloc == _HOSTS[kind]
        and urlsplit(address).path in ("", version)
        and version == _VERSIONS[kind]
    ):
        return ""
    return address if version and address.endswith(version) else address + version


def text_api(kind: str, address: str) -> str:
    """Which of OpenAI's text APIs an upstream is asked for. Empty: as the vendor does."""
    if kind == "openai-response":
        return "responses"
    return "chat" if kind == "openai" and urlsplit(address).netloc != _HOSTS["openai"] else ""
