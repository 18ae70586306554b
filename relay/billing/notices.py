"""Notices to users about their money: low balance, budget reached, code redeemed. Sent by e-mail and signed webhook.

A notice is a row with a unique key, which a worker claims before sending it, so that each is sent once. Synchronous;
called in a thread of its own every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.mail import send_mail
from django.db import connection, transaction
from django.db.models import F, Max
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.preferences import language_of
from portal.lib import clock, money
from portal.services.outside import NotAnswering
from relay.billing import webhooks
from relay.billing.ledger import movements
from relay.models import LedgerAccount, LedgerEntry, Notice, NoticeSettings, RedemptionCode
from relay.models.budget import PERIOD_WORDS
from relay.models.notice import NoticeKind

logger: Final = logging.getLogger(__name__)
PERCENTS: Final = (80, 100)
_GRANTS: Final = ("starting", "top_up", "redeem")
_MOST_USD: Final = money.in_usd(money.LARGEST)  # the form accepts larger thresholds
_OF_USERS: Final = frozenset({NoticeKind.LOW_BALANCE, NoticeKind.BUDGET, NoticeKind.REDEEMED})  # others are for staff
_RETRY_AFTER: Final = (60, 300, 1800, 7200)  # seconds until the next try
_DELIVERIES_PER_ROUND: Final = 20
_MAIL_HANGS: Final = "failed: the mail server does not answer"


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """Run one round: write the notices that are due, send the pending ones. Ends early when the portal is stopping."""
    try:
        write_due_notices()
        deliver(stopping)
    finally:
        connection.close()


# -- writing -----------------------------------------------------------------------------------------------------------


def write_due_notices() -> int:
    """Write notices for wallets below their threshold and budgets of which 80 or 100 % are spent.

    Returns how many are new.
    """
    return _write([*_low_balances(), *_budgets()])


def notify_redeemed(user: User, code: RedemptionCode, amount: int) -> None:
    """Write a notice that `code` added `amount` nano-USD to the wallet, so that others cannot do so unnoticed."""
    data = {"amount_usd": money.plain(amount), "code": code.hint}
    with language_of(user):
        subject = _("A code of %(amount)s was redeemed") % {"amount": money.show(amount)}
        text = _("The code %(code)s added %(amount)s to your balance.") % {
            "code": code.hint,
            "amount": money.show(amount),
        }
    _write([_notice(f"redeemed:{code.pk}", NoticeKind.REDEEMED, user, subject, text, data)])


def _low_balances() -> list[Notice]:
    default = money.nano(Decimal(settings.CONFIG.low_balance))
    chosen = NoticeSettings.objects.filter(low_balance__isnull=False).values_list("user_id", "low_balance")
    own = {user: money.nano(min(limit, _MOST_USD)) for user, limit in chosen if limit is not None}
    highest = max([default, *own.values()])
    wallets = LedgerAccount.objects.annotate(left=F("granted") - F("used"))
    wallets = wallets.filter(kind="wallet", limited=True, granted__gt=0, left__lt=highest, user__is_active=True)
    low = [wallet for wallet in wallets.select_related("user") if wallet.left < own.get(wallet.user_id, default)]
    added = LedgerEntry.objects.filter(user__in=[wallet.user_id for wallet in low], token=None, kind__in=_GRANTS)
    newest = dict(added.values_list("user_id").annotate(Max("pk")).order_by())
    # A starting balance below the threshold is nothing that its user has to be told of at once.
    given = set(added.exclude(kind="starting").values_list("user_id", flat=True))
    low = [wallet for wallet in low if wallet.used or wallet.user_id in given]

    def low_balance(wallet: LedgerAccount) -> Notice:
        return _low_balance(wallet, own.get(wallet.user_id, default), newest.get(wallet.user_id, 0))

    return list(_notices_for(low, low_balance))


def _low_balance(wallet: LedgerAccount, threshold: int, newest: int) -> Notice:
    """The notice that a wallet's balance is below `threshold` nano-USD.

    `newest` is the id of the ledger entry that last added to the wallet: one notice a threshold until there is a newer
    one.
    """
    left = max(0, wallet.balance)
    data = {"left_usd": money.plain(left), "threshold_usd": money.plain(threshold)}
    with language_of(wallet.user):
        values = {"left": money.show_left(left), "threshold": money.exact(threshold)}
        subject = _("Your balance is low: %(left)s") % values
        text = _(
            "%(left)s is left of your balance, less than %(threshold)s. Requests are refused when it is used up. "
            "Redeem a code, or ask the administrator to top it up."
        )
        text %= values
    key = f"low_balance:{wallet.user_id}:{threshold}:{newest}"
    return _notice(key, NoticeKind.LOW_BALANCE, wallet.user, subject, text, data)


def percent_reached(used: int, granted: int) -> int:
    """Return the highest of PERCENTS that has been spent of a budget, 0 when none has.

    Compares whole nano-USD, so that nothing is rounded.
    """
    return max((percent for percent in PERCENTS if used * 100 >= granted * percent), default=0)


def _budgets() -> list[Notice]:
    # The database only leaves out accounts that are far from any percentage; percent_reached decides. Dividing first
    # rounds down, so that no account is missed, and keeps the largest budgets within a BIGINT.
    nearly = F("granted") / 100 * PERCENTS[0]
    current = LedgerAccount.objects.filter(kind="budget", limited=True, granted__gt=0, last_day__gte=movements.today())
    spent = current.filter(used__gte=nearly, user__is_active=True).select_related("user", "token")
    return list(_notices_for(spent, _budget))


def _budget(account: LedgerAccount) -> Notice | None:
    reached = percent_reached(account.used, account.granted)
    if not reached:
        return None
    data = {
        "percent": reached,
        "period": account.period,
        "limit_usd": money.plain(account.granted),
        "used_usd": money.plain(account.used),
        "token": account.token.name if account.token else None,
    }
    with language_of(account.user):
        period = _(PERIOD_WORDS[account.period])
        values = {
            "percent": reached,
            "period": period,
            "used": money.show(account.used),
            "limit": money.show(account.granted),
        }
        subject = _("%(percent)d %% of a %(period)s budget is spent") % values
        if account.token is not None:
            text = _("%(used)s of the %(period)s budget of %(limit)s of the token “%(token)s” is spent.") % {
                **values,
                "token": account.token.name,
            }
        else:
            text = _("%(used)s of your %(period)s budget of %(limit)s is spent.") % values
        if reached >= 100:
            text += " " + _("Requests are refused until the period ends or the limit is raised.")
    return _notice(f"budget:{account.pk}:{reached}", NoticeKind.BUDGET, account.user, subject, text, data)


def _notices_for(
    accounts: Iterable[LedgerAccount], build: Callable[[LedgerAccount], Notice | None]
) -> Iterator[Notice]:
    """Yield the notice of each account that needs one.

    An account that fails is logged and skipped; the others go on.
    """
    for account in accounts:
        try:
            notice = build(account)
        except Exception:
            logger.exception("no notice could be made of the account %s", account)
            continue
        if notice is not None:
            yield notice


def _notice(key: str, kind: str, user: User, subject: str, text: str, data: dict[str, Any]) -> Notice:
    return Notice(key=key[:120], kind=kind, user=user, subject=subject[:150], text=text, data=data)


def _write(notices: Iterable[Notice]) -> int:
    wanted = list({notice.key: notice for notice in notices}.values())
    have = set(Notice.objects.filter(key__in=[notice.key for notice in wanted]).values_list("key", flat=True))
    fresh = [notice for notice in wanted if notice.key not in have]
    if not fresh:
        return 0
    try:
        _insert(fresh)
    except Exception:  # such as a user who was deleted meanwhile: write each alone, so that only that one is lost
        return sum(_insert_one(notice) for notice in fresh)
    return len(fresh)


def _insert(notices: Sequence[Notice]) -> None:
    with transaction.atomic():
        Notice.objects.bulk_create(notices, ignore_conflicts=True)


def _insert_one(notice: Notice) -> bool:
    try:
        _insert([notice])
    except Exception:
        logger.exception("the notice %s could not be kept", notice.key)
        return False
    return True


# -- sending -----------------------------------------------------------------------------------------------------------


def deliver(stopping: Callable[[], bool] = lambda: False) -> int:
    """Send the notices whose time has come. Returns how many are done: sent, or given up.

    Webhooks are called at the same time, and a mail server that hangs is left alone for the rest of the round.
    """
    claimed = []
    for notice in (
        Notice.objects.filter(done=False, next_try_at__lte=clock.now())
        .select_related("user")
        .order_by("pk")[:_DELIVERIES_PER_ROUND]
    ):
        if stopping():
            break
        pause = _RETRY_AFTER[min(notice.tries, len(_RETRY_AFTER) - 1)]
        if Notice.objects.filter(pk=notice.pk, done=False, tries=notice.tries).update(
            tries=notice.tries + 1, next_try_at=clock.now() + timedelta(seconds=pause)
        ):  # otherwise another worker sends it
            claimed.append(notice)
    users = {notice.user_id for notice in claimed}
    chosen = {row.user_id: row for row in NoticeSettings.objects.filter(user__in=users)}
    called = async_to_sync(_call_webhooks)(claimed, chosen)
    done, mails = 0, True
    for notice, state in zip(claimed, called, strict=True):
        notice.webhook_state = state
        preferences = chosen.get(notice.user_id)
        try:
            if notice.email_state not in {"sent", "none"}:
                by_email = preferences is None or preferences.by_email
                notice.email_state = "none" if not by_email else _mail(notice) if mails else _MAIL_HANGS
                mails = mails and notice.email_state != _MAIL_HANGS
            done += _save(notice)
        except Exception:
            logger.exception("the notice %s could not be sent", notice.key)
    return done


def _save(notice: Notice) -> bool:
    """Store what came of a try. Returns whether it was the last one."""
    given_up = notice.tries + 1 > len(_RETRY_AFTER)
    notice.done = given_up or (notice.email_state in {"sent", "none"} and notice.webhook_state in {"sent", "none"})
    notice.save(update_fields=["email_state", "webhook_state", "done"])
    return notice.done


def _mail(notice: Notice) -> str:
    """Mail a notice. Returns "sent", "none" when no mail can be sent to this user, or "failed: " with the reason."""
    if not settings.CONFIG.email_host or not notice.user.email or not _proved(notice.user):
        return "none"
    with language_of(notice.user):
        text = f"{notice.text}{_links(notice)}"
    try:
        send_mail(f"[AIRelays] {notice.subject}", text, settings.DEFAULT_FROM_EMAIL, [notice.user.email])
    except NotAnswering as error:
        logger.warning("notices cannot be mailed: %s", error)
        return _MAIL_HANGS
    except OSError as error:
        logger.warning("a notice could not be mailed: %s", error)
        return f"failed: {type(error).__name__}: {error}"[:120]
    except Exception as error:  # such as an address or a subject that is not valid in a mail
        logger.exception("the notice %s could not be mailed", notice.key)
        return f"failed: {type(error).__name__}: {error}"[:120]
    return "sent"


def _proved(user: User) -> bool:
    """Whether mail may go to a user's address: whoever signed up may have typed that of somebody else."""
    if not user.signed_up:
        return True
    from allauth.account.models import EmailAddress  # not there where a process only relays, which mails nothing

    return bool(EmailAddress.objects.filter(user=user, email=user.email.lower(), verified=True).exists())


def _links(notice: Notice) -> str:
    """Links to the page that a notice is about and to the settings of notices, where the portal knows its address."""
    portal = settings.CONFIG.public_url
    if not portal:
        return ""
    page, query = _("The channel: %(url)s"), urlencode({"q": notice.data.get("channel", "")})
    url = f"{reverse('admin:relay_channel_changelist')}?{query}"
    if notice.kind in _OF_USERS:
        page, url = _("Your balance and budgets: %(url)s"), reverse("balance")
    elif notice.kind == NoticeKind.CACHE_SHARE:
        page, url = _("Caches: %(url)s"), reverse("admin-caches")
    elif notice.kind == NoticeKind.BILL:
        page, url = _("Upstream bills: %(url)s"), f"{reverse('admin:relay_upstreambill_changelist')}?{query}"
    chosen = _("How you are told: %(url)s") % {"url": portal + reverse("notices")}
    return f"\n\n{page % {'url': portal + url}}\n\n{chosen}\n"


async def _call_webhooks(notices: Sequence[Notice], chosen: Mapping[int, NoticeSettings]) -> list[str]:
    """Call the webhooks of notices, all at the same time. Returns the state of each notice."""

    async def call(notice: Notice) -> str:
        if notice.webhook_state in {"sent", "none"}:
            return str(notice.webhook_state)
        preferences = chosen.get(notice.user_id)
        return await webhooks.call(notice, preferences) if preferences and preferences.webhook_url else "none"

    return await asyncio.gather(*map(call, notices))
