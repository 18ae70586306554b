"""How a command gets at the installation: its settings alone, or Django and the database.

Commands import models and what is built on them after `django_ready()`, in their functions: `--help`, `--version` and
completion answer at once and where no settings are valid.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from portal.cli.errors import Refusal
from portal.config import Config, load
from portal.installation import command, sources
from portal.installation.lock import listening_at
from portal.installation.sources import ConfigError
from portal.services.database_errors import one_line_is_enough

_T = TypeVar("_T")


def settings() -> Config:
    """The settings, without Django and without making the data folder. Bad ones: one line, exit code 2."""
    return checked(load)


def checked(work: Callable[[], _T]) -> _T:
    """What work on the settings gives. Bad ones: one line, exit code 2."""
    try:
        return work()
    except ConfigError as error:
        sys.stderr.write(f"airelays: {error}\n")
        raise SystemExit(2) from None


def follow_running(config: Config) -> None:
    """Take host and port from the relay that runs on this data folder: it may have been started with others.

    Before Django is set up; what this shell says itself stays.
    """
    if _is_ready() or (found := listening_at(config.data_dir)) is None:
        return
    for name, value in zip(("host", "port"), found, strict=True):
        if not any(os.environ.get(one) for one in sources.names_of(name)):
            os.environ[f"AIRELAYS_{name.upper()}"] = str(value)


def django_ready() -> None:
    """Set Django up. Bad settings, or a data folder that cannot be written: one line, exit code 2."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    gc.disable()  # as in `manage.py`; the apps enable it
    import django

    if _is_ready():
        gc.enable()
    else:
        django.setup()


@contextmanager
def refusals() -> Iterator[None]:
    """Set Django up; inside, errors of the database and refusals of Django's commands are one line and exit code 1."""
    django_ready()
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management.base import CommandError
    from django.db import DatabaseError, InterfaceError

    from portal.management.command_line import database_is_away

    try:
        yield
    except CommandError as error:
        raise Refusal(str(error), error.returncode) from None
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as error:
        raise Refusal(database_is_away(error)) from None


@contextmanager
def database() -> Iterator[None]:
    """The same, where the database must be there and up to date."""
    if not _is_ready():
        config = settings()
        if not config.database_url and not (config.data_dir / "state.sqlite3").exists():
            init = command.here("init", data_dir=config.data_dir)
            raise Refusal(f"The data folder {config.data_dir} is not set up. Run `{init}`.")
        follow_running(config)
        one_line_is_enough()
    with refusals():
        from portal.services.migrations import migrations_missing

        if migrations_missing():
            raise Refusal(f"The database misses migrations of this version. Run `{own_command('init')}`.")
        yield


def _is_ready() -> bool:
    apps = sys.modules.get("django.apps")
    return apps is not None and apps.apps.ready


def own_command(*words: str) -> str:
    """The command as it is called in this shell, for this data folder. Needs Django."""
    from django.conf import settings

    return command.here(*words, data_dir=settings.DATA_DIR)
