"""Texts for people that are written where no Django is. They are English; whoever shows them translates them."""

from __future__ import annotations

from collections.abc import Callable


def gettext_noop(text: str) -> str:
    """Marks a text for `make messages`, as Django's function of this name does."""
    return text


class Explained(Exception):
    """An error whose message is for a person: an English text with places for `values`, such as `%(host)s`."""

    def __init__(self, text: str, /, **values: str) -> None:
        super().__init__(text % values if values else text)
        self.text, self.values = text, values

    def translated(self, gettext: Callable[[str], str]) -> str:
        """The message in the language of a translating function."""
        return gettext(self.text) % self.values if self.values else gettext(self.text)
