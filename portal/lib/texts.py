"""Translatable English texts in code that does not import Django; the caller that shows them translates them."""

from __future__ import annotations

from collections.abc import Callable


def gettext_noop(text: str) -> str:
    """Mark a text for `make messages`, like Django's function of the same name."""
    return text


class Message:
    """A message for people: an English text with placeholders for `values`, such as `%(host)s`."""

    def __init__(self, text: str, /, **values: str) -> None:
        self.text, self.values = text, values

    def __str__(self) -> str:
        return self.translated(gettext_noop)

    def translated(self, gettext: Callable[[str], str]) -> str:
        """The message, translated by a function such as Django's `gettext`."""
        return gettext(self.text) % self.values if self.values else gettext(self.text)


class TranslatableError(Exception):
    """An error with a message for people: an English text with placeholders for `values`, such as `%(host)s`."""

    def __init__(self, text: str, /, **values: str) -> None:
        super().__init__(text % values if values else text)
        self.text, self.values = text, values

    def translated(self, gettext: Callable[[str], str]) -> str:
        """The message, translated by a function such as Django's `gettext`."""
        return gettext(self.text) % self.values if self.values else gettext(self.text)
