"""Prepares an installation for what is to use it: brings the database up to date, and sets up an empty one."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from portal.management.command_line import unhurried
from portal.services.migrations import migrations_missing
from portal.serving.first_run import FirstRun, first_run


def prepare(tell: Callable[[str], object]) -> FirstRun | None:
    """Migrate if that is needed, which `tell` is told, and set up an empty installation.

    Returns the credentials of the first run, None when users exist. Raises CommandError when the data folder cannot be
    written, DatabaseError.
    """
    if not os.access(settings.DATA_DIR, os.W_OK):
        raise CommandError(
            f"the data folder {settings.DATA_DIR} cannot be written. Set AIRELAYS_DATA_DIR to a folder you can write."
        )
    if migrations_missing():
        tell("Preparing the database …")
        with unhurried():
            call_command("migrate", interactive=False, verbosity=0)
    return first_run()
