from __future__ import annotations

from django.apps import AppConfig


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = "Portal"

    def ready(self) -> None:
        from django.contrib import admin

        from portal import checks  # noqa: F401  # registers the system checks

        admin.site.index_title = "Overview"
