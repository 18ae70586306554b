"""Checks of what the database has: tokens that clients can use, and books that balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from django.db.models import Q
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.config import Config
from portal.doctor.report import Check
from portal.installation.command import here
from portal.lib import clock
from relay.billing.ledger.verify import verify
from relay.models import BooksProof, ChatGPTAccount, LedgerEntry, Token
from relay.models.chatgpt_account import SignInState
from relay.tokens.open_relay import is_closed
from relay.usage.running import live_workers

_READ_AT_ONCE: Final = 50_000  # entries that are verified here; larger books are proved by a process of their own


def tokens(config: Config) -> Iterator[Check]:
    rows = Token.objects.filter(revoked_at=None, built_in=None)
    usable = rows.filter(Q(expires_at=None) | Q(expires_at__gt=clock.now()), enabled=True, user__is_active=True)
    count, found = usable.count(), rows.count()
    data = {"usable": count, "require_bearer_auth": config.require_bearer_auth}
    if not config.require_bearer_auth and is_closed():
        text = _("The open relay is closed: its token was revoked, or its user disabled. Clients need a token.")
        steps = (_("To open it again, run: %(command)s") % {"command": "airelays serve --no-auth"},)
        yield Check("relay_token", "warn", text, steps, data)
    elif not config.require_bearer_auth:
        text = _("The relay is open: programs on this machine need no token.")
        if config.open_relay_on_network:
            text = _("The relay is open: everybody who reaches it needs no token.")
        yield Check("relay_token", "skip", text, data=data)
    elif count:
        text = ngettext("%(n)d token can be used.", "%(n)d tokens can be used.", count) % {"n": count}
        yield Check("relay_token", "pass", text, data=data)
    else:
        text = (
            _("Every token is disabled or has expired, so no client can call the relay.")
            if found
            else _("There is no token, so no client can call the relay.")
        )
        steps = (
            _("Create one: %(command)s")
            % {"command": here("token", "create", _("My token"), data_dir=config.data_dir)},
        )
        yield Check("relay_token", "fail", text, steps, data)


def workers(config: Config) -> Iterator[Check]:
    """The processes that serve on this database, on all machines."""
    states = [worker.state for worker in live_workers()]
    alone = sum(1 for state in states if state.get("relay_only"))
    data = {"workers": len(states), "relay_only": alone}
    if not states:
        yield Check("workers", "skip", _("No process serves on this database now."), data=data)
        return
    shown = {"n": len(states), "alone": alone}
    if alone == len(states):
        text = ngettext(
            "%(n)d process serves on this database, for /v1 alone: there are no pages, and no jobs are done.",
            "%(n)d processes serve on this database, all for /v1 alone: there are no pages, and no jobs are done.",
            len(states),
        )
        steps = (_("Run `airelays serve` without --relay-only on this database, too."),)
        yield Check("workers", "warn", text % shown, steps, data)
        return
    text = ngettext("%(n)d process serves on this database.", "%(n)d processes serve on this database.", len(states))
    if alone:
        text = _("%(n)d processes serve on this database, %(alone)d of them /v1 alone.")
    yield Check("workers", "pass", text % shown, data=data)


def books(config: Config) -> Iterator[Check]:
    """Small books are verified now; of larger ones the last proof is told."""
    newest = LedgerEntry.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    if newest <= _READ_AT_ONCE:
        report = verify(lambda _stage: None)
        data = {"entries": report.entries, "accounts": report.accounts, "differing": len(report.differences)}
        if report.differences:
            yield _unbalanced(config, len(report.differences), data)
        else:
            text = _("The books balance: %(accounts)d accounts, %(entries)d entries.") % data
            yield Check("books", "pass", text, data=data)
        return
    last = next((proof for proof in BooksProof.objects.all()[:5] if proof.state in {"clean", "differs"}), None)
    prove = here("manage", "ledger", "prove", data_dir=config.data_dir)
    steps = (_("Run: %(command)s") % {"command": prove},)
    if last is None:
        yield Check("books", "warn", _("The books have never been proved."), steps, {"newest_entry": newest})
    elif last.differing:
        yield _unbalanced(config, last.differing, {"entries": last.entries, "differing": last.differing})
    else:
        shown = formats.date_format(last.began_at, "DATETIME_FORMAT")
        text = _("The books balanced at their last proof, %(at)s.") % {"at": shown}
        yield Check("books", "pass", text, data={"entries": last.entries, "proved_at": last.began_at.isoformat()})


def _unbalanced(config: Config, count: int, data: dict[str, int]) -> Check:
    text = ngettext(
        "The books do not balance: %(n)d figure differs from the ledger's entries.",
        "The books do not balance: %(n)d figures differ from the ledger's entries.",
        count,
    ) % {"n": count}
    verify_books = here("manage", "ledger", "verify", data_dir=config.data_dir)
    steps = (_("Keep a copy of the database, and run: %(command)s") % {"command": verify_books},)
    return Check("books", "fail", text, steps, data)


def plans(config: Config) -> Iterator[Check]:
    """The sign-ins of users at ChatGPT, counted: whose they are, no report says. Nothing is sent."""
    states = Counter(ChatGPTAccount.objects.exclude(state=SignInState.SIGNED_OUT).values_list("state", flat=True))
    count, ready = sum(states.values()), states[SignInState.SIGNED_IN]
    data = {"sign_ins": count, "ready": ready}
    if not count:
        yield Check("plan_sign_ins", "skip", _("Nobody is signed in with a plan of their own."), data=data)
    elif ready == count:
        text = ngettext("%(n)d sign-in with a plan can be used.", "%(n)d sign-ins with plans can be used.", count)
        yield Check("plan_sign_ins", "pass", text % {"n": count}, data=data)
    else:
        text = ngettext(
            "%(n)d sign-in with a plan has expired, or lacks a consent.",
            "%(n)d sign-ins with plans have expired, or lack a consent.",
            count - ready,
        ) % {"n": count - ready}
        login = here("login", data_dir=config.data_dir)
        steps = (_("Whose it is signs in again: %(command)s") % {"command": login},)
        yield Check("plan_sign_ins", "warn", text, steps, data)
