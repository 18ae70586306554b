from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from relay.models.channel import ApiKey, Channel
from relay.models.fields import LooseForeignKey, keep_used
from relay.models.price import ModelPrice
from relay.models.session import session_code
from relay.models.token import Token

EARNINGS = "relay.view_earnings"  # the right to see what upstreams cost and what is earned


class EndReason(models.TextChoices):
    """How a request ended."""

    COMPLETED = "completed", _("completed")
    CLIENT_ERROR = "client_error", _("refused: the request was at fault")
    NO_CHANNEL = "no_channel", _("no channel available")
    UPSTREAM_ERROR = "upstream_error", _("upstream failed")
    TIMEOUT = "timeout", _("upstream too slow")
    TRUNCATED = "truncated", _("upstream cut the answer off")
    CLIENT_GONE = "client_gone", _("client left")
    ENDED = "ended", _("ended by the portal")
    SHUTDOWN = "shutdown", _("portal stopped")
    INTERNAL = "internal_error", _("error of the portal")


class UsageSource(models.TextChoices):
    """The source of the token counts."""

    REPORTED = "reported", _("reported by the upstream")
    ESTIMATED = "estimated", _("estimated here")
    NONE = "none", _("nothing was used")


class Payer(models.TextChoices):
    """Who pays for a request."""

    WALLET = "wallet", _("the user's balance")
    HOUSE = "house", _("the portal (unlimited balance)")


class Billing(models.TextChoices):
    """What the charge for a request is based on."""

    USAGE = "usage", _("the usage that the upstream reported")
    ESTIMATE = "estimate", _("usage counted here, since the upstream reported none")
    DELIVERED = "delivered", _("unfinished answer: the prompt and what was delivered")
    RESERVED = "reserved", _("unfinished answer: the whole reservation, by the channel's policy")
    FREE = "free", _("nothing, by the channel's policy or since the portal failed")
    NOTHING = "nothing", _("nothing was used")


class UsageRecord(models.Model):
    """One immutable row per request that reached routing.

    Written by `relay.billing.ledger.writer` before the last bytes of the answer are sent. Relations have no database
    constraint, since a row outlives what it refers to.
    """

    request_id = models.CharField(max_length=36, unique=True)
    client_request_id = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField(db_index=True)
    user = LooseForeignKey(settings.AUTH_USER_MODEL, null=True)
    token = LooseForeignKey(Token, null=True)
    channel = LooseForeignKey(Channel, null=True)
    api_key = LooseForeignKey(ApiKey, null=True)
    model = models.CharField(max_length=120)
    upstream_model = models.CharField(max_length=160, blank=True)
    endpoint = models.CharField(max_length=40)
    streamed = models.BooleanField()
    status = models.PositiveSmallIntegerField(help_text="HTTP status that the client got.")
    end_reason = models.CharField(max_length=16, choices=EndReason.choices)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = models.CharField(max_length=300, blank=True)
    # Counted as OpenAI does: cached and cache-write tokens are part of the input, reasoning tokens of the output.
    input_tokens = models.PositiveBigIntegerField(default=0)
    cached_input_tokens = models.PositiveBigIntegerField(default=0)
    # Of the cached ones. Audio of the input that was not cached is in `audio_input_tokens`.
    cached_audio_input_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    cache_write_tokens = models.PositiveBigIntegerField(default=0)
    # Of the written ones, those that are kept for an hour.
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    reasoning_tokens = models.PositiveBigIntegerField(default=0)
    audio_input_tokens = models.PositiveBigIntegerField(default=0)
    audio_output_tokens = models.PositiveBigIntegerField(default=0)
    image_input_tokens = models.PositiveBigIntegerField(default=0)
    images = models.PositiveIntegerField(default=0)
    milliseconds = models.PositiveBigIntegerField(default=0, help_text="Of audio.")
    characters = models.PositiveBigIntegerField(default=0)
    searches = models.PositiveIntegerField(default=0, db_default=0, help_text="On the web, by the upstream.")
    usage_source = models.CharField(max_length=10, choices=UsageSource.choices)
    latency_ms = models.PositiveIntegerField(help_text="From the request's first byte to the end of the answer.")
    first_token_ms = models.PositiveIntegerField(
        null=True, help_text="Until the first event of a stream, or the answer's headers."
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    attempt_log = models.JSONField(default=list)
    client_ip = models.CharField(max_length=45, blank=True)
    # Digests of the ids that the client sent (`relay.gateway.exchange.client`), and the name of the app.
    session = models.BigIntegerField(null=True)
    agent = models.BigIntegerField(null=True)
    parent_agent = models.BigIntegerField(null=True)
    app = models.CharField(max_length=32, null=True)  # noqa: DJ001  # older rows, and workers of older versions, have none
    price = LooseForeignKey(ModelPrice, null=True, on_delete=keep_used)
    price_multiplier = models.PositiveIntegerField(
        default=1_000_000, help_text="Of the user's group, in parts per million."
    )
    cost = models.BigIntegerField(default=0, help_text="Nano-USD that the request costs at its price.")
    shortfall = models.BigIntegerField(
        default=0, help_text="Nano-USD of the cost that nothing was left to pay for; the portal bears it."
    )
    upstream_cost = models.BigIntegerField(
        default=0, help_text="Nano-USD that the upstream charges, as far as its price is known."
    )
    reserved = models.BigIntegerField(default=0, help_text="Nano-USD held back while the request ran.")
    payer = models.CharField(max_length=6, choices=Payer.choices, blank=True)
    billing = models.CharField(max_length=10, choices=Billing.choices, blank=True)
    # A keyed digest that the turns of a conversation with one model share. Null: the client names none.
    conversation = models.BigIntegerField(null=True)

    class Meta:
        verbose_name = "usage record"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user", "started_at"], name="usage_user_time"),
            models.Index(fields=["token", "started_at"], name="usage_token_time"),
            models.Index(fields=["channel", "started_at"], name="usage_channel_time"),
            # Of MySQL, which has no such indexes, the migration makes a whole one.
            models.Index(
                fields=["user", "session", "started_at"], name="usage_session_time", condition=Q(session__isnull=False)
            ),
            models.Index(fields=["conversation", "id"], name="usage_conversation"),
        ]
        permissions = [
            ("end_request", "Can see and end running requests of everyone"),
            ("view_earnings", "Can see what upstreams cost and what is earned"),
        ]

    def __str__(self) -> str:
        return self.request_id

    @property
    def billing_reason(self) -> str:
        """What the charge is based on, in the reader's language."""
        if self.billing == Billing.ESTIMATE and any(one.get("believed") is False for one in self.attempt_log[-1:]):
            return gettext("usage counted here, since what the upstream reported cannot be true")
        return str(self.get_billing_display())

    @property
    def ignored_parameters(self) -> list[str]:
        """Parts of the request that were not sent to the upstream, as the client was told."""
        names: list[str] = self.attempt_log[-1].get("ignored", []) if self.attempt_log else []
        return names

    @property
    def session_code(self) -> str:
        """Its session in addresses of pages and in exports; empty without one."""
        return "" if self.session is None else session_code(self.session)

    @property
    def charged(self) -> int:
        """Nano-USD that the user or the portal paid."""
        return self.cost - self.shortfall

    @property
    def margin(self) -> int:
        """Nano-USD that the portal earned."""
        return self.charged - self.upstream_cost
