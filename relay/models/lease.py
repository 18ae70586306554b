"""Leases: named locks with a time limit, for work that only one process may do at a time."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from typing import Final

from django.db import IntegrityError, models, transaction
from django.db.models import Q

from portal.lib import clock

_PROCESS: Final = f"{socket.gethostname()[:30]}:{os.getpid()}:{secrets.token_hex(4)}"  # names this process as owner


class Lease(models.Model):
    """A named lock that one process holds until a time."""

    name = models.CharField(max_length=40, unique=True)
    owner = models.CharField(max_length=60)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.name

    @classmethod
    def hold(cls, name: str, seconds: float) -> bool:
        """Take or renew a lease for a number of seconds. False while another process holds it. Synchronous."""
        now = clock.now()
        until = now + timedelta(seconds=seconds)
        if cls.objects.filter(Q(until__lt=now) | Q(owner=_PROCESS), name=name).update(owner=_PROCESS, until=until):
            return True
        try:
            with transaction.atomic():
                _lease, made = cls.objects.get_or_create(name=name, defaults={"owner": _PROCESS, "until": until})
        except IntegrityError:
            return False
        return made

    @classmethod
    def release(cls, name: str) -> None:
        """Release a lease of this process, so that another one can take it at once."""
        cls.objects.filter(name=name, owner=_PROCESS).delete()
