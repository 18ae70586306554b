"""Which channels requests can be sent to now, asked of the database as the gateway asks its snapshot of it."""

from __future__ import annotations

from typing import Final

from django.db.models import Min

from accounts.models import User
from portal.lib.crypto import Undecryptable
from relay.models import AllowedUpstream, ApiKey, Channel
from relay.providers.vendors import VENDORS

_KEYLESS: Final = frozenset(key for key, vendor in VENDORS.items() if not vendor.needs_key)


def serving_channels(user: User | None = None) -> frozenset[int]:
    """Return the ids of the channels that can serve requests of a user, None: of anybody. Takes 5 queries.

    They have a key that can be sent to their address, which may be used. Keys that were taken out of service do not
    count until a test brings them back; those that cool down do.
    """
    rows = Channel.objects.filter(enabled=True).prefetch_related("groups")
    if user is not None:
        mine = set(user.groups.values_list("pk", flat=True))
        listed = [
            row
            for row in rows
            if mine & (groups := {group.pk for group in row.groups.all()}) or not (row.groups_limited or groups)
        ]
    else:
        listed = list(rows)
    allowed = AllowedUpstream.allowances()
    in_service = ApiKey.objects.filter(enabled=True, auto_disabled="")
    given = in_service.order_by().values("channel", "given_for").annotate(first=Min("pk"))
    first = {(row["channel"], row["given_for"]): row["first"] for row in given}
    keys = {key.pk: key for key in ApiKey.objects.filter(pk__in=first.values())}
    with_keys = frozenset(ApiKey.objects.order_by().values_list("channel", flat=True).distinct())
    return frozenset(
        row.pk
        for row in listed
        if row.provider in VENDORS
        and not row.refusal(allowed)
        and (
            (row.pk not in with_keys and row.provider in _KEYLESS)
            or _opens(keys.get(first.get((row.pk, row.key_destination()), 0)), row)
        )
    )


def _opens(key: ApiKey | None, channel: Channel) -> bool:
    """Whether the secret of a key can be read. Encryption keys are lost for all keys, so one stands for the others."""
    if key is None:
        return False
    try:
        return bool(key.secret_for(channel))
    except Undecryptable:
        return False
