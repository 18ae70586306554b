"""Thought signatures of Gemini, and what stands in their place for its clients at upstreams of other APIs. Pure.

Gemini wants back, with the parts of its answer, what it has signed; Gemini 3 refuses calls without (400). In the hub a
signature is where Google's own API in OpenAI's form has it: `extra_content.google.thought_signature` of a call or a
message. Source: ai.google.dev/gemini-api/docs/thought-signatures, read in November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from portal.lib.json import Json, object_of, text_of
from relay.protocols.chat_completions.dialects import EXTRA

# What Google documents for calls that it has not signed, such as those of a conversation begun elsewhere.
BYPASS: Final = "skip_thought_signature_validator"
VENDOR: Final = "gemini"  # that can read its own signatures; also in the names of its models
_GENERATION: Final = re.compile(r"gemini-(\d{1,2})(?:\D|$)")
_BYTES: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


def generation(model: str) -> int:
    """The generation of a Gemini model by its name; 99 for one that names none, such as `gemini-flash-latest`; 0 for
    models that are no Gemini.
    """
    found = _GENERATION.search(model)
    if found is not None:
        return int(found[1])
    return 99 if VENDOR in model else 0


def signature_of(holder: Json) -> str:
    """The signature of a call or message in the hub form; empty: none, or none that Gemini could read."""
    found = text_of(object_of(object_of(holder, EXTRA), "google"), "thought_signature")
    return found if _BYTES.fullmatch(found) else ""


def signed(signature: str) -> Json:
    """The member of a call, message or delta with a signature of Gemini."""
    return {EXTRA: {"google": {"thought_signature": signature}}}
