"""`manage.py seed`: fill an empty portal with demo data."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.services.timeouts import statement_timeout
from relay.usage import rollup
from relay.usage.demo_data import NotEmpty, SeedPlan, seed


class Command(BaseCommand):
    help = (
        "Fill an empty portal with made-up users, tokens and requests, to measure pages on. Never one that is in use."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--users", type=int, default=50)
        parser.add_argument("--tokens", type=int, default=120)
        parser.add_argument("--requests", type=int, default=20_000)
        parser.add_argument("--days", type=int, default=45)
        parser.add_argument(
            "--password", default="", help="of every made-up user; without it nobody can sign in as one"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        plan = SeedPlan(options["users"], options["tokens"], options["requests"], options["days"])
        if min(plan.users, plan.tokens, plan.days) < 1 or plan.requests < 0:
            raise CommandError("Numbers of users, tokens and days must be at least 1.")
        began = time.monotonic()
        try:
            with statement_timeout(None):  # as long as the server answers others
                seed(plan, self._progress, options["password"])
        except NotEmpty as reason:
            raise CommandError(str(reason)) from None
        self._progress("sums of", 0)
        rollup.rebuild(lambda done: self._progress("sums of requests", done))
        self.stdout.write(
            f"\n{plan.users} users, {plan.tokens} tokens and {plan.requests} requests of {plan.days} days in "
            f"{time.monotonic() - began:.0f} s."
        )

    def _progress(self, what: str, count: int) -> None:
        if sys.stderr.isatty():
            self.stderr.write(f"\r{what}: {count}    ", ending="")
