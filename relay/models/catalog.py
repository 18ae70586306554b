from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from accounts.models import ChangeTracked, Limited
from accounts.models.fields import MomentField
from relay.models.channel import Channel
from relay.models.model_names import FAMILY, LONGEST, is_in_family, spellings
from relay.models.pool import STRATEGY_CHOICES
from relay.providers.model_facts import REASONING_LEVELS, abilities_of_name, levels_of_name

MOST_ALIASES: Final = 50  # of one model
RETIRES_SOON: Final = timedelta(days=30)  # so long before its day staff are told


class Ability(models.TextChoices):
    """What a model can do, as listed by /v1/models."""

    CHAT = "chat", _("chat")
    VISION = "vision", _("sees images")
    AUDIO = "audio", _("hears or speaks in chat")
    FILES = "files", _("reads files")
    TOOLS = "tools", _("calls tools")
    STRUCTURED_OUTPUT = "structured_output", _("answers by a JSON schema")
    REASONING = "reasoning", _("reasons")
    EMBEDDINGS = "embeddings", _("embeddings")
    MODERATION = "moderation", _("moderation")
    IMAGE_GENERATION = "image_generation", _("makes images")
    SPEECH = "speech", _("speech from text")
    TRANSCRIPTION = "transcription", _("text from speech")
    RERANK = "rerank", _("ranks documents")
    REALTIME = "realtime", _("realtime")


class Model(ChangeTracked, Limited):
    """A public model name that clients request."""

    name = models.CharField(max_length=LONGEST, unique=True, help_text="What clients write into the field “model”.")
    display_name = models.CharField(max_length=120, blank=True)
    description = models.CharField(max_length=300, blank=True)
    owned_by = models.CharField(
        max_length=60, blank=True, help_text="Shown in /v1/models. Empty: the name of this portal."
    )
    enabled = models.BooleanField(default=True)
    is_open = models.BooleanField(
        "open", default=False, help_text="Everyone may use an open model; the others need a permission."
    )
    context_window = models.PositiveIntegerField(
        null=True, blank=True, help_text="Tokens of prompt and answer together."
    )
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True)
    abilities = models.JSONField(default=list, blank=True, help_text="Shown to clients; nothing is refused by it.")
    reasoning_levels = models.JSONField(
        default=list,
        blank=True,
        null=True,  # of workers of the version before it
        help_text="Values of reasoning_effort that it takes. Empty: those that its name tells.",
    )
    retires_on = models.DateField(
        "retired on", null=True, blank=True, help_text="The day on which its vendor takes it out of service."
    )
    # What was filled in last, by field: such values follow the lists of upstreams, what staff have set does not.
    filled_facts = models.JSONField(default=dict, blank=True, null=True, editable=False)
    strategy = models.CharField(
        "choice of channels",
        max_length=16,
        choices=STRATEGY_CHOICES,
        blank=True,
        help_text="Among channels of equal priority. Empty: that of their pool, or of the installation.",
    )
    sticky = models.BooleanField(
        "conversations keep their channel",
        default=True,
        help_text=(
            "Requests of a session, as the client names it, or with the same prompt_cache_key, previous_response_id, "
            "metadata.user_id or user go to the same channel and key, whose prompt cache knows them."
        ),
    )
    keeps_cache = models.BooleanField(
        "rather fail than leave the cache",
        default=False,
        db_default=False,
        help_text=(
            "While the channel and key that have a conversation in their prompt cache cannot answer, its requests get "
            "503 “warm_channel_unavailable” instead of an answer from elsewhere, where the whole prompt is paid for "
            "again. It ends when the cache has expired."
        ),
    )
    native_only = models.BooleanField(
        "rather fail than convert",
        default=False,
        db_default=False,
        help_text=(
            "Only channels that speak the client's own API serve it; where none can, requests get 503 "
            "“conversion_refused” instead of an answer that was converted."
        ),
    )
    channels = models.ManyToManyField(Channel, through="ChannelModel", related_name="models")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def known_abilities(self) -> tuple[str, ...]:
        """Its abilities; where none are set, those that its name tells. Empty: unknown."""
        return tuple(self.abilities) or abilities_of_name(self.name)

    @property
    def known_reasoning_levels(self) -> tuple[str, ...]:
        """The efforts that it takes, the least first; where none are set, those that its name tells."""
        if "reasoning" not in self.known_abilities:
            return ()
        own = self.reasoning_levels or ()
        return tuple(level for level in REASONING_LEVELS if level in own) or levels_of_name(self.name)

    def clean(self) -> None:
        self.name = self.name.strip()
        if any(character.isspace() for character in self.name):
            raise ValidationError({"name": _("A model name contains no spaces.")})
        alias = ModelAlias.objects.filter(name=self.name).exclude(model=self.pk).select_related("model").first()
        if alias is not None:
            raise ValidationError({"name": taken_name(self.name, alias.model)})


class ModelAlias(ChangeTracked):
    """A further name of a model. Whoever asks for it asks for the model."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=LONGEST, unique=True)

    class Meta:
        verbose_name = "further name of a model"
        verbose_name_plural = "further names of models"
        ordering = ["name"]
        default_permissions = ()  # who may change the model may change these

    def __str__(self) -> str:
        return self.name


def taken_name(name: str, model: Model) -> str:
    """Say that a model cannot have a name, since it is a further one of another model."""
    return _("“%(name)s” is a further name of the model “%(model)s”. Remove it there first.") % {
        "name": name,
        "model": model.name,
    }


def check_alias(name: str, model: Model) -> None:
    """Check that a model may have a further name. Raises ValidationError for one that is none, or that stands for
    another model: as its name or a further one, in another spelling, or as one of its family.

    `model`: with the name that it is to have; perhaps not saved.
    """
    said = {"name": name[:LONGEST]}
    if len(name) > LONGEST or any(character.isspace() for character in name):
        raise ValidationError(_("“%(line)s” is not a model name. Write one a line.") % {"line": name[:200]})
    if name.endswith(FAMILY) or model.name.endswith(FAMILY):
        raise ValidationError(_("Families of models, whose names end in a star, have no further names."))
    if name == model.name:
        raise ValidationError(_("“%(name)s” is the model's own name already.") % said)
    others = Model.objects.exclude(pk=model.pk)
    hidden = others.filter(name__in=list(spellings(name))).first()
    if hidden is None:
        families = others.filter(name__endswith=FAMILY)
        hidden = next((one for one in families if is_in_family(list(spellings(name))[-1], one.name)), None)
    if hidden is not None:
        raise ValidationError(
            _("“%(name)s” already stands for the model “%(model)s”, which it would hide.")
            % {**said, "model": hidden.name}
        )
    alias = ModelAlias.objects.filter(name=name).exclude(model=model.pk).select_related("model").first()
    if alias is not None:
        raise ValidationError(taken_name(name, alias.model))


class ChannelModel(ChangeTracked):
    """That a channel serves a model, perhaps under another name."""

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="served")
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="served_by")
    upstream_name = models.CharField(
        max_length=160, blank=True, help_text="What the channel calls the model. Empty: the same name."
    )
    enabled = models.BooleanField(default=True)
    missing_since = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Since when the upstream's list lacks it."
    )

    class Meta:
        verbose_name = "model of a channel"
        verbose_name_plural = "models of channels"
        constraints = [
            models.UniqueConstraint(
                fields=["channel", "model"],
                name="channel_serves_model_once",
                violation_error_message=_("The channel serves this model already."),
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} · {self.channel}"


class ModelPermission(ChangeTracked):
    """Permission for a user, or every user of a group, to use a model that is not open."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="permissions")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="model_permissions"
    )
    group = models.ForeignKey(Group, null=True, blank=True, on_delete=models.CASCADE, related_name="model_permissions")
    expires_at = MomentField("valid until", null=True, blank=True, help_text="Empty: for ever.")

    class Meta:
        verbose_name = "model permission"
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, group__isnull=True) | Q(user__isnull=True, group__isnull=False),
                name="permission_user_or_group",
                violation_error_message=_("Choose a user or a group, one of the two."),
            ),
            models.UniqueConstraint(
                fields=["model", "user"],
                name="permission_once_per_user",
                violation_error_message=_("This user has such a permission already: change it."),
            ),
            models.UniqueConstraint(
                fields=["model", "group"],
                name="permission_once_per_group",
                violation_error_message=_("This group has such a permission already: change it."),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group} may use {self.model}"
