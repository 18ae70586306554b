"""The data of the run and its questions to the database, through the portal's own models. Call `begin` first."""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

_MODELS: Final = ("plain", "burst", "paced")
PRICE: Final = 12 * 2_500 + 50 * 10_000  # nano-USD of one answer of the upstream


@dataclass(frozen=True)
class Payer:
    token: str
    token_id: int
    user_id: int


def begin(env: dict[str, str], upstream: str) -> None:
    """Migrate an empty database and make the models, which one channel serves."""
    os.environ.update(env)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()
    from django.core.management import call_command

    from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice

    call_command("migrate", interactive=False, verbosity=0)
    channel = Channel.objects.create(name="Upstream", provider="openai", base_url=f"{upstream}/v1")
    key = ApiKey(channel=channel)
    key.set_secret("sk-upstream-of-the-bench-0123456789")
    key.save()
    for name in _MODELS:
        model = Model.objects.create(name=name, is_open=True)
        ChannelModel.objects.create(channel=channel, model=model)
        ModelPrice.objects.create(model=model, input=Decimal("2.5"), cached_input=Decimal("1.25"), output=10)


def payer(name: str, nano_usd: int, **limits: int) -> Payer:
    """A user with a balance and a token with these limits, fields of Token."""
    from accounts.models import User
    from relay.billing.ledger import movements
    from relay.tokens.lifecycle import create_token

    user = User.objects.create_user(name)
    movements.top_up(user, nano_usd, actor=None, reason="bench")
    token, secret = create_token(user, name, actor=None)
    for field, value in limits.items():
        setattr(token, field, value)
    token.save()
    return Payer(secret, token.pk, user.pk)


def revoke(who: Payer) -> None:
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token

    revoke_token(Token.objects.get(pk=who.token_id), actor=None)


def recorded(request_ids: set[str]) -> int:
    """How many of these requests have exactly one usage record with a cost."""
    from django.db.models import Count

    from relay.models import UsageRecord

    found: Any = UsageRecord.objects.filter(request_id__in=request_ids, cost__gt=0).values("request_id")
    return sum(row["n"] == 1 for row in found.annotate(n=Count("pk")))


def charged(user_id: int) -> int:
    """Nano-USD that a user's requests were charged together; what the wallet did not cover is not among it."""
    from relay.models import UsageRecord

    return sum(record.charged for record in UsageRecord.objects.filter(user_id=user_id))


def transactions() -> int:
    """Transactions that the database has ended so far."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = current_database()"
        )
        return int(cursor.fetchone()[0])


def books() -> str:
    """What `ledger verify` says."""
    from io import StringIO

    from django.core.management import call_command

    out = StringIO()
    try:
        call_command("ledger", "verify", stdout=out)
    except SystemExit as end:
        return f"exit {end.code}: {out.getvalue()}"
    return out.getvalue().strip()


def held() -> int:
    """Nano-USD that reservations of users hold at this moment."""
    from django.db.models import Sum

    from relay.models import LedgerAccount

    return int(LedgerAccount.objects.aggregate(sum=Sum("reserved"))["sum"] or 0)
