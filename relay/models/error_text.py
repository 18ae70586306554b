from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models import ChangeTracked


def language_choices() -> list[tuple[str, str]]:
    """Return the choices of languages. A function, so that a new language needs no migration."""
    return list(settings.LANGUAGES)


class ErrorText(ChangeTracked):
    """Text that replaces the built-in explanation of an error code in one language.

    API errors contain the remedy, too.
    """

    code = models.CharField(_("code"), max_length=64)
    language = models.CharField(_("language"), max_length=12, choices=language_choices)
    meaning = models.TextField(_("what it means"), blank=True, help_text=_("Empty: the built-in text."))
    remedy = models.TextField(_("what to do"), blank=True, help_text=_("Empty: the built-in text."))

    class Meta:
        verbose_name = _("text of an error")
        verbose_name_plural = _("error catalogue")
        ordering = ["code", "language"]
        constraints = [
            models.UniqueConstraint(
                fields=["code", "language"],
                name="error_text_once_per_language",
                violation_error_message=_("There is such a text in this language already: change it."),
            )
        ]

    def __str__(self) -> str:
        return f"{self.code} ({self.language})"
