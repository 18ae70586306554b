"""Applications of a process that only relays: of others, the tables that requests need."""

from __future__ import annotations

from django.apps import AppConfig


class SecondFactorsConfig(AppConfig):
    """The table of second factors, which powers of staff depend on, without allauth's forms and checks."""

    name = "allauth.mfa"
    default_auto_field = "django.db.models.BigAutoField"

    default = False
