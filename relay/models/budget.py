from __future__ import annotations

from typing import Final

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from relay.models.ledger import Period
from relay.models.token import Token

_ONCE: Final = _("There is such a budget already: change its limit.")
PERIOD_WORDS: Final = {"day": gettext_noop("daily"), "week": gettext_noop("weekly"), "month": gettext_noop("monthly")}


class Budget(models.Model):
    """The most that a user or one token may spend in a calendar day, week or month.

    All budgets apply at the same time.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    token = models.ForeignKey(Token, null=True, blank=True, on_delete=models.CASCADE, related_name="budgets")
    period = models.CharField(max_length=5, choices=Period.choices)
    limit = models.DecimalField("limit in USD", max_digits=18, decimal_places=9, validators=[MinValueValidator(0)])

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, token__isnull=True) | Q(user__isnull=True, token__isnull=False),
                name="budget_user_or_token",
                violation_error_message=_("Choose a user or a token, one of the two."),
            ),
            models.UniqueConstraint(
                fields=["user", "period"], name="budget_once_per_user", violation_error_message=_ONCE
            ),
            models.UniqueConstraint(
                fields=["token", "period"], name="budget_once_per_token", violation_error_message=_ONCE
            ),
        ]

    def __str__(self) -> str:
        return f"${self.limit.normalize():f} a {self.period}"

    @property
    def owner_id(self) -> int:
        """Id of the user whose spending it limits."""
        return self.user_id if self.user_id is not None else self.token.user_id  # type: ignore[union-attr]  # one of the two is there
