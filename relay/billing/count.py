"""Token counts when the upstream reports none. An estimate by script class; no tokenizer is downloaded or loaded."""

from __future__ import annotations

import math
import re
from typing import Final

from relay.wire.sse import token_units

_DATA_URL: Final = re.compile(rb'"data:[^"]*"')
_PER_MESSAGE: Final = 4  # role and separators, as OpenAI's counting guide has it
_PER_FILE: Final = 800  # an inline image or file, about one image at standard detail


def estimate_prompt(messages: bytes) -> int:
    """Tokens of the JSON text of `messages`. Inline files count a flat amount, not their Base64."""
    text, files = _DATA_URL.subn(b'""', messages)
    return math.ceil(token_units(text) * 0.9) + files * _PER_FILE + _PER_MESSAGE


def estimate_text(units: float) -> int:
    """Tokens of text that `relay.wire.sse.token_units` was run over."""
    return math.ceil(units)
