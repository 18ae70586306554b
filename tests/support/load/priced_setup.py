"""Prepares a migrated database for a portal under priced load:
`python -m tests.support.load.priced_setup UPSTREAM_BASE_URL NANO_USD…`.

Prints a token for each balance.
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

django.setup()

from accounts.models import User  # noqa: E402
from relay.billing.ledger import movements  # noqa: E402
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice  # noqa: E402
from relay.tokens.lifecycle import create_token  # noqa: E402


def main(base_url: str, amounts: list[str]) -> None:
    channel = Channel.objects.create(name="Mock", provider="openai", base_url=base_url)
    key = ApiKey(channel=channel)
    key.set_secret("sk-upstream-0123456789")
    key.save()
    for name in ("plain", "slow"):
        model = Model.objects.create(name=name, is_open=True)
        ChannelModel.objects.create(channel=channel, model=model)
        ModelPrice.objects.create(model=model, input=Decimal("2.5"), cached_input=Decimal("1.25"), output=10)
    for amount in amounts:
        user = User.objects.create_user("user-" + amount)
        movements.top_up(user, int(amount), actor=None, reason="test")
        print(create_token(user, "test", actor=None)[1])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
