"""Estimates token counts for upstreams that report none, by classes of script. No tokenizer is downloaded or loaded."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from relay.protocols.token_estimate import token_units

_DATA_URL: Final = re.compile(rb'"data:[^"]*"')
_PER_MESSAGE: Final = 4  # role and separators, as OpenAI's counting guide has it
_PER_FILE: Final = 800  # an inline image or file, about one image at standard detail

_BYTES_PER_TOKEN: Final = 3  # of a text that has not been read yet


def estimate_prompt(messages: bytes | msgspec.Raw, tools: msgspec.Raw | None = None) -> int:
    """Estimate the tokens of the JSON text of `messages` and `tools`.

    An inline file counts a flat number, not its Base64.
    """
    text, files = bytes(messages), 0
    if b'"data:' in text:
        text, files = _DATA_URL.subn(b'""', text)
    files = max(files, text.count(b'"image_url"') // 2)  # the name is there twice for each image, as type and as member
    units = token_units(text) + (token_units(bytes(tools)) if tools is not None else 0.0)
    return math.ceil(units * 0.9) + files * _PER_FILE + _PER_MESSAGE


def estimate_file(size: int, as_text: bool) -> int:
    """Estimate the tokens of a stored file of `size` bytes, put in as text or inline as `estimate_prompt` counts it."""
    return size // _BYTES_PER_TOKEN + 1 if as_text else _PER_FILE


def estimate_text(units: float) -> int:
    """Round the units that `relay.protocols.token_estimate.token_units` counted in a text up to whole tokens."""
    return math.ceil(units)
