"""Which names a client's name for a model may stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from relay.providers.vendors.openai import GPT_FAMILY, GPT_LINK

LONGEST: Final = 120  # characters
FAMILY: Final = "*"  # the end of the name of a family of models
_PREFIX: Final = "openai/"  # of LiteLLM and GeekAI


def spellings(name: str) -> Iterator[str]:
    """The names that a name may stand for, the likeliest first: itself, without prefixes, and that of a GPT."""
    yield name
    while name.startswith(_PREFIX):
        name = name[len(_PREFIX) :]
        yield name
    if name.startswith(GPT_LINK):
        yield GPT_FAMILY + name


def is_in_family(name: str, family: str) -> bool:
    """Whether a name is one of a family's, such as `gpt-4-gizmo-*`."""
    return family.endswith(FAMILY) and name.startswith(family[:-1]) and len(name) >= len(family)
