"""Checks of the settings: where they come from, what has no effect, who may read them, what contradicts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.core import checks
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.config import Config
from portal.doctor.report import Check, tidy
from portal.installation import sources

# Settings that are secrets, or have one inside.
_SECRET: Final = ("key", "keys", "password", "token", "url")
_NO_SECRET: Final = frozenset(("public_url", "base_url", "upstream_base_url", "issuer_base_url"))
_OF_FOLDER: Final = frozenset(("portal.E001", "portal.W008", "portal.W009", "portal.E002"))  # of `data_folder`
_OF_SETTINGS: Final = "portal.W007"


def configuration(config: Config) -> Iterator[Check]:
    """The configuration file, and what the portal's own system checks say of the settings."""
    variables = sum(1 for name in type(config).model_fields for one in sources.names_of(name) if os.environ.get(one))
    count = {"n": variables}
    given = ngettext("%(n)d environment variable", "%(n)d environment variables", variables) % count
    paths = ", ".join(str(path) for path in config.files)
    if paths and variables:
        said = _("The settings come from %(path)s and %(variables)s.") % {"path": paths, "variables": given}
    elif paths:
        said = _("The settings come from %(path)s.") % {"path": paths}
    elif variables:
        said = _("There is no configuration file; the settings are the defaults and %(variables)s.")
        said %= {"variables": given}
    else:
        said = _("There is no configuration file; the settings are the defaults.")
    data = {"files": [tidy(str(path)) for path in config.files], "variables": variables}
    exposed = [path for path in config.files if _has_secrets(path) and stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in exposed:
        yield Check(
            "config",
            "warn",
            _("The configuration file %(path)s has secrets and can be read by other users.") % {"path": path},
            (_("Run: %(command)s") % {"command": f"chmod 600 {path}"},),
            data,
        )
    if not exposed:
        yield Check("config", "pass", said, data=data)
    yield from _system_checks()


def environment(config: Config) -> Iterator[Check]:
    """Variables and settings that have no effect."""
    if not config.notices:
        yield Check("environment", "pass", _("Every AIRELAYS_ variable is a setting."))
        return
    yield Check(
        "environment",
        "warn",
        " ".join(notice.translated(_) for notice in config.notices),
        (_("Correct or remove them; docs/configure.md lists every setting."),),
        {"names": [str(notice.values.get("name", "")) for notice in config.notices if notice.values.get("name")]},
    )


def _system_checks() -> Iterator[Check]:
    for message in checks.run_checks(include_deployment_checks=True):
        code = str(message.id)
        if not code.startswith("portal.") or code in _OF_FOLDER or code == _OF_SETTINGS or message.is_silenced():
            continue
        steps = (str(message.hint),) if message.hint else ()
        yield Check(
            "config", "fail" if message.level >= checks.ERROR else "warn", str(message.msg), steps, {"id": code}
        )


def _has_secrets(path: Path) -> bool:
    """Whether a file of settings, in TOML or as `.env`, has one that is a secret or has one inside."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    names = [line.partition("=")[0].strip().removeprefix("export ").strip().lower() for line in lines if "=" in line]
    secret = [name for name in names if name.endswith(_SECRET) and not name.startswith("#")]
    return any(name.removeprefix("airelays_").removeprefix("airelay_") not in _NO_SECRET for name in secret)
