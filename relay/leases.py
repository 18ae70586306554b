"""Who does a kind of work, of all that could: whoever holds its lease, until it runs out or is given back. Synchronous."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Q

from portal.lib import clock
from relay.models import Lease

_ME: Final = f"{socket.gethostname()[:30]}:{os.getpid()}:{secrets.token_hex(4)}"


def hold(name: str, seconds: float) -> bool:
    """Take or keep a lease. False while another process has it."""
    now = clock.now()
    until = now + timedelta(seconds=seconds)
    if Lease.objects.filter(Q(until__lt=now) | Q(owner=_ME), name=name).update(owner=_ME, until=until):
        return True
    try:
        with transaction.atomic():
            _lease, made = Lease.objects.get_or_create(name=name, defaults={"owner": _ME, "until": until})
    except IntegrityError:
        return False
    return made


def give_back(name: str) -> None:
    """Let another process begin at once."""
    Lease.objects.filter(name=name, owner=_ME).delete()
