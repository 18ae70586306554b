"""Creates batches of redemption codes, and finds the code that a user typed."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from accounts.models import AuditEvent
from portal.lib import money
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
                RedemptionCode(batch=batch, digest=_digest(code), sealed=encrypt(code), hint=f"{code[:5]}…{code[-2:]}")
                for code in codes
            ),
            batch_size=500,
        )
        AuditEvent.write("codes.create", actor, batch, ip, count=count, usd=money.plain(amount))
    return batch, codes


def decrypt_codes(batch: RedemptionBatch) -> list[tuple[RedemptionCode, str]]:
    """Return the rows of a batch, each with its code in clear. Raises portal.lib.crypto.Undecryptable."""
    decrypt = box(RedemptionCode.PURPOSE).open
    return [(code, decrypt(code.sealed)) for code in batch.codes.select_related("redeemed_by")]


def find_code(typed: str) -> RedemptionCode | None:
    """Find the code that a user typed, None when there is none. Case, spaces and dashes do not matter."""
    return RedemptionCode.objects.select_related("batch", "redeemed_by").filter(digest=_digest(typed)).first()


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


def _digest(code: str) -> str:
    return keyed_digest(settings.TOKEN_KEY, b"code:" + _clean(code).encode())


def _clean(code: str) -> str:
    return "".join(character for character in code.upper() if character.isalnum())
