"""`airelays completion`: what a shell needs to complete its commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from portal.cli import options

_SHELLS: Final = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@options.command("completion")
@click.argument("shell", type=options.one_of(_SHELLS))
def command(shell: str) -> None:
    """Print a completion script for a shell.

    \b
    bash: echo 'eval "$(airelays completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(airelays completion zsh)"' >> ~/.zshrc
    fish: airelays completion fish > ~/.config/fish/completions/airelays.fish
    """
    root = click.get_current_context().find_root().command
    click.echo(_SHELLS[shell](root, {}, "airelays", "_AIRELAYS_COMPLETE").source())
