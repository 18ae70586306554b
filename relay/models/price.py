from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext as _

from accounts.models import ChangeTracked
from accounts.models.fields import MomentField
from portal.lib import clock
from relay.models.catalog import Model
from relay.models.channel import Channel

# Price classes: fields of ModelPrice. The first are USD per 1M tokens, the others USD per unit.
TOKEN_CLASSES = (
    "input",
    "cached_input",
    "cached_audio_input",
    "cache_write",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
)
UNIT_CLASSES = ("per_call", "per_image", "per_second", "per_character", "per_search")
CLASSES = TOKEN_CLASSES + UNIT_CLASSES


def _usd(name: str, required: bool = False) -> models.DecimalField[Any, Any]:
    default = {"default": Decimal(0)} if required else {"null": True, "blank": True}
    return models.DecimalField(
        name, max_digits=18, decimal_places=9, validators=[MinValueValidator(Decimal(0))], **default
    )


class PricePurpose(models.TextChoices):
    """Whether a price is charged to users or by an upstream."""

    SALE = "sale", "what users pay"
    COST = "cost", "what the channel's upstream charges"


class ModelPrice(ChangeTracked):
    """One tier of a model's price from a time on.

    A token class without a price costs what the class it is a part of costs.

    Rows in force are never changed, since receipts refer to them. A new price is a new row with a later beginning.
    """

    IN_FORCE: ClassVar[str] = (
        "A price that is in force cannot be changed, since receipts name it. Add a new one that begins later."
    )

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="prices")
    channel = models.ForeignKey(
        Channel,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="prices",
        help_text="Only when this channel serves. Empty: for all.",
    )
    purpose = models.CharField(max_length=4, choices=PricePurpose.choices, default=PricePurpose.SALE)
    valid_from = MomentField(default=clock.now, db_index=True, begins=True)
    above_tokens = models.PositiveIntegerField(
        "for prompts longer than",
        default=0,
        help_text=(
            "Tokens. 0: every prompt. Longer ones are billed by the row with the largest number below their length."
        ),
    )
    input = _usd("input, per 1M", required=True)
    cached_input = _usd("cached input, per 1M")
    cached_audio_input = _usd("cached audio input, per 1M")
    cache_write = _usd("cache write, per 1M")
    cache_write_1h = _usd("cache write for 1 hour, per 1M")
    output = _usd("output, per 1M", required=True)
    reasoning = _usd("reasoning, per 1M")
    audio_input = _usd("audio input, per 1M")
    audio_output = _usd("audio output, per 1M")
    image_input = _usd("image input, per 1M")
    per_call = _usd("per call")
    per_image = _usd("per image")
    per_second = _usd("per second")
    per_character = _usd("per character")
    per_search = _usd("per web search")
    source = models.CharField(max_length=80, blank=True, help_text="Where the price is from.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "price"
        ordering = ["model__name", "-valid_from", "above_tokens"]
        indexes = [models.Index(fields=["model", "valid_from"], name="price_of_model")]

    def __str__(self) -> str:
        return f"{self.model} · {self.valid_from:%Y-%m-%d %H:%M}" + (
            f" · > {self.above_tokens:,}" if self.above_tokens else ""
        )

    @property
    def in_force(self) -> bool:
        """Whether it has begun, so that it must not change any more."""
        return bool(self.pk is not None and self.valid_from <= clock.now())

    def clean(self) -> None:
        if self.purpose == PricePurpose.COST and self.channel is None:
            raise ValidationError({"channel": _("What an upstream charges belongs to a channel: choose one.")})
        if self.model_id is None or self.valid_from is None or self.above_tokens is None:
            return  # which the form says
        same = ModelPrice.objects.filter(
            model=self.model,
            channel=self.channel,
            purpose=self.purpose,
            valid_from=self.valid_from,
            above_tokens=self.above_tokens,
        )
        if same.exclude(pk=self.pk).exists():
            raise ValidationError(_("There is a price for this moment and this length of prompt already."))
        now = clock.now()
        if (
            self._state.adding
            and self.valid_from < now
            and ModelPrice.objects.filter(
                model=self.model,
                channel=self.channel,
                purpose=self.purpose,
                valid_from__gt=self.valid_from,
                valid_from__lte=now,
            ).exists()
        ):
            raise ValidationError(
                {"valid_from": _("A price that begins later is in force already, so this one would never apply.")}
            )
        if (
            self.above_tokens
            and not ModelPrice.objects.filter(
                model=self.model, channel=self.channel, purpose=self.purpose, valid_from=self.valid_from, above_tokens=0
            ).exists()
        ):
            raise ValidationError(
                {"above_tokens": _("First add the price for every prompt (0) with the same beginning.")}
            )
