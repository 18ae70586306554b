"""How a command gets at the installation: its settings alone, or Django and the database.

Commands import models and what is built on them after `django_ready()`, in their functions: `--help`, `--version` and
completion answer at once and where no settings are valid.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from portal.cli.errors import Refusal
from portal.config import Config, load
from portal.installation.sources import ConfigError


def settings() -> Config:
    """The settings, without Django and without making the data folder. Bad ones: one line, exit code 2."""
    try:
        return load()
    except ConfigError as error:
        sys.stderr.write(f"airelays: {error}\n")
        raise SystemExit(2) from None


def django_ready() -> None:
    """Set Django up. Bad settings, or a data folder that cannot be written: one line, exit code 2."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()


@contextmanager
def database() -> Iterator[None]:
    """Set Django up, and check that the database is there and migrated. Its errors are one line, exit code 1."""
    django_ready()
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError, InterfaceError

    from portal.management.command_line import database_is_away
    from portal.serving.first_run import migrations_missing

    try:
        if migrations_missing():
            raise Refusal("This data folder is not set up yet, or by an older version. Run `airelays init`.")
        yield
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as error:
        raise Refusal(f"airelays: {database_is_away(error)}") from None
