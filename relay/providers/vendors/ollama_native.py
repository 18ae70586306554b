"""Ollama with its own API, /api/chat: for `num_ctx`, `keep_alive` and its other options.

Source: Ollama's API reference and its SDK 0.6, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import OLLAMA
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="ollama_native",
    label="Ollama (its own API)",
    position=911,
    protocol="ollama",
    base_url="http://127.0.0.1:11434",
    bare_host=True,
    needs_key=False,
    models_path="/api/tags",
    apis=OLLAMA | {"embeddings"},
    paths={"embeddings": "/v1/embeddings"},
    framed=True,
    late_system=True,
    failures=(
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", text=r"^model … not found"),
        rule(FailureClass.CLIENT, "400", text=r" does not support (thinking|tools|chat|generate)$"),
        rule(FailureClass.OVERLOAD, "503", text=r"^server busy"),
    ),
)
