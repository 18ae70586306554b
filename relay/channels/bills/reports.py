"""Asks vendors for their reports of costs, with keys that staff gave for it. Synchronous; not for the request path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import httpx
import msgspec
from asgiref.sync import async_to_sync
from django.utils.translation import gettext as _

from portal.lib import clock
from portal.lib.crypto import Undecryptable
from portal.lib.net import Allowance
from portal.lib.redaction.redact import redact
from portal.services.outside import NotAnswering
from relay.channels.bills.compare import beginning_of, day_of, delete_old, first_day_recorded, put, recorded_between
from relay.channels.connection import client_of, waiting_for_upstream, why_unreachable
from relay.models import AllowedUpstream, BillingKey, Channel, UpstreamBill
from relay.models.bill import BillSourceKind
from relay.models.channel import KeyGivenElsewhere
from relay.providers.accounts.bills import MOST_BILLED, MOST_PAGES, MOST_ROWS, BilledDay, BillSource, read_page
from relay.transport.body import USER_AGENT

_NANO: Final = Decimal(10) ** 9
_LATE_DAYS: Final = 3  # whose bills may still change
_QUOTED: Final = 2000  # characters of an answer that are looked through for what is shown of them
Sums = dict[date, dict[str, Decimal]]


class NoReport(Exception):
    """There is no report. The message says to staff why, and what to do."""


class _Refused(Exception):
    """The upstream answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status)
        self.status, self.text = status, text


def compare(key: BillingKey) -> str:
    """Fetch the report of a key and compare each whole day. Returns the outcome as a text.

    A fault is stored with the key, and does not raise.
    """
    channel = key.channel
    source = channel.vendor.bill
    delete_old(channel)
    today = day_of(clock.now())
    whole = source.days if source is not None else 0
    bills = UpstreamBill.objects.filter(channel=channel, source=BillSourceKind.REPORT, complete=True)
    known = bills.order_by("-day").values_list("day", flat=True).first()
    # Since the last day that is known: the upstream may not have answered for weeks.
    days = min(whole, (today - known).days + _LATE_DAYS - 1) if known else whole
    last = today - timedelta(days=1)
    channels, doubt = _channels(key)
    first = max(today - timedelta(days=days), first_day_recorded(channels))
    try:
        sums = _sums(fetch(key, min(first, last), last), first, last)
    except NoReport as error:
        BillingKey.objects.filter(pk=key.pk).update(asked_at=clock.now(), fault=str(error)[:300])
        return str(error)
    _store(channel, channels, sums, first, last)
    BillingKey.objects.filter(pk=key.pk).update(asked_at=clock.now(), fault=doubt[:300])
    return f"{max((last - first).days + 1, 0)} day(s) compared"


def _channels(key: BillingKey) -> tuple[list[int], str]:
    """The ids of the channels of a key's account, and a text where one is left out, which another key has.

    Forms refuse such a channel. It counts once: with its own key, otherwise with the oldest that names it.
    """
    also = key.also.exclude(pk=key.channel_id)
    mine = dict(also.values_list("pk", "name"))
    elsewhere = set(BillingKey.objects.filter(channel__in=list(mine)).values_list("channel", flat=True))
    older = BillingKey.objects.filter(pk__lt=key.pk, also__in=list(mine)).values_list("also", flat=True)
    elsewhere |= set(older) & mine.keys()
    doubt = ""
    if elsewhere:
        names = ", ".join(sorted(mine[pk] for pk in elsewhere))
        doubt = _("On the bill of another billing key, and counted there alone: %(channels)s.") % {"channels": names}
    return [key.channel_id, *(pk for pk in mine if pk not in elsewhere)], doubt


def _sums(parts: Sequence[BilledDay], first: date, last: date) -> Sums:
    """What was billed by day and currency. Raises NoReport."""
    sums: Sums = {}
    for part in parts:
        if first <= part.day <= last:
            by_currency = sums.setdefault(part.day, {})
            by_currency[part.currency] = by_currency.get(part.currency, Decimal(0)) + part.amount
    if any(abs(amount) > MOST_BILLED for by_currency in sums.values() for amount in by_currency.values()):
        raise NoReport(_("The upstream answered with something that is not its report of costs."))
    return sums


def _store(channel: Channel, channels: Sequence[int], sums: Sums, first: date, last: date) -> None:
    """A row for each day. One of which the report says nothing was not billed, and says so where requests were made."""
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        begin, end = beginning_of(day), beginning_of(day + timedelta(days=1))
        recorded = recorded_between(channels, begin, end)
        amounts = sums.get(day) or {"USD": Decimal(0)}
        currency = max(amounts, key=lambda name: abs(amounts[name]))
        if amounts[currency] or recorded.requests:
            put(
                channel,
                BillSourceKind.REPORT,
                day,
                (begin, end),
                recorded,
                reported=int(amounts[currency] * _NANO),
                currency=currency,
                gaps=len(amounts) - 1,
            )


def fetch(key: BillingKey, first: date, last: date) -> list[BilledDay]:
    """What the upstream of a key's channel billed from one day to another, of UTC. Raises NoReport."""
    channel = key.channel
    source = channel.vendor.bill
    if source is None:
        raise NoReport(_("%(vendor)s has no report of costs.") % {"vendor": _(channel.vendor.label)})
    try:
        secret = key.secret_for(channel)
    except KeyGivenElsewhere:
        raise NoReport(_("The key was given for another address of the channel: enter it again.")) from None
    except Undecryptable:
        raise NoReport(_("The key cannot be decrypted with the keys of this installation: enter it again.")) from None
    headers = {"user-agent": USER_AGENT, "accept-encoding": "identity", **source.headers(secret)}
    try:
        with waiting_for_upstream(channel):
            return async_to_sync(_fetch)(
                channel, source, headers, (first, last, key.scope), AllowedUpstream.allowances()
            )
    except _Refused as error:
        raise NoReport(_refused(source, error, secret)) from None
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, NotAnswering) as error:
        raise NoReport(why_unreachable(error)) from None


async def _fetch(
    channel: Channel,
    source: BillSource,
    headers: Mapping[str, str],
    wanted: tuple[date, date, str],
    allowed: Sequence[Allowance],
) -> list[BilledDay]:
    """Raises NoReport, and what a connection raises."""
    found: list[BilledDay] = []
    page = ""
    async with client_of(channel, allowed) as client:
        for _number in range(MOST_PAGES):
            response = await client.get(
                source.path.lstrip("/"), params=tuple(source.query(*wanted, page)), headers=headers
            )
            if response.status_code != 200:
                raise _Refused(response.status_code, response.text[:_QUOTED])
            try:
                answer: Any = msgspec.json.decode(response.content)
            except (msgspec.DecodeError, ValueError, RecursionError):
                answer = None
            read = read_page(source, answer, wanted[2])
            if read is None:
                raise NoReport(_("The upstream answered with something that is not its report of costs."))
            found += read.parts
            if len(found) > MOST_ROWS:
                break
            if not read.next_page:
                return found
            page = read.next_page
    raise NoReport(_("The report of costs has too many pages."))


def _refused(source: BillSource, error: _Refused, secret: str) -> str:
    if error.status in (401, 403):
        return _(
            "The key may not read the report of costs (%(status)d). Such a key begins with %(form)s: administrators "
            "of the account make one."
        ) % {"status": error.status, "form": source.key_form}
    return _("The upstream refused the report of costs with %(status)d: %(text)s") % {
        "status": error.status,
        "text": redact(error.text.replace(secret, "…"))[:200],  # cut last: a part of a key is not known as one
    }
