"""Creates batches of redemption codes, and finds the code that a user typed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction

from accounts.models import AuditEvent
from portal.lib import clock, money
from portal.lib.crypto import keyed_digest
from relay.models import RedemptionBatch, RedemptionCode
from relay.models.fields import box

# Without letters and digits that look alike. 20 of them are 98 random bits.
_ALPHABET: Final = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
_LENGTH: Final = 20
_GROUP: Final = 5
MAX_CODES: Final = 5000  # of one batch


def create_codes(
    name: str, amount: int, count: int, *, actor: Any, expires_at: datetime | None = None, ip: str | None = None
) -> tuple[RedemptionBatch, list[str]]:
    """Create a batch of codes worth `amount` nano-USD each. Returns it and the codes in clear. Raises ValueError."""
    if amount <= 0 or not 1 <= count <= MAX_CODES:
        raise ValueError(f"codes are worth more than nothing, and a batch has 1 to {MAX_CODES} of them")
    codes = [_random_code() for _ in range(count)]
    encrypt = box(RedemptionCode.PURPOSE).seal
    with transaction.atomic():
        batch = RedemptionBatch.objects.create(
            name=name, amount=amount, count=count, expires_at=expires_at, created_by=actor
        )
        RedemptionCode.objects.bulk_create(
            (
                RedemptionCode(
                    batch=batch, digest=digest_of_code(code), sealed=encrypt(code), hint=f"{code[:5]}…{code[-2:]}"
                )
                for code in codes
            ),
            batch_size=500,
        )
        AuditEvent.write("codes.create", actor, batch, ip, count=count, usd=money.plain(amount))
    return batch, codes


@dataclass(frozen=True, slots=True)
class ForeignCode:
    """A code that another program made."""

    code: str = field(repr=False)
    enabled: bool
    redeemed_by: int | None = None  # id of a user
    redeemed_at: datetime | None = None


def add_codes(
    name: str, amount: int, codes: Sequence[ForeignCode], *, expires_at: datetime | None = None
) -> list[RedemptionCode]:
    """Add a batch of codes of another program, worth `amount` nano-USD each. Inside the caller's transaction."""
    encrypt = box(RedemptionCode.PURPOSE).seal
    batch = RedemptionBatch.objects.create(name=name, amount=amount, count=len(codes), expires_at=expires_at)
    rows = [
        RedemptionCode(
            batch=batch,
            digest=digest_of_code(one.code),
            sealed=encrypt(one.code),
            hint=f"{one.code[:5]}…{one.code[-2:]}" if len(one.code) >= 16 else "…",
            enabled=one.enabled or one.redeemed_by is not None,
            redeemed_by_id=one.redeemed_by,
            redeemed_at=(one.redeemed_at or clock.now()) if one.redeemed_by is not None else None,
        )
        for one in codes
    ]
    RedemptionCode.objects.bulk_create(rows, batch_size=500)
    if not connection.features.can_return_rows_from_bulk_insert:  # MySQL
        ids = dict(batch.codes.values_list("digest", "pk"))
        for row in rows:
            row.pk = ids[row.digest]
    return rows


def decrypt_codes(batch: RedemptionBatch) -> list[tuple[RedemptionCode, str]]:
    """Return the rows of a batch, each with its code in clear. Raises portal.lib.crypto.Undecryptable."""
    decrypt = box(RedemptionCode.PURPOSE).open
    return [(code, decrypt(code.sealed)) for code in batch.codes.select_related("redeemed_by")]


def find_code(typed: str) -> RedemptionCode | None:
    """Find the code that a user typed, None when there is none. Case, spaces and dashes do not matter."""
    return RedemptionCode.objects.select_related("batch", "redeemed_by").filter(digest=digest_of_code(typed)).first()


def is_whole_code(typed: str) -> bool:
    """Whether a text has as many letters and digits as a code, and no others than codes have."""
    clean = _clean(typed)
    return len(clean) == _LENGTH and set(clean) <= set(_ALPHABET)


def disable_code(code: RedemptionCode, *, actor: Any, ip: str | None = None) -> bool:
    """Make one code worthless that nobody has redeemed. Returns False if it is no longer open."""
    with transaction.atomic():
        rows = RedemptionCode.objects.filter(pk=code.pk, redeemed_at__isnull=True, enabled=True)
        if not rows.update(enabled=False):
            return False
        AuditEvent.write("code.disable", actor, code, ip, of=code.batch.name)
        return True


def disable_codes(batch: RedemptionBatch, *, actor: Any, ip: str | None = None) -> int:
    """Make those codes of a batch worthless that nobody has redeemed. Returns how many."""
    with transaction.atomic():
        count = batch.codes.filter(redeemed_at__isnull=True, enabled=True).update(enabled=False)
        AuditEvent.write("codes.disable", actor, batch, ip, count=count)
    return count


def _random_code() -> str:
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    return "-".join(letters[at : at + _GROUP] for at in range(0, _LENGTH, _GROUP))


def digest_of_code(code: str) -> str:
    """The digest by which a code is stored and found."""
    return keyed_digest(settings.TOKEN_KEY, b"code:" + _clean(code).encode())


def _clean(code: str) -> str:
    return "".join(character for character in code.upper() if character.isalnum())
