"""The command `airelays` as it is called where a text is read: in this shell and folder, or anywhere on this machine.

Every text that tells people to run a command takes it from here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from portal.installation import sources

_ROOT: Final = Path(__file__).resolve().parent.parent.parent  # of a checkout; installed, the folder of the packages


def here(*words: str, data_dir: Path | None = None) -> str:
    """The command with these words, to be pasted into a shell in the current folder.

    `data_dir`: the folder that is used. It is named unless it is found without being named, and so are a configuration
    file and a `.env` file.
    """
    try:
        folder = Path.cwd()
    except OSError:  # it is gone
        folder = None
    return _line(_program(folder), words, data_dir)


def anywhere(*words: str, data_dir: Path | None = None) -> str:
    """The same for texts that are read in another folder, such as pages and logs of a server."""
    return _line(_program(None), words, data_dir)


def script() -> Path | None:
    """The file of the command in the environment of this program: made by pip, or by `make run`."""
    found = Path(sys.executable).with_name("airelays")
    return found if os.access(found, os.X_OK) else None


def _line(program: str, words: tuple[str, ...], data_dir: Path | None) -> str:
    options: list[str] = []
    for setting in ("config", "env_file"):
        named = next((os.environ[name] for name in sources.names_of(setting) if os.environ.get(name, "").strip()), "")
        if named:
            options += [f"--{setting.replace('_', '-')}", named]
    if data_dir is not None and data_dir != sources.default_data_dir():
        options += ["--data-dir", str(data_dir)]
    return " ".join((program, shlex.join((*words, *options)))).strip()


def _program(folder: Path | None) -> str:
    """How the command is called in a folder; None: in any."""
    found = script()
    if found is None:
        return f"cd {shlex.quote(str(_ROOT))} && {shlex.quote(sys.executable)} -m portal.cli"
    on_path = shutil.which("airelays")
    if on_path and Path(on_path).samefile(found):
        return "airelays"
    if folder is not None and found.is_relative_to(folder):
        return shlex.quote(str(found.relative_to(folder)))
    return shlex.quote(str(found))
