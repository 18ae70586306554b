"""Recognises the relay's paths, and corrects common mistakes in them. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_SLASHES: Final = re.compile(r"/{2,}")
# What an OpenAI client may append to its base URL. `usage` and `tokens` are pages of the portal and need /v1 in front.
_ROOTS: Final = frozenset(
    (
        "assistants", "audio", "batches", "chat", "completions", "conversations", "embeddings", "engines", "files",
        "fine_tuning", "images", "messages", "models", "moderations", "realtime", "rerank", "responses", "threads",
        "uploads", "vector_stores",
    )
)  # fmt: skip
_BILLING: Final = "/dashboard/billing/"  # one-api's clients use it with and without /v1
_OTHER_PREFIXES: Final = ("/v1beta", "/dashboard/billing", "/mj", "/suno", "/luma", "/kling")
# Endpoints that people paste as a base URL; the client then appends its own path.
_PASTED: Final = re.compile(
    r"^/v1/(?:chat/completions|completions|responses|embeddings|messages)"
    r"(?=/(?:v1(?:/|$)|chat/completions$|models(?:/|$)|completions$|responses$|embeddings$|messages$))"
)


@lru_cache(maxsize=2048)
def relay_path(path: str) -> str | None:
    """The canonical path of a request to the relay; None when the path belongs to the portal's pages.

    Accepts a missing or repeated /v1, doubled and trailing slashes, and a whole endpoint URL pasted as base URL.
    """
    clean = _SLASHES.sub("/", path)
    if len(clean) > 1:
        clean = clean.rstrip("/") or "/"
    head = clean.split("/", 2)[1] if clean != "/" else ""
    if head != "v1":
        if clean.startswith(_BILLING):
            return "/v1" + clean
        if head not in _ROOTS:
            return clean if clean.startswith(_OTHER_PREFIXES) and _is_prefix(clean) else None
        clean = "/v1" + clean
    while True:
        shorter = _PASTED.sub("", clean)
        shorter = re.sub(r"^/v1(?=/v1(?:/|$))", "", shorter)
        if shorter == clean:
            return clean
        clean = shorter if shorter.startswith("/v1") else "/v1" + shorter


def _is_prefix(path: str) -> bool:
    return any(path == prefix or path.startswith((prefix + "/", prefix + "-")) for prefix in _OTHER_PREFIXES)
