"""Loads the admin."""

from __future__ import annotations

import sys

from django.contrib import admin
from django.contrib.admin import apps
from django.db import connection
from django.utils.translation import gettext_lazy

_POSTGRES_FIELDS = "django.contrib.postgres.fields"


class AdminConfig(apps.AdminConfig):
    """Django's, without the form fields of PostgreSQL where the database is another one."""

    default = False

    def ready(self) -> None:
        if connection.vendor != "postgresql" and _POSTGRES_FIELDS not in sys.modules:
            # Unfold has widgets for these fields and does without where they cannot be imported. They bring psycopg
            # along, 9 MB in each worker, and no model here has any.
            sys.modules[_POSTGRES_FIELDS] = None  # type: ignore[assignment]
            try:
                import unfold.overrides  # noqa: F401
            finally:
                del sys.modules[_POSTGRES_FIELDS]
        super().ready()
        admin.site.index_title = gettext_lazy("Overview")
