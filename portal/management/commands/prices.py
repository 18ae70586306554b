from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from relay.billing.price_import import apply_proposals, propose_changes
from relay.models import Model


class Command(BaseCommand):
    help = (
        "Compare the prices of models with the vendors' list prices (package genai-prices, offline), and put those in "
        "force."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        take = actions.add_parser("import", help="show the difference, then ask")
        take.add_argument("models", nargs="*", help="only these models (all)")
        take.add_argument("--yes", action="store_true", help="apply without asking")
        take.add_argument("--new", action="store_true", help="only models that have no price yet")
        take.add_argument("--dry-run", action="store_true", help="show the difference and stop")

    def handle(self, *args: Any, **options: Any) -> None:
        models = None
        if options["models"]:
            models = list(Model.objects.filter(name__in=options["models"]).order_by("name"))
            missing = set(options["models"]) - {model.name for model in models}
            if missing:
                raise CommandError(f"there is no model {', '.join(sorted(missing))} here")
        found, unknown = propose_changes(models)
        if options["new"]:
            found = [proposal for proposal in found if not proposal.old]
        for proposal in found:
            listed, new = proposal.listing, "" if proposal.old else "  new"
            self.stdout.write(f"{proposal.model}  ({listed.vendor} {listed.name}){new}")
            for line in proposal.lines():
                self.stdout.write(f"    {line}")
        if unknown:
            self.stdout.write(f"Without a list price: {', '.join(model.name for model in unknown)}")
        if not found:
            self.stdout.write("Every known price is in force already.")
            return
        if options["dry_run"]:
            return
        if not options["yes"]:
            if not sys.stdin.isatty():
                raise CommandError("nothing was changed: say --yes to apply this without a terminal")
            if input(f"Put these prices of {len(found)} model(s) in force now? [y/N] ").strip().lower() not in {
                "y",
                "yes",
            }:
                self.stdout.write("Nothing was changed.")
                return
        self.stdout.write(
            f"{apply_proposals(found, actor=None)} model(s) priced. What was in force stays on old receipts."
        )
