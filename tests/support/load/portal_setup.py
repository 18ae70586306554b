"""Prepares a data folder for the benchmark: `python -m tests.support.load.portal_setup UPSTREAM_BASE_URL`.

Prints the token.
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

django.setup()

from django.core.management import call_command  # noqa: E402

from accounts.models import User  # noqa: E402
from portal.lib.money import NANO  # noqa: E402
from portal.services.migrations import migrations_missing  # noqa: E402
from relay.billing.ledger import movements  # noqa: E402
from relay.models import ApiKey, Budget, Channel, ChannelModel, Model, ModelPrice  # noqa: E402
from relay.tokens.lifecycle import create_token  # noqa: E402


def main(base_url: str) -> str:
    if migrations_missing():
        call_command("migrate", interactive=False, verbosity=0)
    user = User.objects.create_user("bench")
    channel = Channel.objects.create(name="Bench", provider="openai", base_url=base_url)
    key = ApiKey(channel=channel)
    key.set_secret("sk-upstream-of-the-bench-0123456789")
    key.save()
    for name in ("plain", "burst", "paced", "endless"):
        model = Model.objects.create(name=name, is_open=True)
        ChannelModel.objects.create(channel=channel, model=model)
        ModelPrice.objects.create(model=model, input=Decimal("2.5"), cached_input=Decimal("1.25"), output=10)
    # Everything that costs time per request: a limited balance and quota, a budget, limits of requests and tokens.
    movements.top_up(user, 1_000_000 * NANO, actor=None, reason="bench")
    token, secret = create_token(user, "bench", actor=None)
    token.max_rpm, token.max_tpm, token.max_concurrency = 100_000_000, 2_000_000_000, 10_000
    token.save()
    movements.set_quota(token, 500_000 * NANO)
    Budget.objects.create(token=token, period="month", limit=400_000)
    return secret


if __name__ == "__main__":
    print(main(sys.argv[1]))
