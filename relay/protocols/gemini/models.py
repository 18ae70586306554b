"""The list of models in Gemini's form. Pure.

Source: google-genai 3.6.1 (`types.Model`), ai.google.dev/api/models; November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from portal.lib.json import Json, text_of
from portal.lib.texts import whole_number
from relay.protocols.fields import BadRequest

_MOST: Final = 1000  # on a page
_USUAL: Final = 50
_VECTORS: Final = ["embedContent", "batchEmbedContents"]
_CHAT: Final = ["generateContent", "streamGenerateContent", "countTokens"]


def model_entry(model: Json) -> Json:
    """A model object of the portal as a `Model` of Gemini's."""
    name = text_of(model, "id")
    abilities = model.get("abilities")
    known = abilities if isinstance(abilities, list) else []
    chats = "chat" in known or not known
    found: Json = {
        "name": f"models/{name}",
        "version": "001",
        "displayName": text_of(model, "display_name") or name,
        "supportedGenerationMethods": (_CHAT if chats else []) + (_VECTORS if "embeddings" in known else []),
    }
    if "reasoning" in known:
        found["thinking"] = True
    for member, theirs in (("context_window", "inputTokenLimit"), ("max_output_tokens", "outputTokenLimit")):
        if model.get(member):
            found[theirs] = model[member]
    return found


def model_list(models: Sequence[Json], query: Mapping[str, str]) -> Json:
    """A page of models. `query`: `pageSize`, and `pageToken`, the number of models before it. Raises BadRequest."""
    size = whole_number(query.get("pageSize", _USUAL))
    start = whole_number(query.get("pageToken", "") or 0)
    if size is None or size < 0:
        raise BadRequest("The parameter “pageSize” must be a whole number.", "pageSize")
    if start is None or start < 0:
        raise BadRequest("The parameter “pageToken” must be one from an earlier page.", "pageToken")
    size = min(size or _USUAL, _MOST)
    found: Json = {"models": [model_entry(model) for model in models[start : start + size]]}
    if start + size < len(models):
        found["nextPageToken"] = str(start + size)
    return found
