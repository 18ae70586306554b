"""In whose shape the errors of a request are written: that of the API to which its path, or a header, belongs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from relay.errors import OPENAI_ERRORS, ErrorShape, RelayError
from relay.protocols.anthropic_messages.errors import error_body, is_error_body
from relay.protocols.gemini import errors as gemini

_MESSAGES: Final = "/v1/messages"


def _anthropic(error: RelayError, request_id: str) -> bytes:
    return error.verbatim or error_body(error.http_status, error.told, error.public_code, error.param, request_id)


ANTHROPIC_ERRORS: Final = ErrorShape("messages", _anthropic, is_error_body, b"request-id")


def _gemini(error: RelayError, _request_id: str) -> bytes:
    return error.verbatim or gemini.error_body(
        error.http_status, error.told, error.public_code, error.param, error.retry_after
    )


GEMINI_ERRORS: Final = ErrorShape("generate_content", _gemini, gemini.is_error_body)
_GEMINI_KEY: Final = b"x-goog-api-key"


def shape_of(path: str, headers: Mapping[bytes, bytes]) -> ErrorShape:
    """The shape of the errors of a request, those of its token and of unknown paths included.

    `path`: in its canonical form. Anthropic's clients name their version with every request, so that what they ask at
    paths that both APIs have is known, too; Google's send their key in a header of its own.
    """
    if path == _MESSAGES or path.startswith(f"{_MESSAGES}/") or b"anthropic-version" in headers:
        return ANTHROPIC_ERRORS
    if _GEMINI_KEY in headers:
        return GEMINI_ERRORS
    return OPENAI_ERRORS
