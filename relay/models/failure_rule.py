from __future__ import annotations

import logging
import re
from typing import Final

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext

from accounts.models import ChangeTracked
from relay.models.channel import provider_choices
from relay.providers.failures import BY_WORD, RULE_CLASSES, Rule

logger: Final = logging.getLogger(__name__)


def class_choices() -> list[tuple[str, str]]:
    """Return the choices of failure classes. A function, so that a new class needs no migration."""
    return [(kind.word, f"{kind.word}: {gettext(kind.text)}") for kind in RULE_CLASSES]


def rules_in_force() -> tuple[Rule, ...]:
    """Return the enabled rules, in order. Those that cannot be used are left out, and logged once."""
    found = []
    for row in FailureRule.objects.filter(enabled=True):
        if why := row.fault:
            _log_once(f"failure rule {row.pk} is not used: {why}. Change it under “Failure rules”, or delete it.")
        else:
            found.append(row.rule())
    return tuple(found)


_logged: Final[set[str]] = set()


def _log_once(problem: str) -> None:
    """Log a fault of the configuration once, not at every load."""
    if problem not in _logged:
        _logged.add(problem)
        logger.error("%s", problem)


class FailureRule(ChangeTracked):
    """A rule of the administrator for what an upstream's failure means.

    Rules are tried in order, before the built-in ones; the first that matches applies.
    """

    position = models.PositiveIntegerField(default=100, help_text="Lower ones are looked at first.")
    provider = models.CharField(max_length=30, choices=provider_choices, blank=True, help_text="Empty: every provider.")
    status = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(200), MaxValueValidator(599)],
        help_text="HTTP status. Empty: any.",
    )
    word = models.CharField(
        "code, type or reason",
        max_length=120,
        blank=True,
        help_text="As in the error object, whole; one that ends with * is a beginning. Empty: any.",
    )
    text = models.CharField(
        "text in the message",
        max_length=200,
        blank=True,
        help_text="A regular expression that is searched for, without regard to case. Empty: any.",
    )
    failure_class = models.CharField("means", max_length=24, choices=class_choices)
    cooldown = models.PositiveIntegerField(
        "cools down for (seconds)",
        null=True,
        blank=True,
        validators=[MaxValueValidator(32 * 86_400)],
        help_text="When the upstream names no time. Empty: as usual for the class.",
    )
    enabled = models.BooleanField(default=True)
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name = "failure rule"
        ordering = ["position", "id"]

    def __str__(self) -> str:
        asked = [str(self.status) if self.status else "", self.word, f"/{self.text}/" if self.text else ""]
        return f"{' '.join(part for part in asked if part) or 'anything'} → {self.failure_class}"

    def clean(self) -> None:
        if not (self.status or self.word or self.text):
            raise ValidationError(
                gettext(
                    "Say at least a status, a code or a text; a rule that fits every failure would hide all others."
                )
            )
        if self.text:
            try:
                compiled = re.compile(self.text, re.I)
            except re.error as error:
                raise ValidationError(
                    {"text": gettext("This is no regular expression: %(error)s.") % {"error": error}}
                ) from error
            if compiled.search(""):
                raise ValidationError({"text": gettext("This fits an empty message, and so every failure.")})
            if re.search(r"[*+}]\)*[*+{]|\([^)]*[*+][^)]*\)[*+{]", self.text):
                raise ValidationError(
                    {
                        "text": gettext(
                            "A repetition inside a repetition can take for ever on a long message. Write it without."
                        )
                    }
                )

    @property
    def fault(self) -> str:
        """Why the rule cannot be used, empty when it can: forms check it, and a database can be written without one."""
        if BY_WORD.get(self.failure_class) not in RULE_CLASSES:
            known = ", ".join(kind.word for kind in RULE_CLASSES)
            said = {"class": self.failure_class[:40], "known": known}
            return gettext("there is no class “%(class)s” of failures: choose one of %(known)s") % said
        try:
            re.compile(self.text, re.I)
        except re.error as error:
            return gettext("its text is no regular expression: %(error)s") % {"error": error}
        return ""

    def rule(self) -> Rule:
        """Return the rule in the form that `relay.providers.classify` uses, unless it has a `fault`."""
        return Rule(
            BY_WORD[self.failure_class],
            self.provider,
            frozenset([self.status]) if self.status else frozenset(),
            frozenset([self.word.strip().lower()]) if self.word.strip() else frozenset(),
            re.compile(self.text, re.I) if self.text else None,
            float(self.cooldown) if self.cooldown is not None else None,
        )
