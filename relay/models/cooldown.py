"""What workers tell each other through the database. None of it is configuration; all of it may be deleted at any time."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from typing import Final

from django.db import IntegrityError, models, transaction
from django.db.models import Q

from portal.lib import clock
from relay.models.catalog import Model
from relay.models.channel import ApiKey, Channel

_ME: Final = f"{socket.gethostname()[:30]}:{os.getpid()}:{secrets.token_hex(4)}"  # what this process signs its leases with


class Cooldown(models.Model):
    """A circuit that is open: a channel, or one of its keys, or one of its models, is left alone until a moment. `place`: "channel:key:model", 0 for all."""

    place = models.CharField(max_length=64, unique=True)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="cooldowns")
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.CASCADE, related_name="cooldowns", verbose_name="key")
    model = models.ForeignKey(Model, null=True, on_delete=models.CASCADE, related_name="cooldowns")
    kind = models.CharField("because", max_length=24)
    detail = models.CharField("what the upstream said", max_length=200, blank=True)
    opened = models.PositiveIntegerField(default=1, help_text="Times in a row.")
    guessed = models.BooleanField(default=False, help_text="The upstream named no time: used all the same when nothing else is left.")
    since = models.DateTimeField()
    until = models.DateTimeField("tried again at")
    worker = models.CharField(max_length=40, blank=True)

    class Meta:
        verbose_name = "cooldown"
        ordering = ["-since"]

    def __str__(self) -> str:
        return self.place


class Worker(models.Model):
    """A worker process that serves, and, while somebody looks, what it is serving."""

    name = models.CharField(max_length=40, unique=True)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_index=True)
    running = models.JSONField(default=list)
    state = models.JSONField(default=dict)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.host} {self.pid}"


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
