"""The Django app of the relay."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.utils.translation import gettext_lazy as _


class RelayConfig(AppConfig):
    name = "relay"
    verbose_name = _("Relay")

    def ready(self) -> None:
        from portal.services import outside
        from relay import roles, signals
        from relay.models import AllowedUpstream
        from relay.protocols.naming.references import allow_objects
        from relay.protocols.naming.unpriced_tools import allow_unpriced_tools

        signals.connect_signals()
        roles.connect(self)
        outside.allowances = AllowedUpstream.allowances
        allow_objects(settings.CONFIG.upstream_objects == "allow")
        allow_unpriced_tools(settings.CONFIG.unpriced_tools == "allow")
