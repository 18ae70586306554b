from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar

from django.contrib.auth.models import Group
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models import ChangeTracked, Limited
from portal.lib import net
from portal.lib.crypto import Undecryptable, mask
from relay.models.fields import box
from relay.models.pool import Pool
from relay.providers.vendor import Vendor
from relay.providers.vendors import VENDORS, grouped


def provider_choices() -> list[Any]:
    """Return the choices of vendors by group. A function, so that a new vendor needs no migration."""
    found: list[Any] = []
    for title, vendors in grouped():
        named = [(vendor.key, str(_(vendor.label))) for vendor in vendors]
        found += [(str(_(title)), named)] if title else named
    return found


_TIMEOUT = [MinValueValidator(1), MaxValueValidator(86_400)]


class DisconnectPolicy(models.TextChoices):
    """What is charged for an answer when its client disconnects or its upstream breaks off."""

    DELIVERED = "delivered", "what was delivered: the prompt and the text so far"
    RESERVED = "reserved", "the whole reservation: the upstream bills on to its end"
    FREE = "free", "nothing"


class KeyStrategy(models.TextChoices):
    """How a key of a channel is chosen for a request."""

    RANDOM = "random", "at random, by weight"
    ROUND_ROBIN = "round_robin", "in turn, by weight"


class RetryUnanswered(models.TextChoices):
    """Whether a request that an upstream accepted but did not answer is retried elsewhere; both may charge for it."""

    NEVER = "never", "never"
    BROKEN = "broken", "when the connection broke"
    ALWAYS = "always", "when the connection broke or no answer came in time"


class TextApi(models.TextChoices):
    """Which of OpenAI's two text APIs an upstream has. Clients of the other one are served by conversion."""

    CHAT = "chat", "chat completions only"
    RESPONSES = "responses", "responses only"
    BOTH = "both", "both"


class Channel(ChangeTracked, Limited):
    """A configured way to an upstream: provider, base URL, keys, models, priority, weight."""

    name = models.CharField(max_length=80, unique=True)
    provider = models.CharField(
        max_length=30, choices=provider_choices, default="openai", help_text="The dialect that the upstream speaks."
    )
    base_url = models.CharField(
        "base URL",
        max_length=300,
        blank=True,
        help_text="With the version path, such as https://api.openai.com/v1. Empty: the vendor's own address.",
    )
    enabled = models.BooleanField(default=True)
    priority = models.IntegerField(
        default=0, help_text="Channels of the highest priority are used first; lower ones when those fail."
    )
    weight = models.PositiveIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="Share of the requests among channels of equal priority.",
    )
    groups = models.ManyToManyField(
        Group,
        blank=True,
        related_name="channels",
        help_text="Choosing one reserves the channel for users of those chosen. None: for everyone.",
    )
    # Outlives the rows of `groups`: a channel whose last group was deleted is for nobody, not for everyone.
    groups_limited = models.BooleanField(
        "only for these groups",
        default=False,
        help_text="While this is on and no group is chosen, nobody may use the channel.",
    )
    pool = models.ForeignKey(
        Pool,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="channels",
        help_text="Channels of a pool share a strategy.",
    )
    key_strategy = models.CharField(
        "choice of keys", max_length=12, choices=KeyStrategy.choices, default=KeyStrategy.RANDOM
    )
    retry_unanswered = models.CharField(
        "retry elsewhere when unanswered",
        max_length=8,
        choices=RetryUnanswered.choices,
        default=RetryUnanswered.BROKEN,
        help_text="A request that the upstream had taken may be billed although it was never answered.",
    )
    proxy_url = models.CharField(
        "proxy URL",
        max_length=300,
        blank=True,
        help_text="HTTP proxy for this channel, such as http://proxy.example.org:3128.",
    )
    sends_done = models.BooleanField(
        "ends streams with [DONE]",
        default=True,
        help_text=(
            "Turn off for upstreams that end a complete stream only by closing the connection. On: a stream without it "
            "is complete if every choice is finished and HTTP's framing marks the end of the body."
        ),
    )
    stream_usage = models.BooleanField(
        "reports usage in streams",
        default=True,
        help_text=(
            "Ask for usage with stream_options. Turn off for old upstreams that refuse it; usage is then estimated."
        ),
    )
    text_api = models.CharField(
        "API for text",
        max_length=10,
        choices=TextApi.choices,
        blank=True,
        help_text="Clients of the other API are served by conversion. Empty: as the vendor does.",
    )
    parameters = models.JSONField(
        "parameter policy",
        default=dict,
        blank=True,
        help_text=(
            'Beside the vendor\'s own: {"seed": "drop", "top_k": "refuse", "max_tokens": '
            '"rename:max_completion_tokens", "responses/max_output_tokens": "refuse"}.'
        ),
    )
    # As `relay.providers.overrides.rules` has them. Null for channels that a worker of an earlier version adds.
    overrides = models.JSONField(
        null=True,
        blank=True,
        default=list,
        help_text=(
            "What is changed in requests before they are sent to this upstream: members set, removed or renamed, "
            "headers set or removed."
        ),
    )
    connect_timeout = models.PositiveIntegerField(
        null=True, blank=True, validators=_TIMEOUT, help_text="Seconds. Empty: the default of the installation."
    )
    first_byte_timeout = models.PositiveIntegerField(
        null=True, blank=True, validators=_TIMEOUT, help_text="Seconds until the first byte of the answer."
    )
    idle_timeout = models.PositiveIntegerField(
        null=True, blank=True, validators=_TIMEOUT, help_text="Longest silence inside an answer, in seconds."
    )
    total_timeout = models.PositiveIntegerField(
        null=True, blank=True, validators=_TIMEOUT, help_text="Longest duration of one request, in seconds."
    )
    cost_multiplier = models.DecimalField(
        max_digits=9,
        decimal_places=6,
        default=Decimal(1),
        validators=[MinValueValidator(Decimal(0)), MaxValueValidator(Decimal(100))],
        help_text=(
            "What this upstream costs, times the price of a model: 0.8 for 20 % off the list. For reports of cost and "
            "margin."
        ),
    )
    disconnect_policy = models.CharField(
        "billing of unfinished answers",
        max_length=10,
        choices=DisconnectPolicy.choices,
        default=DisconnectPolicy.DELIVERED,
        help_text="When the client leaves, or the upstream breaks off.",
    )
    notes = models.TextField(blank=True)
    tags = models.CharField(
        max_length=200, blank=True, help_text="Words of your own to find channels by, separated by spaces."
    )
    tested_at = models.DateTimeField("last test", null=True, blank=True, editable=False)
    test_ok = models.BooleanField("test passed", null=True, editable=False)
    test_latency_ms = models.PositiveIntegerField("test latency", null=True, editable=False)
    test_message = models.CharField("test result", max_length=500, blank=True, editable=False)
    test_first_token_ms = models.PositiveIntegerField("first token at the test", null=True, editable=False)
    test_model = models.CharField(
        "model for tests",
        max_length=160,
        blank=True,
        help_text="What the upstream calls a model that can chat. Empty: the first that the channel serves.",
    )
    test_every = models.PositiveIntegerField(
        "test every (minutes)",
        null=True,
        blank=True,
        validators=[MaxValueValidator(100_000)],
        help_text=(
            "A test is a real request and costs a few tokens. 0: never. Empty: as the installation says "
            "(PROBE_MINUTES)."
        ),
    )
    listed_models = models.JSONField(null=True, editable=False)
    listed_at = models.DateTimeField("model list fetched", null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-priority", "name"]

    def __str__(self) -> str:
        return self.name

    @property
    def vendor(self) -> Vendor:
        """The description of its vendor. Raises KeyError when that vendor has been removed."""
        return VENDORS[self.provider]

    @property
    def effective_base_url(self) -> str:
        """The base URL of the channel, or else of its vendor, without a trailing slash."""
        return (self.base_url or self.vendor.base_url).rstrip("/")

    def refusal(self, allowed: Sequence[net.Allowance]) -> str:
        """Return why its address or its proxy may not be used, empty when they may. Resolves no names."""
        if self.vendor.built_in:
            return ""
        try:
            net.check_url(self.effective_base_url, allowed)
            if self.proxy_url:
                net.check_url(self.proxy_url, allowed, ("http",))
        except net.AddressRefused as reason:
            return str(reason)
        return ""

    def key_destination(self) -> str:
        """Who gets the keys of this channel: the origin of its address, and a proxy that can read them.

        A vendor's own address is called by the vendor's name, since a new version of the portal may know another one.
        """
        vendor = VENDORS.get(self.provider)
        own = vendor.base_url if vendor is not None else ""
        there = net.origin(self.base_url or own)
        seen_by = net.origin(self.proxy_url) if self.proxy_url and not there.startswith("https:") else ""
        name = f"vendor {self.provider}" if own and there == net.origin(own) else there
        return f"{name} via {seen_by}" if seen_by else name


class KeyGivenElsewhere(Undecryptable):
    """The key was given for another address than its channel has now, and is not sent there."""


class UnusableKey(Undecryptable):
    """The key is none of its vendor's kind. `str()` is a sentence to be translated."""


class AutoDisabled(models.TextChoices):
    """Why the relay took a key out of service. The values are words of failure classes."""

    KEY_DEAD = "key_dead", "not accepted by the upstream"
    BILLING = "billing", "account without money"


class ApiKey(ChangeTracked, Limited):
    """An upstream API key of a channel. Stored encrypted; no page shows it again."""

    PURPOSE: ClassVar[str] = "upstream-key"

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="keys")
    label = models.CharField(max_length=80, blank=True)
    sealed = models.TextField(editable=False)
    hint = models.CharField("key", max_length=24, editable=False)
    # `Channel.key_destination` when the secret was typed. Whoever changes the channel's address does not get the key.
    given_for = models.CharField(max_length=700, default="", editable=False)
    enabled = models.BooleanField(default=True)
    weight = models.PositiveIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(1000)])
    # Set by the relay while the upstream does not accept the key or its account is empty; cleared by a test that
    # passes.
    auto_disabled = models.CharField(
        "taken out of service", max_length=8, choices=AutoDisabled.choices, blank=True, editable=False
    )
    auto_disabled_at = models.DateTimeField(null=True, editable=False)
    auto_disabled_reason = models.CharField(max_length=300, blank=True, editable=False)
    next_test_at = models.DateTimeField(null=True, editable=False)
    failed_tests = models.PositiveIntegerField(default=0, editable=False)
    balance = models.DecimalField(
        max_digits=18, decimal_places=6, null=True, editable=False, help_text="As the vendor said."
    )
    balance_currency = models.CharField(max_length=8, blank=True, editable=False)
    balance_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "API key"
        ordering = ["id"]

    def __str__(self) -> str:
        return self.label or f"#{self.pk} {self.hint}"

    @property
    def public_name(self) -> str:
        """How texts call it that people without a right to keys may read: without a part of the secret."""
        return self.label or f"#{self.pk}"

    def set_secret(self, secret: str, channel: Channel | None = None) -> None:
        """Encrypt and set the secret, for the address that its channel has now. Does not save.

        `channel`: the channel as it is stored, when it is at hand. The one that the key holds may be older than a form
        that changes both.
        """
        if channel is None:
            channel = Channel.objects.filter(pk=self.channel_id).first() or self.channel
        vendor = VENDORS.get(channel.provider)
        shown = vendor.credentials.shown(secret) if vendor is not None else secret
        self.sealed, self.hint = box(self.PURPOSE).seal(secret), mask(shown)
        self.given_for = channel.key_destination()

    def reset_state(self) -> None:
        """Forget failures, tests and balance of the old secret after `set_secret` gave the key another one."""
        self.auto_disabled = self.auto_disabled_reason = ""
        self.auto_disabled_at = self.next_test_at = self.balance = self.balance_at = None
        self.failed_tests = 0

    def is_for(self, channel: Channel) -> bool:
        """Whether the key was given for the address of a channel."""
        return bool(self.given_for) and self.given_for == channel.key_destination()

    def secret_for(self, channel: Channel) -> str:
        """Return the secret in clear, to be sent to a channel's address.

        Raises KeyGivenElsewhere, portal.lib.crypto.Undecryptable.
        """
        if not self.is_for(channel):
            raise KeyGivenElsewhere
        return self.secret_to_compare()

    def secret_to_compare(self) -> str:
        """Return the secret in clear, to be compared with another. To send it, take `secret_for`.

        Raises portal.lib.crypto.Undecryptable.
        """
        return box(self.PURPOSE).open(self.sealed)
