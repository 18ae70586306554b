from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import ClassVar, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from accounts.models import Change, ChangeTracked, Limited
from accounts.models.fields import MomentField
from portal.lib import clock, net
from portal.lib.crypto import Undecryptable, keyed_digest, mask
from relay.models.catalog import Model
from relay.models.fields import box

# Characters of a token. `-` and a number after them pin a channel (`relay.gateway.access.authentication`).
TOKEN_LENGTH = 51
# Values of `Token.state()`, and their msgids.
STATES: Final = {
    "active": gettext_noop("active"),
    "disabled": gettext_noop("disabled"),
    "expired": gettext_noop("expired"),
    "revoked": gettext_noop("revoked"),
    "used_up": gettext_noop("quota used up"),
}


class TokenPurpose(models.TextChoices):
    """Which endpoints a token may use. Every token may list models and read its own usage."""

    ALL = "", _("everything")
    CHAT = "chat", _("chat")
    IMAGES = "images", _("images")
    AUDIO = "audio", _("audio and realtime")
    TASKS = "tasks", _("tasks")


# The abilities of models that the endpoints of a purpose ask for.
_ABILITIES: Final[Mapping[str, frozenset[str]]] = {
    TokenPurpose.CHAT: frozenset(
        ("chat", "vision", "files", "tools", "reasoning", "embeddings", "moderation", "rerank")
    ),
    TokenPurpose.IMAGES: frozenset(("image_generation",)),
    TokenPurpose.AUDIO: frozenset(("audio", "speech", "transcription", "realtime")),
    TokenPurpose.TASKS: frozenset(),
}


def fits_purpose(purpose: str, abilities: Collection[str]) -> bool:
    """Whether a token of this purpose opens an endpoint that a model of these abilities serves.

    A model whose abilities are unknown may have any of them.
    """
    if not purpose:
        return True
    wanted = _ABILITIES[purpose]
    return bool(wanted) and (not abilities or not wanted.isdisjoint(abilities))


def make_token_secret() -> str:
    """Return a new relay token: `sk-` and 48 letters and digits, 285 random bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "sk-" + "".join(secrets.choice(alphabet) for _ in range(48))


def digest_of(secret: str) -> str:
    """Return the digest by which a token is stored and looked up."""
    return keyed_digest(settings.TOKEN_KEY, secret.encode("utf-8", "surrogateescape"))


def sha256_of(secret: str) -> bytes:
    """The SHA-256 of a secret, which is all that some other systems store of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def digest_of_sha256(sha256: bytes) -> str:
    """The digest by which a token is stored of whose secret only the SHA-256 is known, until it is used first.

    The key differs from that of `digest_of`, so that nobody who has read the SHA-256 can send it as the secret.
    """
    return keyed_digest(settings.TOKEN_KEY + b" of SHA-256", sha256)


class Token(ChangeTracked, Limited):
    """An API key of this portal. Only a digest is stored, and an encrypted copy that its owner can reveal."""

    PURPOSE: ClassVar[str] = "relay-token"
    change_topic = Change.TOKEN

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=60)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField("token", max_length=24, editable=False)
    sealed = models.TextField(blank=True, editable=False)
    enabled = models.BooleanField(default=True)
    purpose = models.CharField(
        max_length=8,
        choices=TokenPurpose.choices,
        blank=True,
        default="",
        help_text="Which endpoints it opens. The list of models is open to all.",
    )
    expires_at = MomentField("valid until", null=True, blank=True, help_text="Empty: never expires.")
    models_allowed = models.ManyToManyField(
        Model,
        blank=True,
        related_name="tokens",
        verbose_name="allowed models",
        help_text="Choosing one limits the token to those chosen. None: every model its owner may use.",
    )
    # Outlives the rows of `models_allowed`: a token whose last model was deleted may use nothing, not everything.
    models_limited = models.BooleanField(
        "only these models",
        default=False,
        help_text="While this is on and no model is chosen, the token may use none.",
    )
    limits_fixed = models.BooleanField(
        "limits fixed",
        default=False,
        help_text="Its owner cannot change its validity, quota and budgets.",
    )
    allowed_ips = models.JSONField(
        "allowed addresses",
        default=list,
        blank=True,
        help_text="Addresses or networks that may use the token. Empty: all.",
    )
    notes = models.CharField(max_length=200, blank=True)
    # What it is for, of a token that the portal made for itself: at most one row has each. NULL: somebody's token.
    built_in = models.CharField(max_length=16, null=True, unique=True, editable=False)  # noqa: DJ001
    created_at = models.DateTimeField(auto_now_add=True)
    rotated_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["user", "revoked_at"], name="token_of_user")]

    def __str__(self) -> str:
        return self.name

    def change_key(self) -> str:
        return self.digest

    def clean(self) -> None:
        if not isinstance(self.allowed_ips, list) or not all(isinstance(line, str) for line in self.allowed_ips):
            raise ValidationError({"allowed_ips": _("Write one address or network a line.")})
        try:
            self.allowed_ips = [str(network) for network in net.parse_networks(self.allowed_ips)]
        except net.BadAddress as error:
            raise ValidationError({"allowed_ips": error.translated(gettext)}) from error

    def set_secret(self, secret: str) -> None:
        """Set digest, hint and, where tokens can be revealed, the encrypted copy. Does not save."""
        self.digest, self.hint = digest_of(secret), mask(secret)
        self.sealed = box(self.PURPOSE).seal(secret) if settings.CONFIG.tokens_revealable else ""

    def set_sha256(self, sha256: bytes, hint: str) -> None:
        """Let a secret be known by its SHA-256 alone, until its first use. It cannot be revealed. Does not save."""
        self.digest, self.hint, self.sealed = digest_of_sha256(sha256), hint[:24], ""

    def reveal(self) -> str | None:
        """Return the secret. None when no copy is stored, revealing is turned off, or its encryption key is gone."""
        if not self.sealed or not settings.CONFIG.tokens_revealable:
            return None
        try:
            return box(self.PURPOSE).open(self.sealed)
        except Undecryptable:
            return None

    def state(self, at: datetime | None = None, left: int | None = None) -> str:
        """Return "active", "disabled", "expired", "revoked" or "used_up".

        `left`: nano-USD that are left of its quota; None: it has none, or it is not asked for.
        """
        if self.revoked_at:
            return "revoked"
        if not self.enabled:
            return "disabled"
        if self.expires_at and self.expires_at <= (at or clock.now()):
            return "expired"
        return "active" if left is None or left > 0 else "used_up"
