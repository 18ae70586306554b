"""Client secrets of /v1/realtime: what a browser may open a session with, in the name of a token."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.byte_count import byte_count
from relay.models.token import Token


class ClientSecret(models.Model):
    """A client secret and its session. Only a digest of the secret is stored."""

    digest = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="client_secrets")
    token = models.ForeignKey(Token, on_delete=models.CASCADE, related_name="client_secrets")
    token_digest = models.CharField(max_length=64)  # of the token when it was made: it ends when the token is rotated
    session = models.TextField(blank=True)  # JSON object
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    size = byte_count("session")

    class Meta:
        verbose_name = "client secret"
        ordering = ["-id"]
        indexes = [models.Index(fields=["user", "size"], name="secret_bytes_of_user")]

    def __str__(self) -> str:
        return f"client secret {self.pk}"
