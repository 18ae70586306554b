from __future__ import annotations

from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy

from portal.lib import crypto

_closed: set[str] = set()  # SQLite databases whose files have been looked at


def _close_database(connection: Any, **_: Any) -> None:
    if connection.vendor == "sqlite" and (name := str(connection.settings_dict["NAME"])) not in _closed:
        _closed.add(name)
        crypto.close_database(Path(name))


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = gettext_lazy("Portal")

    def ready(self) -> None:
        import gc
        import sys

        from django.db.backends.signals import connection_created

        from portal import checks, lookups  # noqa: F401  # registers the system checks and a lookup
        from portal.translations import translate_models

        if apps.is_installed("django.contrib.admin"):  # only pages show these texts
            translate_models()
        connection_created.connect(_close_database, dispatch_uid="portal.database")
        if "daphne.server" in sys.modules:  # nothing else has loaded Twisted, which takes 25 MB
            from portal.serving.daphne import limit_daphne

            limit_daphne()
        gc.freeze()
        gc.enable()  # entry points load without it
