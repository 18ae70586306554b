"""`airelays connect`: make a coding agent on this machine use the relay."""

from __future__ import annotations

from typing import Any

import click

from portal.cli import options, startup
from portal.cli.input import values
from portal.clients.apps import APPS


@options.command("connect")
@click.argument("app", type=values.OneOf(sorted(APPS)), metavar="APP")
@click.option("--model", type=values.MODEL, help="Model that it begins with; otherwise the first by name.")
@click.option("--url", type=values.Url(), help="Address of the portal; otherwise that of this one.")
@click.option("--token", type=values.TOKEN, help="Token to use; otherwise one is made for it.")
@click.option("--user", type=values.USER, help="Whose token is made; otherwise the only superuser's.")
@click.option("--undo", is_flag=True, help="Put back what was there, and revoke the token.")
@click.option("--force", is_flag=True, help="Undo although a file was changed since.")
@click.option("--dry-run", is_flag=True, help="Show the difference, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", is_flag=True, help="One JSON document, for programs; does not ask.")
def command(app: str, **given: Any) -> None:
    with startup.database():
        from django.core.management import call_command

        call_command("connect", app, **{name: "" if value is None else value for name, value in given.items()})


command.help = (
    "Connect a coding agent on this machine. Writes its own settings, after showing the difference and keeping a "
    "copy. "
    f"APP is one of: {', '.join(f'{app.key} ({app.label})' for app in APPS.values())}."
)
