"""How values of options and arguments are written. A type refuses others by a predicate: “takes …, not 'x'”."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from portal.lib.texts import whole_number


class Number(click.ParamType[int]):
    """A whole number between two bounds, which are allowed."""

    name = "number"

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = whole_number(value, self._least, self._most)
        if found is None:
            self.fail(f"takes a number from {self._least} to {self._most}, not {_shown(value)}", param, ctx)
        return found


class OneOf(click.Choice[str]):
    """One of some words, in any case."""

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__(list(words), case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = next((word for word in self.choices if word == str(value).strip().lower()), None)
        if found is None:
            self.fail(f"takes {self.said()}, not {_shown(value)}", param, ctx)
        return found

    def said(self) -> str:
        return f"one of {', '.join(self.choices)}"


class Text(click.ParamType[str]):
    """Any text but an empty one. `what` says what it stands for: “the name of a user”."""

    name = "text"

    def __init__(self, what: str, most: int = 1000, secret: bool = False) -> None:
        self._what, self._most, self._secret = what, most, secret

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if text and len(text) <= self._most and text.isprintable():
            return text
        given = "" if self._secret and text else f", not {_shown(value)}"
        return self.fail(f"takes {self._what}{given}", param, ctx)


class Address(click.ParamType[str]):
    """An address or a name that a server can listen on."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from portal.installation.values import listening_address

        try:
            return listening_address(str(value))
        except ValueError:
            self.fail(f"takes an address of this machine such as 127.0.0.1, not {_shown(value)}", param, ctx)


class Url(click.ParamType[str]):
    """The address of a server, with its scheme."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from portal.installation.values import server_url

        try:
            found = server_url(str(value))
        except ValueError:
            found = ""
        return found or self.fail(f"takes an address such as http://127.0.0.1:8080, not {_shown(value)}", param, ctx)


class Place(click.ParamType[Path]):
    """The absolute path of a file or a folder, which need not exist; links in it are kept."""

    name = "path"

    def __init__(self, is_folder: bool) -> None:
        self._is_folder, self._what = is_folder, "a folder" if is_folder else "a file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        text = str(value)
        if not text.strip() or "\0" in text:
            self.fail(f"takes {self._what}, not {_shown(text)}", param, ctx)
        try:
            path = Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111  # keeps links
        except FileNotFoundError:
            self.fail("takes a whole path here: the folder that this shell is in is gone", param, ctx)
        if path.exists() and path.is_dir() != self._is_folder:
            other = "a folder" if path.is_dir() else "a file"
            self.fail(f"takes {self._what}, and {_shown(text)} is {other}", param, ctx)
        return path

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        return click.Path(file_okay=not self._is_folder).shell_complete(ctx, param, incomplete)


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


_LONGEST: Final = 60  # characters of a value in an error
PORT: Final = Number(1, 65535)
NETWORK_SCOPE: Final = OneOf(("loopback", "private", "any"))
MODEL: Final = Text("the name of a model")
TOKEN: Final = Text("a token", secret=True)
USER: Final = Text("the name of a user")
