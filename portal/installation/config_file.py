"""Writes `config.toml`. What is in it already stays, with its comments."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from portal.installation import sources
from portal.installation.sources import ConfigError

# The sections of settings that are written, as AIRelays 0.x has them; they are read from any section.
_SECTIONS: Final = {
    "host": "server",
    "port": "server",
    "data_dir": "paths",
    "require_bearer_auth": "security",
    "network_scope": "security",
}


def path() -> Path:
    """The configuration file that is read: the one that is named, or the one in its place. Raises ConfigError."""
    named = next((os.environ[name] for name in sources.names_of("config") if os.environ.get(name, "").strip()), "")
    found = Path(named).expanduser() if named else sources.default_file()
    if found is None:
        raise ConfigError("there is no home folder here: name the configuration file with --config")
    return found


def check(file: Path) -> None:
    """Raise ConfigError if the file, or the folder that it is made in, cannot be written."""
    folder = file.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"the configuration file {file} cannot be written: name another one with --config")


def write(file: Path, values: Mapping[str, str | int | bool]) -> None:
    """Set these settings in the file, which is made if it is missing: 0600, in a folder of 0700. Raises ConfigError."""
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        document = tomlkit.document()
        document.add(tomlkit.comment("Settings of AIRelays Portal; docs/configure.md lists them all."))
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"the configuration file {file} cannot be read: {error}") from error
    for name, value in values.items():
        holder = next(
            (part for part in (document, *document.values()) if isinstance(part, dict) and name in part), None
        )
        if holder is None:
            holder = document.setdefault(_SECTIONS[name], tomlkit.table())
        holder[name] = value
    try:
        for folder in (*reversed(file.parent.parents), file.parent):  # `parents=True` makes those above by the umask
            folder.mkdir(exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".config-")  # created with mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as new:
            new.write(tomlkit.dumps(document))
        Path(name).replace(file.resolve())
    except OSError as error:
        raise ConfigError(f"the configuration file {file} cannot be written: {error.strerror}") from error
