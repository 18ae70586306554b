from __future__ import annotations

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("People")

    def ready(self) -> None:
        if apps.is_installed("allauth.account"):  # not where a process only relays: it changes no users and no groups
            from accounts import signals

            signals.connect()
