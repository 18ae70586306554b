"""Sums of the usage records of a session: the requests to which a client, such as a coding agent, gave one id.

Written by `relay.usage.rollup` alone, which can also rebuild them from the records.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.channel import Channel
from relay.models.fields import LooseForeignKey
from relay.models.rollup import UsageSums
from relay.models.token import Token


class SessionSums(UsageSums):
    """Base of both tables."""

    turns = models.BigIntegerField(default=0)  # requests that a model answered
    busy_ms = models.BigIntegerField(default=0)  # milliseconds that requests took, all together
    first_at = models.DateTimeField()  # when its first request began
    last_at = models.DateTimeField()  # when the last one ended

    class Meta:
        abstract = True


class SessionSum(SessionSums):
    """A session of a user. `session`: the digest in its usage records."""

    user = LooseForeignKey(settings.AUTH_USER_MODEL, null=True)
    token = LooseForeignKey(Token, null=True)
    session = models.BigIntegerField()
    app = models.CharField(max_length=32, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "user"], name="one_sum_of_a_session")]
        indexes = [
            models.Index(fields=["user", "last_at"], name="session_user_time"),
            models.Index(fields=["last_at"], name="session_time"),
        ]

    def __str__(self) -> str:
        return self.code

    @property
    def code(self) -> str:
        """The session in addresses of pages and in exports: 16 digits of hex."""
        return session_code(self.session)


class SessionPart(SessionSums):
    """What an agent of a session (0: the main one) used of a model through a channel (0: none)."""

    user = LooseForeignKey(settings.AUTH_USER_MODEL, null=True)
    session = models.BigIntegerField()
    agent = models.BigIntegerField(default=0)
    parent_agent = models.BigIntegerField(default=0)  # that began it; 0: the main one
    model = models.CharField(max_length=120)
    channel = LooseForeignKey(Channel, null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "session", "agent", "parent_agent", "model", "channel"], name="one_part_of_a_session"
            )
        ]

    def __str__(self) -> str:
        return f"{session_code(self.session)} {self.agent} {self.model}"


def session_code(session: int) -> str:
    """Return the digest of a session as 16 digits of hex."""
    return f"{session % 2**64:016x}"


def session_of_code(code: str) -> int | None:
    """Return the digest that 16 digits of hex stand for; None for any other text."""
    if len(code) != 16 or not set(code) <= set("0123456789abcdef"):
        return None
    found = int(code, 16)
    return found - 2**64 if found >= 2**63 else found
