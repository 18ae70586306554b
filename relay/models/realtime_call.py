"""Calls of /v1/realtime/calls (WebRTC) that are running: which worker meters each, and how it can be hung up."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.token import Token


class RealtimeCall(models.Model):
    """A call whose sound goes between its client and the upstream directly. Deleted once it is hung up."""

    call_id = models.CharField(max_length=40, unique=True)  # by which its client knows it
    upstream_id = models.CharField(max_length=200)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="realtime_calls")
    token = models.ForeignKey(Token, on_delete=models.CASCADE, related_name="realtime_calls")
    token_digest = models.CharField(max_length=64)
    model = models.CharField(max_length=120)  # its public name
    # No foreign keys: a call is hung up as long as the snapshot has them.
    channel_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    created_at = models.DateTimeField()
    ends_at = models.DateTimeField()  # when the upstream has ended it in any case
    owner = models.CharField(max_length=120, blank=True)  # the worker that meters it
    lease_until = models.DateTimeField(db_index=True)
    # What that worker had counted when it renewed its lease.
    running = models.JSONField(default=list)  # responses that it has begun: the upstream's ids, and the portal's
    input_tokens = models.BigIntegerField(default=0)  # that each of them reads, estimated
    output_tokens = models.BigIntegerField(default=0)  # of all of them, estimated

    class Meta:
        verbose_name = "realtime call"
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.call_id
