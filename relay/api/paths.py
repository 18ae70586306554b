"""Recognises the relay's paths, and corrects common mistakes in them. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

# Versions of Gemini's API, all served alike, and the paths that only its clients ask for under /v1.
_GEMINI: Final = re.compile(r"^/v1(?:beta|alpha)\d*(?=/|$)")
_GEMINI_METHOD: Final = re.compile(
    r"^/v1/(?:models/.+:(?:generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents)$"
    r"|interactions(?:/|$))"
)
_SLASHES: Final = re.compile(r"/{2,}")
# What an OpenAI client may append to its base URL. `usage` and `tokens` are pages of the portal and need /v1 in front.
_ROOTS: Final = frozenset(
    (
        "assistants", "audio", "batches", "chat", "completions", "conversations", "embeddings", "engines", "files",
        "fine_tuning", "images", "interactions", "messages", "models", "moderations", "realtime", "rerank", "responses",
        "threads", "uploads", "vector_stores",
    )
)  # fmt: skip
_BILLING: Final = "/dashboard/billing/"  # one-api's clients use it with and without /v1
_OTHER_PREFIXES: Final = ("/dashboard/billing", "/mj", "/suno", "/luma", "/kling")
# Paths by which apps find out what a server is (Ollama, llama.cpp, vLLM, LM Studio, LiteLLM, Azure). They are told in
# JSON that this is another one; a page would be no answer.
_PROBES: Final = frozenset(
    (
        "anthropic", "api", "deployments", "detokenize", "get_server_info", "health", "info", "livez", "metrics",
        "model_info", "openai", "openapi.json", "ping", "props", "sdapi", "server_info", "slots", "tokenize", "v2",
        "v3", "version",
    )
)  # fmt: skip
# Azure's paths. What follows a deployment is an endpoint; a deployment's name may have slashes here, as models have.
_DEPLOYMENT: Final = re.compile(
    r"^(?:/v1)?/openai/(?:v1/)?deployments/(?P<model>.+?)(?P<endpoint>/(?:chat/completions|completions|responses|"
    r"embeddings|images/[a-z]+|audio/[a-z]+|realtime))$"
)
_AZURE: Final = re.compile(r"^(?:/v1)?/openai(?:/v1)?(?=/(?P<root>[a-z_]+)(?:/|$))")
# Endpoints that people paste as a base URL; the client then appends its own path.
_PASTED: Final = re.compile(
    r"^/v1/(?:chat/completions|completions|responses|embeddings|messages)"
    r"(?=/(?:v1(?:/|$)|chat/completions$|models(?:/|$)|completions$|responses$|embeddings$|messages$))"
)
_REPEATED: Final = re.compile(r"^(?:/v1)+(?=/v1(?:/|$))")
_OF_APPS: Final = ("POST", "HEAD")  # methods at the address itself, which apps use and browsers do not
# The management API, with the routes of one-api's that it has: pages of the portal serve them.
_MANAGEMENT: Final = re.compile(r"^/api/(?:v1|user|token|channel|redemption|topup|log|status|models|group)(?=/|$)")
_LONGEST: Final = 2048  # characters; a path with a model's name, or an id, and all that is corrected here is shorter


def is_relay(path: str, method: str) -> bool:
    """Whether a request is the relay's, not one for the portal's pages."""
    return path.startswith("/v1/") or relay_path(path) is not None or (path == "/" and method in _OF_APPS)


def relay_path(path: str) -> str | None:
    """The canonical path of a request to the relay; None when the path belongs to the portal's pages.

    Accepts a missing or repeated /v1, doubled and trailing slashes, Azure's paths, and a whole endpoint URL pasted as
    base URL.
    """
    return _relay_path(path) if len(path) <= _LONGEST else None


@lru_cache(maxsize=2048)
def _relay_path(path: str) -> str | None:
    clean = _GEMINI.sub("/v1", _clean(path))
    if "/openai/" in clean:
        if deployment := _DEPLOYMENT.match(clean):
            return "/v1" + deployment["endpoint"]
        azure = _AZURE.match(clean)
        if azure and azure["root"] in _ROOTS:
            clean = "/v1" + clean[azure.end() :]
    head = clean.split("/", 2)[1] if clean != "/" else ""
    if head != "v1":
        if clean.startswith(_BILLING):
            return "/v1" + clean
        if head == "api" and _MANAGEMENT.match(clean):
            return None
        if head not in _ROOTS:
            known = head in _PROBES or (clean.startswith(_OTHER_PREFIXES) and _is_prefix(clean))
            return clean if known else None
        clean = "/v1" + clean
    while True:
        shorter = _PASTED.sub("", clean)
        shorter = _REPEATED.sub("", shorter)
        if shorter == clean:
            return clean
        clean = shorter if shorter.startswith("/v1") else "/v1" + shorter


@lru_cache(maxsize=2048)
def deployment_of(path: str) -> str:
    """The model that one of Azure's paths names; empty for other paths."""
    found = _DEPLOYMENT.match(_clean(path)) if "/deployments/" in path and len(path) <= _LONGEST else None
    return found["model"] if found else ""


@lru_cache(maxsize=2048)
def is_gemini(path: str) -> bool:
    """Whether a path is one of Gemini's API alone."""
    clean = _clean(path) if len(path) <= _LONGEST else path
    return _GEMINI.match(clean) is not None or _GEMINI_METHOD.match(clean) is not None


def _clean(path: str) -> str:
    clean = _SLASHES.sub("/", path)
    return clean.rstrip("/") or "/"


def _is_prefix(path: str) -> bool:
    return any(path == prefix or path.startswith((prefix + "/", prefix + "-")) for prefix in _OTHER_PREFIXES)
