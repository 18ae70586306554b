"""In whose shape the errors of a request are written: that of the API to which its path, or a header, belongs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from relay.endpoints.error_shapes import ANTHROPIC_ERRORS, GEMINI_ERRORS
from relay.errors import OPENAI_ERRORS, ErrorShape

_MESSAGES: Final = "/v1/messages"
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
