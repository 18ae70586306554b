"""Reads the form of a page as a browser would send it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class _Forms(HTMLParser):
    """Collects the fields of all forms with the method post."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[list[tuple[str, str]]] = []
        self.sizes: list[int] = []  # how many fields there are, also those that would not be sent
        self._open = False
        self._select: tuple[str, bool] | None = None  # name, and whether it takes several
        self._options: list[tuple[str, bool]] = []
        self._area = ""
        self._text = ""
        self._hidden = 0  # within a template, which is not sent

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "template":
            self._hidden += 1
        if tag == "form":
            self._open = given.get("method", "").lower() == "post"
            if self._open:
                self.forms.append([])
                self.sizes.append(0)
        name = given.get("name", "")
        if not self._open or self._hidden:
            return
        if tag == "option" and self._select:
            self._options.append((given.get("value", ""), "selected" in given))
        if not name or "__prefix__" in name or "disabled" in given:
            return
        kind = given.get("type", "text")
        if tag in {"input", "select", "textarea"} and kind not in {"submit", "button", "image"}:
            self.sizes[-1] += 1
        if tag == "input" and kind not in {"submit", "button", "image", "file"}:
            if kind not in {"checkbox", "radio"}:
                self.forms[-1].append((name, given.get("value", "")))
            elif "checked" in given:
                self.forms[-1].append((name, given.get("value", "on")))
        elif tag == "select":
            self._select, self._options = (name, "multiple" in given), []
        elif tag == "textarea":
            self._area, self._text = name, ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "template":
            self._hidden -= 1
        elif tag == "form":
            self._open = False
        elif tag == "select" and self._select:
            name, several = self._select
            chosen = [value for value, selected in self._options if selected]
            if not chosen and not several and self._options:
                chosen = [self._options[0][0]]
            self.forms[-1] += [(name, value) for value in chosen]
            self._select = None
        elif tag == "textarea" and self._area:
            self.forms[-1].append((self._area, self._text.removeprefix("\n")))
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self._text += data


def _read(page: str) -> _Forms:
    parser = _Forms()
    parser.feed(page)
    return parser


def size_of_form(page: str) -> int:
    """How many fields the largest form of a page has."""
    return max(_read(page).sizes, default=0)


def filled(page: str, **changes: Any) -> dict[str, Any]:
    """What the largest form of a page sends, with other values for some fields. None: the field is not sent.

    Forms that do their work once come before others.
    """
    found: dict[str, Any] = {}
    for name, value in max(_read(page).forms, key=lambda form: ("form_key" in dict(form), len(form))):
        found.setdefault(name, []).append(value)
    found.update(changes)
    return {name: value for name, value in found.items() if value is not None}
