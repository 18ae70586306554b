"""How commands end when they cannot do what was asked: one line on stderr, and an exit code.

1   what was asked cannot be done now; the line says what to do
2   a wrong option, argument or setting
3   the address or port cannot be bound
75  another portal uses the data folder (EX_TEMPFAIL of sysexits.h)
143 a server was stopped by SIGTERM
"""

from __future__ import annotations

from typing import IO, Any

import click

from portal.lib.texts import plain


class Refusal(click.ClickException):
    """What was asked cannot be done. The message is one line."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(plain(self.format_message()), file=file, err=file is None)
