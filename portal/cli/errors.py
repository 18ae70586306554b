"""How commands end when they cannot do what was asked: one line on stderr, and an exit code.

    Refusal      1   what was asked cannot be done now; the message says what to do
    Occupied     75  another portal uses the data folder (EX_TEMPFAIL of sysexits.h)
    CannotBind   3   the address or port cannot be bound

A wrong option, argument or setting ends with 2, a server that was stopped by SIGTERM with 143.
"""

from __future__ import annotations

from typing import ClassVar

import click


class Refusal(click.ClickException):
    exit_code: ClassVar[int] = 1

    def show(self, file: object = None) -> None:
        click.echo(self.format_message(), err=True)


class Occupied(Refusal):
    exit_code: ClassVar[int] = 75


class CannotBind(Refusal):
    exit_code: ClassVar[int] = 3
