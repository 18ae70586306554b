"""The passphrase of a backup: never an argument, which every user of the machine can read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from portal.cli.errors import Refusal

VARIABLE: Final = "AIRELAYS_BACKUP_PASSPHRASE"
_LEAST: Final = 12
_LONGEST: Final = 1024


def new(file: Path | None) -> str:
    """One to encrypt with: from a file, the environment, or asked for twice."""
    found = _given(file) or _asked(twice=True)
    if len(found) < _LEAST:
        raise Refusal(f"The passphrase has to have {_LEAST} characters or more.", 2)
    return found


def known(file: Path | None) -> str:
    """The one that a backup was encrypted with."""
    found = _given(file) or _asked(twice=False)
    if not found:
        raise Refusal("The backup is encrypted, and no passphrase was given.", 2)
    return found


def _given(file: Path | None) -> str:
    if file is None:
        return os.environ.get(VARIABLE, "")
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.readline(_LONGEST).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Refusal(f"The passphrase file {file} cannot be read: {why}.", 2) from None


def _asked(twice: bool) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        raise Refusal(f"No passphrase was given. Set {VARIABLE}, or name a file with --passphrase-file.", 2)
    answer: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice)
    return answer
