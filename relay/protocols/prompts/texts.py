"""The texts of which vectors are made, in requests of OpenAI's embeddings. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from portal.lib.json import Json
from relay.protocols.fields import unsupported

_PICTURES: Final = ("images", "inputs")  # in which Cohere's API has more than texts
_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})


def texts_of(fields: Json) -> list[str]:
    """The texts of a request. Raises BadRequest for images, and for token numbers, which one vendor's models read."""
    for name in _PICTURES:
        if fields.get(name):
            raise unsupported(f"The upstream of this model is sent texts only here. Leave “{name}” out.", name)
    given = fields.get("input")
    texts = given if isinstance(given, list) else [given]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) < len(texts):
        raise unsupported(
            "The upstream of this model is sent texts only here: no token numbers, and no images.", "input"
        )
    return found


def lost_of(fields: Json, known: Collection[str]) -> list[str]:
    """The members of a request that say something and are not carried."""
    return [name for name, value in fields.items() if name not in known and value not in _NOTHING]
