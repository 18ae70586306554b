"""Shows that `docs/faq.md` is true: each of its sentences is shown by a test, which names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PAGE = Path(__file__).resolve().parents[3] / "docs" / "faq.md"
SHOWN: dict[str, list[str]] = {}  # the tests by sentence
_Test = TypeVar("_Test", bound=Callable[..., object])


def shows(*sentences: str) -> Callable[[_Test], _Test]:
    """Name the sentences of the page that a test shows."""

    def note(test: _Test) -> _Test:
        for sentence in sentences:
            SHOWN.setdefault(" ".join(sentence.split()), []).append(f"{test.__module__}.{test.__name__}")
        return test

    return note


def answers() -> dict[str, list[str]]:
    """The sentences of each answer of the page, by question: without addresses of links, and "Yes." with the next."""
    found = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        question, _, text = part.partition("\n")
        plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(text.split()))
        found[question.strip()] = re.split(r"(?<=[.?!])(?<!^Yes\.)(?<!^No\.)\s+(?=[A-Z`])", plain)
    return found
