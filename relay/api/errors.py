"""Converts errors to HTTP responses."""

from __future__ import annotations

import re
from typing import Final

from django.http import HttpResponse

from relay.errors import OPENAI_ERRORS, ErrorShape, MethodNotAllowed, NotFound, NotImplementedHere, RelayError

# First path segments after /v1 that OpenAI or Anthropic serve and this portal does not: the client's error says so,
# instead of suggesting a typo.
KNOWN_ELSEWHERE = frozenset(
    (
        "assistants", "containers", "edits", "engines", "evals", "fine-tunes", "fine_tuning", "messages",
        "organization", "threads", "vector_stores", "videos",
    )
)  # fmt: skip
# Task APIs of other relays, by the first segment of their paths.
_TASKS: Final = {"mj": "Midjourney", "suno": "Suno", "luma": "Luma", "kling": "Kling"}
_API: Final = "Set your client's base URL to this portal's address followed by /v1."
_BY_TELEPHONE: Final = re.compile(r"/v1/realtime/calls/[^/]+/(?:accept|reject|refer)")
_AUTH_TOKENS: Final = "/v1/interactions/auth_tokens"
_GEMINI_ACTION: Final = re.compile(r"(?<=:)[a-z]+[A-Z][A-Za-z]*$")  # such as embedContent
_HINTS: Final = (
    *(
        (f"/api/{name}", f"This is no Ollama server; choose “OpenAI compatible” in your client. {_API}")
        for name in ("blobs", "chat", "embed", "embeddings", "generate", "ps", "pull", "show", "tags", "version")
    ),
    ("/api", "Scripts that manage the portal use /api/v1, or what it has of one-api's calls. Apps use /v1."),
    ("/health", "Whether the portal serves is at GET /readyz."),
    ("/livez", "Whether the portal runs is at GET /healthz."),
    ("/openai", f"Azure's paths are /openai/v1/… and /openai/deployments/{{model}}/chat/completions. {_API}"),
)


def error_response(error: RelayError, shape: ErrorShape = OPENAI_ERRORS, request_id: str = "") -> HttpResponse:
    """The response to a client whose API writes errors in a shape."""
    return HttpResponse(
        shape.body(error, request_id),
        status=error.http_status,
        content_type="application/json",
        headers=dict(error.headers()),
    )


def unknown_route(method: str, path: str) -> RelayError:
    """The error for an unknown path: 404. Its code says whether OpenAI serves it."""
    parts = path.strip("/").split("/")
    if parts[0] == "v1" and len(parts) > 1 and parts[1] in KNOWN_ELSEWHERE:
        return NotImplementedHere(
            f"This portal does not serve {method} /{'/'.join(parts[:3])[:100]}. Its endpoints are listed in its "
            "documentation."
        )
    if _BY_TELEPHONE.fullmatch(path):
        return NotImplementedHere(
            "This portal takes no calls by telephone: the upstream's webhook tells of them, and only its account can "
            "accept, reject or refer them. Calls over WebRTC are made with POST /v1/realtime/calls and ended with "
            "…/hangup."
        )
    task = _TASKS.get(parts[1 if parts[0] == "v1" and len(parts) > 1 else 0].partition("-")[0])
    if task is not None:
        return NotImplementedHere(
            f"This portal serves no {task}: no base URL and no token changes that. Its endpoints are listed in its "
            "documentation."
        )
    shown = path if len(path) <= 120 else path[:119] + "…"
    hint = next((hint for start, hint in _HINTS if path == start or path.startswith(f"{start}/")), _API)
    if path.startswith("/v1/"):
        hint = "GET /v1/models lists the models; the endpoints are listed in the portal's documentation."
    return NotFound(f"There is nothing at {method} {shown}. {hint}")


def wrong_method(method: str, path: str, allow: str) -> RelayError:
    """The error for a path that has other methods. What Gemini's API can do with a model is a part of the path."""
    if path == _AUTH_TOKENS:
        return NotImplementedHere(
            "This portal makes no tokens for live interactions, and serves no websocket for them. Use POST "
            "/v1/interactions with a token of your account."
        )
    action = _GEMINI_ACTION.search(path) if method == "POST" else None
    if action is not None:
        return NotImplementedHere(
            f"This portal does not serve {action[0][:40]} of Gemini's API. Use generateContent, "
            "streamGenerateContent, countTokens, embedContent or batchEmbedContents, or another API."
        )
    return MethodNotAllowed(f"{path} does not accept {method}. Use {allow}.", allow)
