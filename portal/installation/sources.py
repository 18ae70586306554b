"""Where settings come from.

In order of precedence: command-line flag, `AIRELAYS_*` environment variable (then the legacy prefixes `AIRELAY_*` and,
for the oldest settings, `OPENAI_ENDPOINT_*`), the same in `.env` of the working folder or a file that is named in its
place, in `.env` of the data folder, `config.toml`, default.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from portal.installation import legacy
from portal.lib.texts import Message, gettext_noop

PREFIXES: Final = ("AIRELAYS_", "AIRELAY_")
_ROOT: Final = Path(__file__).resolve().parent.parent.parent  # of the portal's own checkout
_CHECKOUTS: Final = (".git", ".hg", ".svn", ".jj")  # what is in the top folder of one
OLDEST_PREFIX: Final = "OPENAI_ENDPOINT_"
# Variables with our prefix that are no settings: of `portal.serving.bootstrap`, of clients on the same machine, and
# those that Kubernetes and Docker set in containers beside a service named "airelays".
_NO_SETTINGS: Final = re.compile(
    r"config|bootstrapped|backup_passphrase|api_key|token|name|env_.+|service_(host|port.*)|port_\d+_.+"
)


class ConfigError(Exception):
    """A setting has an invalid value. The message is one line and names the setting."""


@dataclass(slots=True)
class Collected:
    """What flags, environment and file say, before it is checked."""

    names: Collection[str]  # of all settings
    given: dict[str, object] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)  # where each was given, for messages
    old: dict[str, object] = field(default_factory=dict)  # settings of AIRelays 0.x
    files: list[Path] = field(default_factory=list)  # in which something was found
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
        secret = secret or name.endswith("token")
        shown = "" if secret else f" ({str(value)[:60]!r})"
        return f"{self.origin.get(name, name)}{shown}: {why}"


def collect(
    names: Collection[str],
    flags: Mapping[str, object],
    environ: dict[str, str] | None = None,
    folder: Path | None = None,
) -> Collected:
    """Read the settings of these names. `folder`: whose `.env` counts, unless a file is named in its place.

    Raises ConfigError when a file is unreadable.
    """
    env = dict(os.environ) if environ is None else environ
    if folder is None and environ is None:
        folder = working_folder()
    found = Collected(names)
    layers = [Variables(env)]
    if named := _first(layers, "env_file"):
        layers.append(_read_named(_expand(named), found))
    elif folder is not None:
        layers.append(_read_working(folder, found))
    _read_toml(_first(layers, "config"), found)
    own = flags.get("data_dir") or _first(layers, "data_dir") or found.given.get("data_dir") or default_data_dir()
    if own and (path := _expand(str(own)) / ".env") not in found.files:
        layers.append(of_data := _read_dotenv(path, found))
        for name in ("config", "data_dir"):  # by which this file was found
            if variable := of_data.variable_of(name):
                found.notices.append(
                    Message(
                        gettext_noop("%(name)s has no effect in %(path)s: set it in the environment."),
                        name=variable,
                        path=str(path),
                    )
                )
                del of_data.values[variable]
    for layer in reversed(layers):
        for name in names:
            if variable := layer.variable_of(name):
                found.give(name, layer.values[variable].strip(), layer.shown(variable))
    for layer in reversed(layers):
        _read_other_variables(layer, found)
    for key, value in flags.items():
        if value is not None:
            found.give(key, value, f"--{key.replace('_', '-')}")
    return found


@dataclass(frozen=True, slots=True)
class Variables:
    """Variables of the environment, or of a `.env` file."""

    values: dict[str, str]
    path: Path | None = None

    def variable_of(self, setting: str) -> str:
        """The variable that sets a setting, empty if none does."""
        for variable in names_of(setting):
            if self.values.get(variable, "").strip() and not _of_kubernetes(setting, self.values[variable]):
                return variable
        return ""

    def shown(self, variable: str) -> str:
        return variable if self.path is None else f"{variable} in {self.path}"


def _first(layers: list[Variables], setting: str) -> str:
    """What the first of some layers says of a setting."""
    for layer in layers:
        if variable := layer.variable_of(setting):
            return layer.values[variable].strip()
    return ""


def names_of(setting: str) -> list[str]:
    """Environment variables that set a setting, in order of precedence; empty ones do not count."""
    prefixes = (*PREFIXES, OLDEST_PREFIX) if setting in legacy.OLDEST else PREFIXES
    return [prefix + setting.upper() for prefix in prefixes]


def _of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes has set AIRELAYS_PORT, as it does in containers beside a service named "airelays"."""
    return name == "port" and value.strip().startswith("tcp://")


def _read_other_variables(layer: Variables, found: Collected) -> None:
    """Add variables of AIRelays 0.x to `found.old`, and say which ones nothing reads."""
    for variable in sorted(layer.values):
        prefix = next((prefix for prefix in (*PREFIXES, OLDEST_PREFIX) if variable.startswith(prefix)), None)
        name = variable.removeprefix(prefix or "").lower()
        if prefix is None or not layer.values[variable].strip() or name in found.names:
            continue
        if name in legacy.NAMES:
            found.old[name] = layer.values[layer.variable_of(name) or variable].strip()
        elif prefix != OLDEST_PREFIX and not _NO_SETTINGS.fullmatch(name):
            near = difflib.get_close_matches(name, list(found.names), 1, 0.7)
            text = (
                gettext_noop("%(name)s is not a setting and has no effect. Did you mean %(near)s?")
                if near
                else gettext_noop("%(name)s is not a setting and has no effect. docs/configure.md lists them all.")
            )
            more = {"near": f"AIRELAYS_{near[0].upper()}"} if near else {}
            found.notices.append(Message(text, name=layer.shown(variable), **more))


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


def default_file() -> Path | None:
    """The configuration file where none is named. None without a home folder."""
    own = home()
    if own is None:
        return None
    current, legacy_file = (own / ".config" / name / "config.toml" for name in ("airelays", "airelay"))
    return legacy_file if legacy_file.is_file() and not current.exists() else current


def _read_toml(named: str, found: Collected) -> None:
    """Add what the configuration file says: the one that is named, or the one in its place."""
    path = _expand(named) if named else default_file()
    if path is None:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigError(f"there is no configuration file {path}") from None
        return
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {_why(error)}") from error
    found.files.append(path)
    if sections := legacy.provider_sections(document):
        found.notices.append(legacy.without_providers(sections))
    for section, key, value in _flat(document, found.names):
        if (key in legacy.OF_SIGN_IN and section) or (key in legacy.NAMES and key not in found.names):
            found.old[key] = value
        else:
            found.give(key, value, f"{key} in the configuration file")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _flat(
    document: Mapping[str, object], names: Collection[str], section: str = ""
) -> Iterator[tuple[str, str, object]]:
    """The settings in a configuration file: the section that each stands in, the name of its variable, its value."""
    for key, value in document.items():
        inner = f"{section}.{key}".removeprefix(".")
        if isinstance(value, dict):
            yield from _flat(value, names, inner)
        elif section in legacy.SECTIONS and (key not in names or key in legacy.SECTIONS[section]):
            yield section, legacy.name_in(section, key), value
        else:
            yield section, key, value


def working_folder() -> Path | None:
    """The folder that the program was started in, None if it is gone."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _read_named(path: Path, found: Collected) -> Variables:
    """The settings in a `.env` file that somebody has named. Raises ConfigError, also when there is none."""
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    return _read_dotenv(path, found)


def _read_working(folder: Path, found: Collected) -> Variables:
    """The settings in `.env` of the working folder; none when it is in a checkout of another project.

    Who clones a project and starts the portal in it has not read its `.env`, which would say where requests, keys and
    sign-ins go. Raises ConfigError.
    """
    path, top = folder / ".env", _checkout_of(folder)
    if top is None:
        return _read_dotenv(path, found)
    try:
        there = _read_dotenv(path, Collected(()))
    except ConfigError:
        return Variables({}, path)
    if there.values:
        text = gettext_noop(
            "%(path)s is not read: it is in %(checkout)s, a checkout of another project. If it is yours, name it with "
            "--env-file or AIRELAYS_ENV_FILE."
        )
        found.notices.append(Message(text, path=str(path), checkout=str(top)))
    return Variables({}, path)


def _checkout_of(folder: Path) -> Path | None:
    """The top folder of the checkout that a folder is in; None: of none, or of the portal's own."""
    folder = folder.resolve()
    if folder.is_relative_to(_ROOT):
        return None
    return next((one for one in (folder, *folder.parents) if any((one / name).exists() for name in _CHECKOUTS)), None)


def _read_dotenv(path: Path, found: Collected) -> Variables:
    """The settings in a `.env` file; none when it is missing, or when another user can write it.

    Only variables with our prefixes are read: the file may belong to another program. Raises ConfigError.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return Variables({}, path)
        if about.st_uid not in {os.getuid(), 0} or about.st_mode & stat.S_IWOTH:
            found.notices.append(
                Message(gettext_noop("%(path)s is not read: another user can write it."), path=str(path))
            )
            return Variables({}, path)
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Variables({}, path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file {path} cannot be read: {_why(error)}") from error
    values = dotenv_values(stream=StringIO(text), interpolate=False)
    ours = {name: value for name, value in values.items() if name.startswith((*PREFIXES, OLDEST_PREFIX)) and value}
    if ours:
        found.files.append(path)
    return Variables(ours, path)


def _expand(named: str) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise ConfigError(f"there is no home folder here: write the whole path of the file {named}") from None
