"""Tells users of their money: low balance, budget reached, code redeemed. By e-mail and by signed webhook, each thing once.

What is to be told is a row whose key makes it unique; workers claim a row before they send it, so that it goes out once however many run.
Synchronous; called in a thread of its own every few seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import httpx
import msgspec
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.mail import send_mail
from django.db import connection, transaction
from django.db.models import F, Max
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.preferences import speaking_to
from portal.lib import clock, money, net
from portal.lib.crypto import Undecryptable
from relay.billing.ledger import movements
from relay.models import AllowedUpstream, LedgerAccount, LedgerEntry, Notice, NoticeSettings, RedemptionCode
from relay.models.budget import PERIOD_WORDS
from relay.models.notice import NoticeKind
from relay.transport.body import USER_AGENT
from relay.transport.pool import Upstreams

logger: Final = logging.getLogger(__name__)
PERCENTS: Final = (80, 100)
_GRANTS: Final = ("starting", "top_up", "redeem")
_MOST_USD: Final = money.in_usd(money.LARGEST)  # forms take larger thresholds
_TRIES: Final = (60, 300, 1800, 7200)  # seconds until the next try
_AT_ONCE: Final = 20
_TIMEOUT: Final = httpx.Timeout(10.0)


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """One round: find what is to be told, send what is waiting. Ends early when the portal is stopping."""
    try:
        find()
        deliver(stopping)
    finally:
        connection.close()


# -- what is to be told ------------------------------------------------------------------------------------------------


def find() -> int:
    """Write notices for wallets below their threshold and budgets that are nearly or wholly spent. Returns how many are new."""
    return _write([*_low_balances(), *_budgets()])


def redeemed(user: User, code: RedemptionCode, amount: int) -> None:
    """A code was redeemed: the user is told, so that a stranger's redeeming is noticed, too."""
    data = {"amount_usd": money.plain(amount), "code": code.hint}
    with speaking_to(user):
        subject = _("A code of %(amount)s was redeemed") % {"amount": money.show(amount)}
        text = _("The code %(code)s added %(amount)s to your balance.") % {"code": code.hint, "amount": money.show(amount)}
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

    def low_balance(wallet: LedgerAccount) -> Notice:
        return _low_balance(wallet, own.get(wallet.user_id, default), newest.get(wallet.user_id, 0))

    return list(_each(low, low_balance))


def _low_balance(wallet: LedgerAccount, threshold: int, newest: int) -> Notice:
    """`newest`: id of the entry that last added to the wallet. Until there is a newer one, a threshold is told of once."""
    left = max(0, wallet.balance)
    data = {"left_usd": money.plain(left), "threshold_usd": money.plain(threshold)}
    with speaking_to(wallet.user):
        said = {"left": money.show(left), "threshold": money.show(threshold)}
        subject = _("Your balance is low: %(left)s") % said
        text = _("%(left)s is left of your balance, less than %(threshold)s. Requests are refused when it is used up. Redeem a code, or ask the administrator to top it up.")
        text %= said
    key = f"low_balance:{wallet.user_id}:{threshold}:{newest}"
    return _notice(key, NoticeKind.LOW_BALANCE, wallet.user, subject, text, data)


def percent_reached(used: int, granted: int) -> int:
    """The highest of PERCENTS of a budget that is spent, 0 when none is. In whole nano-USD, so that nothing is rounded."""
    return max((percent for percent in PERCENTS if used * 100 >= granted * percent), default=0)


def _budgets() -> list[Notice]:
    # The database leaves out what is far from any percentage; percent_reached decides. Dividing first rounds down,
    # so that none is missed, and keeps the largest budgets within a BIGINT.
    nearly = F("granted") / 100 * PERCENTS[0]
    current = LedgerAccount.objects.filter(kind="budget", limited=True, granted__gt=0, last_day__gte=movements.today())
    spent = current.filter(used__gte=nearly, user__is_active=True).select_related("user", "token")
    return list(_each(spent, _budget))


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
    with speaking_to(account.user):
        period = _(PERIOD_WORDS[account.period])
        said = {"percent": reached, "period": period, "used": money.show(account.used), "limit": money.show(account.granted)}
        subject = _("%(percent)d %% of a %(period)s budget is spent") % said
        if account.token is not None:
            text = _("%(used)s of the %(period)s budget of %(limit)s of the token “%(token)s” is spent.") % {**said, "token": account.token.name}
        else:
            text = _("%(used)s of your %(period)s budget of %(limit)s is spent.") % said
        if reached >= 100:
            text += " " + _("Requests are refused until the period ends or the limit is raised.")
    return _notice(f"budget:{account.pk}:{reached}", NoticeKind.BUDGET, account.user, subject, text, data)


def _each(accounts: Iterable[LedgerAccount], notice_of: Callable[[LedgerAccount], Notice | None]) -> Iterator[Notice]:
    """The notices of some accounts. An account that fails is logged and left out: the others are told all the same."""
    for account in accounts:
        try:
            notice = notice_of(account)
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
    except Exception:  # such as a user who was deleted meanwhile: each by itself, so that the others are kept
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


# -- telling -----------------------------------------------------------------------------------------------------------


def deliver(stopping: Callable[[], bool] = lambda: False) -> int:
    """Send what is due. Returns how many notices are done with."""
    done = 0
    for notice in Notice.objects.filter(done=False, next_try_at__lte=clock.now()).select_related("user").order_by("pk")[:_AT_ONCE]:
        if stopping():
            break
        pause = _TRIES[min(notice.tries, len(_TRIES) - 1)]
        claimed = Notice.objects.filter(pk=notice.pk, done=False, tries=notice.tries).update(tries=notice.tries + 1, next_try_at=clock.now() + timedelta(seconds=pause))
        if claimed:  # otherwise another worker sends it
            try:
                done += _send(notice)
            except Exception:
                logger.exception("the notice %s could not be sent", notice.key)
    return done


def _send(notice: Notice) -> bool:
    wishes = NoticeSettings.objects.filter(user=notice.user_id).first()
    if notice.email_state not in {"sent", "none"}:
        notice.email_state = _mail(notice) if wishes is None or wishes.by_email else "none"
    if notice.webhook_state not in {"sent", "none"}:
        notice.webhook_state = _call(notice, wishes) if wishes is not None and wishes.webhook_url else "none"
    over = notice.tries + 1 > len(_TRIES)
    notice.done = over or (notice.email_state in {"sent", "none"} and notice.webhook_state in {"sent", "none"})
    notice.save(update_fields=["email_state", "webhook_state", "done"])
    return notice.done


def _mail(notice: Notice) -> str:
    """`sent`, `none` when there is no way, or why it failed."""
    if not settings.CONFIG.email_host or not notice.user.email:
        return "none"
    signature = f"\n\n{settings.CONFIG.public_url}" if settings.CONFIG.public_url else ""
    try:
        send_mail(f"[AIRelays] {notice.subject}", notice.text + signature, settings.DEFAULT_FROM_EMAIL, [notice.user.email])
    except OSError as error:
        logger.warning("a notice could not be mailed: %s", error)
        return f"failed: {type(error).__name__}: {error}"[:120]
    except Exception as error:  # an address or a subject that no mail can have
        logger.exception("the notice %s could not be mailed", notice.key)
        return f"failed: {type(error).__name__}: {error}"[:120]
    return "sent"


def _call(notice: Notice, wishes: NoticeSettings) -> str:
    """`sent`, or why the webhook failed. An address that is not public is refused at the connection, as for channels."""
    body = msgspec.json.encode(
        {"id": f"notice_{notice.pk}", "type": notice.kind, "created": int(notice.created_at.timestamp()), "subject": notice.subject, "text": notice.text, "data": notice.data}
    )
    try:
        headers = {"content-type": "application/json", "user-agent": USER_AGENT, "x-airelays-signature": sign(wishes.secret(), body, int(time.time()))}
        allowed = AllowedUpstream.allowances()
        net.check_url(wishes.webhook_url, allowed)
        status = async_to_sync(_post)(wishes.webhook_url, headers, body, allowed)
    except (httpx.HTTPError, httpx.InvalidURL, net.Refused, Undecryptable, OSError) as error:
        return f"failed: {error or type(error).__name__}"[:120]
    except Exception as error:
        logger.exception("the webhook of the notice %s could not be called", notice.key)
        return f"failed: {type(error).__name__}"
    return "sent" if 200 <= status < 300 else f"failed: HTTP {status}"


def sign(secret: str, body: bytes, at: int) -> str:
    """`t=<seconds>,v1=<hex>`: HMAC-SHA256 over the seconds, a dot and the body."""
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


async def _post(url: str, headers: dict[str, str], body: bytes, allowed: Sequence[net.Allowance]) -> int:
    upstreams = Upstreams(lambda: allowed, 1, settings.CONFIG.upstream_ca_file)
    try:
        async with httpx.AsyncClient(transport=upstreams.transport(""), timeout=_TIMEOUT, follow_redirects=False) as client:
            return (await client.post(url, content=body, headers=headers)).status_code
    finally:
        await upstreams.close()
