"""`airelays completion`: what a shell needs to complete its commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from portal.cli import options
from portal.cli.input import values

_SHELLS: Final = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@options.command("completion")
@click.argument("shell", type=values.OneOf(_SHELLS), metavar="SHELL")
def command(shell: str) -> None:
    """Print a completion script for a SHELL: bash, zsh or fish.

    \b
    bash: echo 'eval "$(airelays completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(airelays completion zsh)"' >> ~/.zshrc
    fish: airelays completion fish > ~/.config/fish/completions/airelays.fish
    """
    root = click.get_current_context().find_root().command
    click.echo(_SHELLS[shell](root, {}, "airelays", "_AIRELAYS_COMPLETE").source())
