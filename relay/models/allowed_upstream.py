"""The list of addresses outside the public Internet that channels may use."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext

from accounts.models import ChangeTracked
from portal.lib.net import Allowance, BadAddress


class AllowedUpstream(ChangeTracked):
    """An address outside the public Internet that channels may use, such as an Ollama on this machine."""

    address = models.CharField(
        max_length=120,
        unique=True,
        help_text="Address, network or host name, with or without a port: 127.0.0.1:11434, 10.0.0.0/8, ollama.lan.",
    )
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "allowed upstream address"
        verbose_name_plural = "allowed upstream addresses"
        ordering = ["address"]

    def __str__(self) -> str:
        return self.address

    def clean(self) -> None:
        try:
            Allowance.check(self.address)
        except BadAddress as error:
            raise ValidationError({"address": error.translated(gettext)}) from error

    @classmethod
    def allowances(cls) -> tuple[Allowance, ...]:
        """Return what is allowed beside the public Internet: the addresses of the settings and those of this table."""
        lines = [*settings.CONFIG.upstream_allow, *cls.objects.values_list("address", flat=True)]
        return tuple(Allowance.parse(line) for line in lines)
