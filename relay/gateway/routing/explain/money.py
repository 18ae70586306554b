"""Which balance, quota and budgets behind a token would refuse a request for a model. Not for the request path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from accounts.models import User
from portal.lib import money
from relay.billing.prices import ceiling
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ModelView
from relay.models import Token
from relay.models.budget import PERIOD_WORDS
from relay.protocols.usage import NO_USAGE
from relay.usage.limits import spending_limits

_USUAL: Final = 1000  # tokens in, and as many out


@dataclass(frozen=True, slots=True)
class Covers:
    """What somebody may spend, against what requests for a model cost. Texts are in the active language."""

    user: User
    token: Token | None
    model: ModelView | None
    caller: Caller
    multiplier: int
    now: float
    amounts: bool  # whether the reader may see what users have and pay

    def obstacles(self) -> list[str]:
        """The balance, quota and budgets that do not cover the shortest request, as the ledger asks them."""
        least, found = self._cost(1), []
        texts = {
            ("wallet", "user"): _("The balance of %(user)s is used up. Top it up on the user's page."),
            ("quota", "token"): _("The quota of the token, %(quota)s, is used up. Raise it on the token's page."),
            ("budget", "user"): _("The %(period)s budget of %(user)s, %(quota)s, is used up until %(until)s."),
            ("budget", "token"): _(
                "The %(period)s budget of the token “%(token)s”, %(quota)s, is used up until %(until)s."
            ),
        }
        if not self.amounts:
            texts |= {
                ("quota", "token"): _("The quota of the token is used up. Raise it on the token's page."),
                ("budget", "user"): _("The %(period)s budget of %(user)s is used up until %(until)s."),
                ("budget", "token"): _("The %(period)s budget of the token “%(token)s” is used up until %(until)s."),
            }
        for line, left in self._lines():
            if left < least:
                found.append(texts[line.kind, line.scope] % self._values(line))
                if left > 0 and self.amounts:
                    found[-1] += " " + _("%(left)s is left, less than any request costs.") % {"left": money.show(left)}
        return found

    def conditions(self) -> list[str]:
        """The same of those that cover the shortest request, but none of usual length."""
        least, usual, found = self._cost(1), self._cost(_USUAL), []
        texts = {
            ("wallet", "user"): _("%(left)s is left of the balance."),
            ("quota", "token"): _("%(left)s is left of the quota of the token."),
            ("budget", "user"): _("%(left)s is left of the %(period)s budget of %(user)s until %(until)s."),
            ("budget", "token"): _("%(left)s is left of the %(period)s budget of the token until %(until)s."),
        }
        if not self.amounts:
            short = any(least <= left < usual for _line, left in self._lines())
            said = _("What is left does not pay for a request of %(n)d tokens in and out, which is refused.")
            return [said % {"n": _USUAL}] if short else []
        for line, left in self._lines():
            if least <= left < usual:
                text = texts[line.kind, line.scope] % {**self._values(line), "left": money.show(left)}
                cost = _("A request of %(n)d tokens in and out costs %(cost)s, and is refused.")
                found.append(f"{text} {cost % {'n': _USUAL, 'cost': money.show(usual)}}")
        return found

    def _lines(self) -> list[tuple[Any, int]]:
        """The limits on what may be spent, and what is left of each in nano-USD."""
        lines = spending_limits(self.user.pk, self.token.pk if self.token is not None else None, self.now)
        return [(line, line.limit - line.used) for line in lines if line.limit is not None]

    def _values(self, line: Any) -> dict[str, object]:
        ends = timezone.localtime(line.ends_at) if line.ends_at is not None else None
        return {
            "user": self.user,
            "token": self.token,
            "quota": money.show(line.limit),
            "period": _(PERIOD_WORDS[line.period]) if line.period else "",
            "until": formats.date_format(ends, "MOMENT_FORMAT") if ends is not None else _("never"),
        }

    def _cost(self, tokens: int) -> int:
        """The nano-USD of as many tokens in and out at the dearest route; 0: it is free."""
        model = self.model
        lists = (
            [model.price, *(route.price for route in self.caller.routes(model).tariffs)] if model is not None else []
        )
        prices = [price for one in lists if one is not None and (price := one.at(self.now, tokens)) is not None]
        if not prices:
            return 0 if settings.CONFIG.unpriced == "free" else 1
        return max(ceiling(price, tokens, tokens, self.multiplier, parts=NO_USAGE) for price in prices)
