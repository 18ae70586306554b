from __future__ import annotations

from django.apps import AppConfig


class RelayConfig(AppConfig):
    name = "relay"
    verbose_name = "Relay"

    def ready(self) -> None:
        from accounts import outbound
        from relay import signals
        from relay.gateway.load import allowances

        signals.connect()
        outbound.allowances = allowances
