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
from relay.channels.bills.compare import beginning_of, day_of, delete_old, put, recorded_between
from relay.channels.connection import client_of, waiting_for_upstream, why_unreachable
from relay.models import AllowedUpstream, BillingKey, Channel, UpstreamBill
from relay.models.bill import BillSourceKind
from relay.models.channel import KeyGivenElsewhere
from relay.providers.accounts.bills import MOST_PAGES, BilledDay, BillSource, read_page
from relay.transport.body import USER_AGENT

_NANO: Final = Decimal(10) ** 9
_LATE_DAYS: Final = 3  # whose bills may still change


class NoReport(Exception):
    """There is no report. The message says to staff why, and what to do."""


def compare(key: BillingKey) -> str:
    """Fetch the report of a key and compare each whole day. Returns the outcome as a text.

    A fault is stored with the key, and does not raise.
    """
    channel = key.channel
    source = channel.vendor.bill
    delete_old(channel)
    today = day_of(clock.now())
    known = UpstreamBill.objects.filter(channel=channel, source=BillSourceKind.REPORT, complete=True).exists()
    days = _LATE_DAYS if known and source is not None else (source.days if source is not None else 0)
    first, last = today - timedelta(days=days), today - timedelta(days=1)
    try:
        parts = fetch(key, first, last)
    except NoReport as error:
        BillingKey.objects.filter(pk=key.pk).update(asked_at=clock.now(), fault=str(error)[:300])
        return str(error)
    _store(channel, key, parts, first, last)
    BillingKey.objects.filter(pk=key.pk).update(asked_at=clock.now(), fault="")
    return f"{(last - first).days + 1} days compared"


def _store(channel: Channel, key: BillingKey, parts: Sequence[BilledDay], first: date, last: date) -> None:
    """A row for each day. One of which the report says nothing was not billed, and says so where requests were made."""
    channels = [channel.pk, *key.also.values_list("pk", flat=True)]
    sums: dict[date, dict[str, Decimal]] = {}
    for part in parts:
        if first <= part.day <= last:
            by_currency = sums.setdefault(part.day, {})
            by_currency[part.currency] = by_currency.get(part.currency, Decimal(0)) + part.amount
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
        headers = {"user-agent": USER_AGENT, "accept-encoding": "identity", **source.headers(key.secret_for(channel))}
    except KeyGivenElsewhere:
        raise NoReport(_("The key was given for another address of the channel: enter it again.")) from None
    except Undecryptable:
        raise NoReport(_("The key cannot be decrypted with the keys of this installation: enter it again.")) from None
    try:
        with waiting_for_upstream(channel):
            return async_to_sync(_fetch)(
                channel, source, headers, (first, last, key.scope), AllowedUpstream.allowances()
            )
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
                raise NoReport(_refused(source, response))
            try:
                answer: Any = msgspec.json.decode(response.content)
            except (msgspec.DecodeError, ValueError, RecursionError):
                answer = None
            read = read_page(source, answer, wanted[2])
            if read is None:
                raise NoReport(_("The upstream answered with something that is not its report of costs."))
            found += read.parts
            if not read.next_page:
                return found
            page = read.next_page
    raise NoReport(_("The report of costs has too many pages."))


def _refused(source: BillSource, response: httpx.Response) -> str:
    if response.status_code in (401, 403):
        return _(
            "The key may not read the report of costs (%(status)d). Such a key begins with %(form)s: administrators "
            "of the account make one."
        ) % {"status": response.status_code, "form": source.key_form}
    return _("The upstream refused the report of costs with %(status)d: %(text)s") % {
        "status": response.status_code,
        "text": redact(response.text[:200]),
    }
