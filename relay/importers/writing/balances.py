"""What has changed of a balance or a quota in the source since it was carried over, as a movement of the ledger here.

Both sides may have been used meanwhile: the difference there is added or taken here; what was spent here stays spent.
"""

from __future__ import annotations

from dataclasses import dataclass

from accounts.models import User
from portal.lib import money
from relay.billing.ledger import movements
from relay.importers.description import Item, Level
from relay.importers.mapping import Known
from relay.importers.run import Run
from relay.models import Token


@dataclass(frozen=True, slots=True)
class Movement:
    """What is to be added, or taken when it is negative."""

    run: Run
    item: Item
    known: Known
    amount: int  # nano-USD

    def post(self, row: User) -> int:
        """Add it to a wallet, or take it. Returns what is carried over in all then: less where little was left."""
        reason = f"Balance from {self.run.report.installation}"
        if self.amount > 0:
            return self.known.amount + add(self.run, self.item, row, self.amount, reason)
        wanted = -self.amount
        taken = movements.deduct_up_to(row, wanted, actor=None, reason=reason)
        if taken < wanted:
            left = money.exact(wanted - taken)
            text = f"Its balance fell there by {left} more than is left here: the next import tries again."
            self.run.report.tell("user", self.item, text)
        return self.known.amount - taken

    def post_quota(self, token: Token) -> int:
        """Change the quota of a token. Returns what is carried over in all then."""
        movements.change_quota(token, self.amount)
        return self.known.amount + self.amount


def add(run: Run, item: Item, row: User, amount: int, reason: str) -> int:
    """Add to a wallet. Returns what was added: nothing where it is more than a wallet can hold, which is told."""
    try:
        movements.top_up(row, amount, actor=None, reason=reason)
    except movements.TooMuch:
        text = f"{money.exact(amount)} is not added: its wallet here would hold more than it can. Make it unlimited."
        run.report.tell("user", item, text, Level.LEFT_OUT)
        return 0
    return amount


def follow_balance(run: Run, kind: str, item: Item, known: Known, now: int) -> Movement | None:
    """The movement that follows the source; None: nothing has changed. `now`: nano-USD."""
    difference = now - known.amount
    if not difference:
        return None
    if kind == "user":
        run.report.balances += difference
    else:
        run.report.quotas += difference
    word = "balance" if kind == "user" else "quota"
    said = f"{'rose' if difference > 0 else 'fell'} there by {money.exact(abs(difference))}"
    run.report.tell(kind, item, f"Its {word} {said} since the last import.", Level.NOTE)
    return Movement(run, item, known, difference)
