"""The ChatGPT account that a user has signed in with, for the use of their own plan."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models import ChangeTracked
from portal.lib.json import Json, decode_object, encode
from relay.models.channel import Channel
from relay.models.fields import box


class SignInState(models.TextChoices):
    """Whether an account can be used, as far as is known."""

    SIGNED_IN = "signed_in", _("signed in")
    EXPIRED = "expired", _("sign in again")
    INCOMPLETE = "incomplete", _("signed in without consent to the use of the plan")
    SIGNED_OUT = "signed_out", _("signed out")


class ChatGPTAccount(ChangeTracked):
    """A user's own sign-in at ChatGPT, and the channel by which only this user is served.

    Tokens are stored encrypted; no page shows them.
    """

    PURPOSE: ClassVar[str] = "chatgpt-account"

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="chatgpt_account")
    # Of the vendor's kind, never enabled itself: it is in no list, pool or group of channels. Gives records their name.
    channel = models.OneToOneField(Channel, on_delete=models.PROTECT, related_name="chatgpt_account", editable=False)
    state = models.CharField(max_length=12, choices=SignInState.choices, default=SignInState.SIGNED_OUT, editable=False)
    shape = models.CharField(max_length=12, editable=False)
    client_id = models.CharField(max_length=200, blank=True, editable=False)
    # The issuer and the address of requests for which the tokens were given; they are sent nowhere else.
    issuer = models.CharField(max_length=300, blank=True, editable=False)
    base_url = models.CharField(max_length=300, blank=True, editable=False)
    sealed = models.TextField(blank=True, editable=False)  # access, refresh and ID token; empty: none
    expires_at = models.DateTimeField("access token expires", null=True, editable=False)
    subject = models.CharField(max_length=200, blank=True, editable=False)
    email = models.CharField("e-mail", max_length=254, blank=True, editable=False)
    plan = models.CharField(max_length=40, blank=True, editable=False)
    account_id = models.CharField("account id", max_length=100, blank=True, editable=False)
    source = models.CharField(max_length=100, blank=True, editable=False)  # where the sign-in came from
    # When its owner turned it on after reading the terms; empty: it is off.
    enabled_at = models.DateTimeField("turned on", null=True, editable=False)
    api_enabled = models.BooleanField("use under /v1", default=False, editable=False)
    model_list = models.JSONField(null=True, editable=False)  # as `relay.providers.plans.catalogue` reads them
    listed_at = models.DateTimeField("model list fetched", null=True, editable=False)
    windows = models.JSONField(null=True, editable=False)  # as `relay.providers.plans.windows` reads them
    signed_in_at = models.DateTimeField(null=True, editable=False)
    refreshed_at = models.DateTimeField(null=True, editable=False)
    # Who refreshes the tokens now, and until when others wait for it.
    lease = models.CharField(max_length=40, blank=True, default="", editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "ChatGPT sign-in"
        ordering = ["id"]

    def __str__(self) -> str:
        return self.email or f"#{self.pk}"

    @property
    def tokens(self) -> Json:
        """`access`, `refresh` and `identity`. Empty when there are none. Raises portal.lib.crypto.Undecryptable."""
        return (decode_object(box(self.PURPOSE).open(self.sealed)) or {}) if self.sealed else {}

    def set_tokens(self, tokens: Json) -> None:
        """Encrypt and set the tokens. Does not save."""
        self.sealed = box(self.PURPOSE).seal(encode(tokens).decode()) if tokens else ""

    @property
    def is_on(self) -> bool:
        return self.enabled_at is not None

    @property
    def listed(self) -> list[Any]:
        """The models of the plan."""
        return self.model_list if isinstance(self.model_list, list) else []
