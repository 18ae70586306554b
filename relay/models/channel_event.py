from __future__ import annotations

from django.db import models
from django.utils.translation import gettext, gettext_noop, pgettext

from relay.models.channel import Channel

# Values of `what`, as msgids.
WORDS = (
    gettext_noop("created"),
    gettext_noop("enabled"),
    gettext_noop("disabled"),
    gettext_noop("key out"),
    gettext_noop("key back"),
    gettext_noop("left alone"),
    gettext_noop("serves again"),
    gettext_noop("test passed"),
    gettext_noop("test failed"),
)


class ChannelEvent(models.Model):
    """A change of a channel's state, by a person or by the portal."""

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(auto_now_add=True)
    what = models.CharField(max_length=20)
    detail = models.CharField(max_length=300, blank=True)
    actor = models.CharField(max_length=150, blank=True, help_text="Empty: the portal itself.")

    class Meta:
        verbose_name = "change of a channel's state"
        ordering = ["-id"]
        indexes = [models.Index(fields=["channel", "-id"], name="event_of_channel")]

    def __str__(self) -> str:
        return f"{self.channel}: {self.what}"

    @property
    def word(self) -> str:
        """What happened, in the reader's language."""
        return pgettext("event", "created") if self.what == "created" else gettext(self.what)

    @classmethod
    def write(cls, channel_id: int, what: str, detail: str = "", actor: object = None) -> None:
        """Record a change of a channel. `what` is one of WORDS, `actor` None for the portal itself."""
        cls.objects.create(
            channel_id=channel_id, what=what, detail=detail[:300], actor=str(actor)[:150] if actor is not None else ""
        )
