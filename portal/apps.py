from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = gettext_lazy("Portal")

    def ready(self) -> None:
        from django.contrib import admin

        from portal import checks  # noqa: F401  # registers the system checks
        from portal.translations import translate_models

        translate_models()
        admin.site.index_title = gettext_lazy("Overview")
