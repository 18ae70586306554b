"""Which process does a kind of work that only one may do at a time."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from typing import Final

from django.db import IntegrityError, models, transaction
from django.db.models import Q

from portal.lib import clock

_ME: Final = f"{socket.gethostname()[:30]}:{os.getpid()}:{secrets.token_hex(4)}"  # what this process signs its leases with


class Lease(models.Model):
    """Who does a kind of work until when, so that one does it however many could."""

    name = models.CharField(max_length=40, unique=True)
    owner = models.CharField(max_length=60)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.name

    @classmethod
    def hold(cls, name: str, seconds: float) -> bool:
        """Take or keep a lease. False while another process has it. Synchronous."""
        now = clock.now()
        until = now + timedelta(seconds=seconds)
        if cls.objects.filter(Q(until__lt=now) | Q(owner=_ME), name=name).update(owner=_ME, until=until):
            return True
        try:
            with transaction.atomic():
                _lease, made = cls.objects.get_or_create(name=name, defaults={"owner": _ME, "until": until})
        except IntegrityError:
            return False
        return made

    @classmethod
    def give_back(cls, name: str) -> None:
        """Let another process begin at once."""
        cls.objects.filter(name=name, owner=_ME).delete()
