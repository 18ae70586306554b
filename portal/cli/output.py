"""What commands print: a title, sections of fields, next steps; or one JSON document. Colours on a terminal only."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import click

from portal import __version__
from portal.lib.texts import plain

# DEL and C1: a terminal obeys them, and JSON has them as they are.
_CONTROLS_OF_JSON: Final = re.compile("[\x7f-\x9f]")
_WIDTH: Final = 18  # of a field's label, from the margin to its value
_PATIENCE: Final = 1.0  # seconds until the user is told what is waited for


def title(text: str) -> None:
    click.echo(styled(f"AIRelays {__version__} {text}", fg="cyan", bold=True))


def section(text: str) -> None:
    click.echo()
    click.echo(styled(text, bold=True))


def field(label: str, value: object) -> None:
    """One line of a section; a value that is None or empty is “not set”."""
    shown = "not set" if value is None or value == "" else plain(str(value))
    click.echo(f"{f'  {plain(label)}: ':<{_WIDTH}}{shown}")


def line(text: str) -> None:
    click.echo(f"  {plain(text)}")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def next_steps(steps: Iterable[str]) -> None:
    if numbered := list(enumerate(steps, 1)):
        section("Next Steps")
        for number, step in numbered:
            click.echo(f"  {number}. {plain(step)}")


def as_json(document: Any) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo(_CONTROLS_OF_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def styled(text: str, **style: Any) -> str:
    """The text with a style of `click.style`, where standard output shows colours."""
    return click.style(text, **style) if shows_colours(sys.stdout) else text


def shows_colours(stream: IO[str]) -> bool:
    """Whether it is a terminal whose user wants colours: https://no-color.org, https://bixense.com/clicolors."""
    unwanted = os.environ.get("NO_COLOR") or os.environ.get("CLICOLOR") == "0" or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not unwanted


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Tell on stderr what is waited for, once the work inside takes longer than a second; on a terminal, how long."""
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(text, done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _tell(text: str, done: threading.Event) -> None:
    begin = time.monotonic()
    if done.wait(_PATIENCE):
        return
    if not sys.stderr.isatty():
        click.echo(f"{text} …", err=True)
        return
    while True:
        click.echo(f"\r{text} … {time.monotonic() - begin:.0f} s", nl=False, err=True)
        if done.wait(_PATIENCE):
            click.echo(f"\r{' ' * (len(text) + 12)}\r", nl=False, err=True)
            return


class StatusLine:
    """One line on stderr that says what is being done; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._shown, self._width = sys.stderr.isatty(), 0

    def tell(self, text: str) -> None:
        if self._shown:
            click.echo(f"\r{text:<{self._width}}", nl=False, err=True)
            self._width = max(self._width, len(text))

    def clear(self) -> None:
        if self._width:
            click.echo(f"\r{' ' * self._width}\r", nl=False, err=True)
