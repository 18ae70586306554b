"""The list of models in Anthropic's form. Pure.

Source: Anthropic's API reference and its SDK 2.14 (`types/model_info.py`), November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from portal.lib.json import Json, text_of
from portal.lib.texts import whole_number
from relay.protocols.fields import BadRequest

_MOST: Final = 1000  # on a page


def model_info(model: Json) -> Json:
    """A model object of the portal as Anthropic's `ModelInfo`; what is beyond it stays.

    One that is offered here has not been retired yet, whatever the day says.
    """
    shown = {name: value for name, value in model.items() if name not in {"object", "created", "owned_by"}}
    return {
        **shown,
        "lifecycle": "deprecated" if model.get("retires_at") else "active",
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": model.get("retires_at"),
        "line": None,
        "max_input_tokens": model.get("context_window"),
        "max_tokens": model.get("max_output_tokens"),
    }


def model_page(models: Sequence[Json], query: Mapping[str, str]) -> Json:
    """A page of models. `query`: `limit`, `after_id`, `before_id`; without a limit all are on it. Raises BadRequest."""
    limit = whole_number(query.get("limit", _MOST))
    if limit is None or not 1 <= limit <= _MOST:
        raise BadRequest(f"The parameter “limit” must be a number from 1 to {_MOST}.", "limit")
    names = [text_of(model, "id") for model in models]
    after, before = query.get("after_id", ""), query.get("before_id", "")
    start, end = 0, len(names)
    if after:
        start = names.index(after) + 1 if after in names else end
    if before:
        end = names.index(before) if before in names else 0
    if before and not after:
        page = list(models[max(start, end - limit) : end])
        more = end - limit > start
    else:
        page = list(models[start : min(end, start + limit)])
        more = start + limit < end
    return {
        "data": [model_info(model) for model in page],
        "has_more": more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
