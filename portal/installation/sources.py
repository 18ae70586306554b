"""Where settings come from.

In order of precedence: command-line flag, `AIRELAYS_*` environment variable (then the legacy prefixes `AIRELAY_*` and,
for the oldest settings, `OPENAI_ENDPOINT_*`), `config.toml`, default.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from portal.installation import legacy
from portal.lib.texts import Message, gettext_noop

PREFIXES: Final = ("AIRELAYS_", "AIRELAY_")
OLDEST_PREFIX: Final = "OPENAI_ENDPOINT_"
_OLDEST: Final = frozenset(("host", "port", "data_dir", "config"))
# Variables with our prefix that are no settings: of `portal.serving.bootstrap`, of clients on the same machine, and
# those that Kubernetes and Docker set in containers beside a service named "airelays".
_NO_SETTINGS: Final = re.compile(r"config|bootstrapped|api_key|token|name|env_.+|service_(host|port.*)|port_\d+_.+")


class ConfigError(Exception):
    """A setting has an invalid value. The message is one line and names the setting."""


@dataclass(slots=True)
class Collected:
    """What flags, environment and file say, before it is checked."""

    names: Collection[str]  # of all settings
    given: dict[str, object] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)  # where each was given, for messages
    old: dict[str, object] = field(default_factory=dict)  # settings of AIRelays 0.x
    sections: list[str] = field(default_factory=list)  # of the file, of which nothing counts
    notices: list[Message] = field(default_factory=list)

    def give(self, name: str, value: object, origin: str) -> None:
        self.given[name], self.origin[name] = value, origin

    def unknown(self, name: str) -> str:
        """The error for a name that is no setting."""
        near = difflib.get_close_matches(name, list(self.names), 1, 0.75)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"{self.origin.get(name, name)} is not a setting{meant}; docs/configure.md lists them all"

    def refusal(self, name: str, value: object, why: str) -> str:
        """The error for a value that makes no sense; it shows the value unless that may be a secret."""
        secret = any(word in name for word in ("key", "url", "password")) and name != "public_url"
        shown = "" if secret else f" ({str(value)[:60]!r})"
        return f"{self.origin.get(name, name)}{shown}: {why.removeprefix('Value error, ')}"


def collect(names: Collection[str], flags: Mapping[str, object], environ: dict[str, str] | None = None) -> Collected:
    """Read the settings of these names. Raises ConfigError when the file cannot be read."""
    env = dict(os.environ) if environ is None else environ
    found = Collected(names)
    of_file, found.sections = _read_toml(env)
    for key, value in of_file.items():
        if key in legacy.NAMES:
            found.old[key] = value
        else:
            found.give(key, value, f"{key} in the configuration file")
    for name in names:
        for variable in names_of(name):
            if env.get(variable, "").strip() and not _of_kubernetes(name, env[variable]):
                found.give(name, env[variable].strip(), variable)
                break
    _read_other_variables(env, found)
    for key, value in flags.items():
        if value is not None:
            found.give(key, value, f"--{key.replace('_', '-')}")
    return found


def names_of(setting: str) -> list[str]:
    """Environment variables that set a setting, in order of precedence; empty ones do not count."""
    prefixes = (*PREFIXES, OLDEST_PREFIX) if setting in _OLDEST else PREFIXES
    return [prefix + setting.upper() for prefix in prefixes]


def _of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes has set AIRELAYS_PORT, as it does in containers beside a service named "airelays"."""
    return name == "port" and value.strip().startswith("tcp://")


def _read_other_variables(env: dict[str, str], found: Collected) -> None:
    """Add variables of AIRelays 0.x to `found.old`, and say which ones nothing reads."""
    for variable in sorted(env):
        prefix = next((prefix for prefix in (*PREFIXES, OLDEST_PREFIX) if variable.startswith(prefix)), None)
        name = variable.removeprefix(prefix or "").lower()
        if prefix is None or not env[variable].strip() or name in found.names:
            continue
        if name in legacy.NAMES:
            if prefix == PREFIXES[0] or name not in found.old:
                found.old[name] = env[variable].strip()
        elif prefix != OLDEST_PREFIX and not _NO_SETTINGS.fullmatch(name):
            near = difflib.get_close_matches(name, list(found.names), 1, 0.7)
            text = (
                gettext_noop("%(name)s is not a setting and has no effect. Did you mean %(near)s?")
                if near
                else gettext_noop("%(name)s is not a setting and has no effect. docs/configure.md lists them all.")
            )
            more = {"near": f"AIRELAYS_{near[0].upper()}"} if near else {}
            found.notices.append(Message(text, name=variable, **more))


# -- the configuration file and the data folder ----------------------------------------------------------------------


def home() -> Path | None:
    """The home folder. None in containers that have neither HOME nor an entry in the list of users."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def default_data_dir() -> Path | None:
    """`~/.airelays`, or the legacy `~/.airelay` when only that exists. None without a home folder."""
    own = home()
    if own is None:
        return None
    current, legacy_folder = own / ".airelays", own / ".airelay"
    return legacy_folder if legacy_folder.is_dir() and not current.exists() else current


def data_dir() -> Path:
    """The data folder where no setting names one. Raises ConfigError without a home folder."""
    found = default_data_dir()
    if found is None:
        raise ConfigError("there is no home folder here: set AIRELAYS_DATA_DIR to the folder of the portal's data")
    return found


def _default_file() -> Path | None:
    own = home()
    if own is None:
        return None
    current, legacy_file = (own / ".config" / name / "config.toml" for name in ("airelays", "airelay"))
    return legacy_file if legacy_file.is_file() and not current.exists() else current


def _read_toml(env: dict[str, str]) -> tuple[dict[str, object], list[str]]:
    """The settings in the configuration file, and its sections of which nothing counts."""
    named = next((env[name].strip() for name in names_of("config") if env.get(name, "").strip()), "")
    path = _expand(named) if named else _default_file()
    if path is None:
        return {}, []
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigError(f"there is no configuration file {path}") from None
        return {}, []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    flat: dict[str, object] = {}
    for key, value in document.items():
        if key not in legacy.SECTIONS:
            flat.update(value if isinstance(value, dict) else {key: value})
    return flat, [f"[{key}]" for key in document if key in legacy.SECTIONS]


def _expand(named: str) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise ConfigError(f"there is no home folder here: write the whole path of the file {named}") from None
