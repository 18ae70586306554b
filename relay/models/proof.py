from __future__ import annotations

from django.db import models

from relay.models.run import Run


class BooksProof(Run):
    """One verification of the ledger: what was read, and what differs.

    Written by `relay.billing.ledger.proofs` alone.
    """

    stage = models.CharField(max_length=40, blank=True)
    accounts = models.BigIntegerField(default=0)
    entries = models.BigIntegerField(default=0)
    records = models.BigIntegerField(default=0)
    reservations = models.BigIntegerField(default=0)
    # Nano-USD.
    reserved = models.BigIntegerField(default=0)
    differing = models.BigIntegerField(default=0, help_text="Figures that differ from their entries.")
    differences = models.JSONField(default=list, help_text="The first hundred of them, in words.")
    totals = models.JSONField(default=dict, help_text="Nano-USD by account of the house.")

    class Meta(Run.Meta):
        verbose_name, verbose_name_plural = "proof of the books", "proofs of the books"

    def ended(self) -> str:
        """“clean”, or “differs”."""
        return "differs" if self.differing else "clean"
