"""`airelays manage`: the commands for operators, which `manage.py` has in a checkout."""

from __future__ import annotations

import click

from portal.cli import options, startup


@options.command("manage", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARGS]…")
def command(words: tuple[str, ...]) -> None:
    """Run a command for operators; `help` lists them."""
    startup.django_ready()
    from portal.management.command_line import run

    run(["airelays manage", *(words or ("help",))])
