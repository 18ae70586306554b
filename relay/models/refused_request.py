from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from relay.models.fields import LooseForeignKey
from relay.models.token import Token


class RefusedRequest(models.Model):
    """A request of a known token that was refused before it was routed, so that nothing was used or charged.

    Of a token that is refused often, the rest of a minute is one row that says how many they were. Relations have no
    database constraint, since a row outlives what it refers to.
    """

    refused: ClassVar[bool] = True  # for lists of these and usage records

    request_id = models.CharField(max_length=36, db_index=True)
    client_request_id = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField(db_index=True)
    user = LooseForeignKey(settings.AUTH_USER_MODEL, null=True)
    token = LooseForeignKey(Token, null=True)
    model = models.CharField(max_length=120, blank=True, help_text="As the client wrote it, as far as it was read.")
    endpoint = models.CharField(max_length=120, help_text="Method and path.")
    status = models.PositiveSmallIntegerField(help_text="HTTP status that the client got.")
    error_code = models.CharField(max_length=64, blank=True)
    error_param = models.CharField(max_length=64, blank=True)
    error_message = models.CharField(max_length=300, blank=True)
    requests = models.PositiveIntegerField(default=1, help_text="That the row stands for.")
    client_ip = models.CharField(max_length=45, blank=True)

    class Meta:
        verbose_name = "refused request"
        ordering = ["-id"]
        default_permissions = ()  # who may see usage records may see these
        indexes = [
            models.Index(fields=["user", "started_at"], name="refused_user_time"),
            models.Index(fields=["token", "started_at"], name="refused_token_time"),
        ]

    def __str__(self) -> str:
        return self.request_id
