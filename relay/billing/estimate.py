"""Token counts when the upstream reports none. An estimate by script class; no tokenizer is downloaded or loaded."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from relay.protocols.token_estimate import token_units

_DATA_URL: Final = re.compile(rb'"data:[^"]*"')
_PER_MESSAGE: Final = 4  # role and separators, as OpenAI's counting guide has it
_PER_FILE: Final = 800  # an inline image or file, about one image at standard detail


def estimate_prompt(messages: bytes | msgspec.Raw, tools: msgspec.Raw | None = None) -> int:
    """Tokens of the JSON text of `messages` and `tools`. Inline files count a flat amount, not their Base64."""
    text, files = bytes(messages), 0
    if b'"data:' in text:
        text, files = _DATA_URL.subn(b'""', text)
    files = max(files, text.count(b'"image_url"') // 2)  # each image says it twice, as type and as member
    units = token_units(text) + (token_units(bytes(tools)) if tools is not None else 0.0)
    return math.ceil(units * 0.9) + files * _PER_FILE + _PER_MESSAGE


def estimate_text(units: float) -> int:
    """Tokens of text that `relay.protocols.token_estimate.token_units` was run over."""
    return math.ceil(units)
