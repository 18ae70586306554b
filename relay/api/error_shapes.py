"""In whose shape the errors of a request are written: that of the API to which its path, or a header, belongs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from relay.endpoints.error_shapes import ANTHROPIC_ERRORS, GEMINI_ERRORS, INTERACTIONS_ERRORS
from relay.errors import OPENAI_ERRORS, ErrorShape

_MESSAGES: Final = "/v1/messages"
_INTERACTIONS: Final = "/v1/interactions"
_GEMINI_KEY: Final = b"x-goog-api-key"


def shape_of(path: str, headers: Mapping[bytes, bytes], of_gemini: bool = False) -> ErrorShape:
    """The shape of the errors of a request, those of its token and of unknown paths included.

    `path`: in its canonical form. `of_gemini`: it is one of Gemini's API alone. Anthropic's clients name their version
    with every request, so that what they ask at paths that both APIs have is known, too; Google's send their key in a
    header of its own.
    """
    if path == _INTERACTIONS or path.startswith(f"{_INTERACTIONS}/"):
        return INTERACTIONS_ERRORS
    of_messages = path == _MESSAGES or path.startswith(f"{_MESSAGES}/") or b"anthropic-version" in headers
    if of_messages and not of_gemini:
        return ANTHROPIC_ERRORS
    return GEMINI_ERRORS if of_gemini or _GEMINI_KEY in headers else OPENAI_ERRORS
