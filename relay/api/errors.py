"""Converts errors to HTTP responses."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from relay.errors import InternalError, MethodNotAllowed, NotFound, NotImplementedHere, RelayError

# First path segments after /v1 that OpenAI serves and this portal may not: the client's error says so, instead of
# suggesting a typo.
KNOWN_ELSEWHERE = frozenset(
    (
        "assistants", "audio", "batches", "chat", "completions", "containers", "conversations", "edits", "embeddings",
        "engines", "evals", "files", "fine-tunes", "fine_tuning", "images", "messages", "moderations", "organization",
        "realtime", "rerank", "responses", "threads", "uploads", "vector_stores", "videos",
    )
)  # fmt: skip


def error_response(error: RelayError) -> HttpResponse:
    return HttpResponse(
        error.body(), status=error.http_status, content_type="application/json", headers=dict(error.headers())
    )


def on_relay_error(_: HttpRequest, error: RelayError | type[RelayError]) -> HttpResponse:
    return error_response(error if isinstance(error, RelayError) else InternalError())


def unknown_route(method: str, path: str) -> RelayError:
    """The error for an unknown path: 404, or 501 for one that OpenAI serves."""
    parts = path.strip("/").split("/")
    if parts[0] == "v1" and len(parts) > 1 and parts[1] in KNOWN_ELSEWHERE:
        return NotImplementedHere(
            f"This portal does not serve {method} /{'/'.join(parts[:3])[:100]}. Its endpoints are listed in its "
            "documentation."
        )
    shown = path if len(path) <= 120 else path[:119] + "…"
    return NotFound(
        f"There is nothing at {method} {shown}. Set your client's base URL to this portal's address followed by /v1."
    )


def wrong_method(method: str, path: str, allow: str) -> RelayError:
    return MethodNotAllowed(f"{path} does not accept {method}. Use {allow}.", allow)
