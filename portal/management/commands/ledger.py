from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts.models import AuditEvent, User
from portal.lib import money
from portal.lib.processes import is_dead
from relay.billing.ledger import movements, proofs, requests
from relay.billing.ledger.verify import verify
from relay.models import BooksProof
from relay.models.fields import UsdField


class Command(BaseCommand):
    help = "Prove the books (verify, prove), give back what workers held that are gone (sweep), mend a wallet (mend)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        check = actions.add_parser(
            "verify", help="compute every balance, used and reserved figure again; exit 1 when one differs"
        )
        check.add_argument("--json", action="store_true", help="for machines")
        prove = actions.add_parser(
            "prove",
            help="verify, and keep the outcome for the page of the books; the page and the scheduled work start this",
        )
        prove.add_argument("proof", type=int, nargs="?", help="the proof that was begun; without it a new one")
        actions.add_parser(
            "sweep", help="give back reservations whose worker is gone; running servers do it by themselves"
        )

        mend = actions.add_parser(
            "mend", help="bring a wallet whose figure is beyond what a database can count back to a balance, by entries"
        )
        mend.add_argument("user", help="the name of its user")
        mend.add_argument("balance", help="what is to be left, in USD")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "mend":
            self._mend(options["user"], options["balance"])
            return
        if options["action"] == "sweep":
            count = requests.release_expired(time.time(), is_dead)
            self.stdout.write(f"{count} reservation(s) given back")
            return
        if options["action"] == "prove":
            self._prove(options["proof"])
            return
        began = time.monotonic()
        report = verify(self._progress if sys.stderr.isatty() else lambda _: None)
        if options["json"]:
            found = {
                "clean": report.clean,
                "accounts": report.accounts,
                "entries": report.entries,
                "records": report.records,
                "removed_records": report.removed,
                "reservations": report.reservations,
                "reserved_usd": money.plain(report.reserved),
                "differences": [str(one) for one in report.differences],
                "totals_usd": {name: money.plain(amount) for name, amount in sorted(report.totals.items())},
            }
            self.stdout.write(json.dumps(found, indent=1))
        else:
            self.stdout.write(
                f"{report.accounts} accounts, {report.entries} entries, {report.records} usage records"
                f"{f' ({report.removed} older ones are deleted)' if report.removed else ''}, "
                f"{report.reservations} open reservations ({money.show(report.reserved)}); "
                f"{time.monotonic() - began:.1f} s"
            )
            for one in report.differences:
                self.stdout.write(f"  {one}")
            self.stdout.write(
                "The books balance."
                if report.clean
                else f"{len(report.differences)} figure(s) differ from the entries."
            )
        if not report.clean:
            sys.exit(1)

    def _mend(self, name: str, balance: str) -> None:
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user {name}.")
        try:
            left = money.nano(UsdField(decimal_places=9).clean(balance))
            with transaction.atomic():
                taken = movements.mend_wallet(user, left, reason="Mended: beyond what a wallet can hold")
                AuditEvent.write("wallet.mend", None, user, usd=money.plain(left))
        except ValidationError as error:
            raise CommandError(f"{balance[:40]} is no balance. {error.messages[0]}") from None
        except movements.NotRuined:
            raise CommandError(
                f"The wallet of {name} is in order. Use “Top up” and “Deduct” on the user's page in the admin."
            ) from None
        self.stdout.write(
            f"The wallet of {name} has {money.show(left)} now; {money.show(abs(taken))} were "
            f"{'taken out' if taken > 0 else 'added'} by entries."
        )

    def _prove(self, pk: int | None) -> None:
        proof = (
            BooksProof.objects.filter(pk=pk, finished_at=None).first() if pk is not None else proofs.begin_proof()[0]
        )
        if proof is None:
            raise CommandError(f"No proof {pk} waits to be made. Without a number a new one is made.")
        report = proofs.prove(proof)
        self.stdout.write(
            "The books balance." if report.clean else f"{len(report.differences)} figure(s) differ from the entries."
        )
        if not report.clean:
            sys.exit(1)

    def _progress(self, what: str) -> None:
        self.stderr.write(f"reading {what}…")
