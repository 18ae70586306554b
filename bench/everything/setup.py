"""Prepares the portal of the run: `python -m bench.everything.setup UPSTREAM_URL USERS`. Prints a JSON list of tokens.

Every model has three channels of one priority with three keys each, and a spare one.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

django.setup()

from django.core.management import call_command  # noqa: E402

from accounts.models import User  # noqa: E402
from bench.everything.tariff import CHANNELS, KEYS, TARIFFS, upstream_key  # noqa: E402
from portal.lib.money import NANO  # noqa: E402
from relay.billing.ledger import movements  # noqa: E402
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice  # noqa: E402
from relay.tokens.lifecycle import create_token  # noqa: E402

_USD = 10_000  # in each wallet


def main(upstream: str, users: int) -> list[str]:
    call_command("migrate", interactive=False, verbosity=0)
    User.objects.create_superuser("staff", password=None)
    models = [Model.objects.create(name=name, is_open=True) for name in TARIFFS]
    for model in models:
        ModelPrice.objects.create(model=model, **TARIFFS[model.name].price())
    for name, (priority, retry, api) in CHANNELS.items():
        channel = Channel.objects.create(
            name=name,
            provider="openai",
            base_url=f"{upstream}/{name}/v1",
            priority=priority,
            retry_unanswered=retry,
            text_api=api,
            test_model="text",
        )
        for number in range(KEYS):
            key = ApiKey(channel=channel)
            key.set_secret(upstream_key(name, number))
            key.save()
        for model in models:
            ChannelModel.objects.create(channel=channel, model=model)
    return [_token(number) for number in range(users)]


def _token(number: int) -> str:
    """Two of three users have limits, which Redis counts; the others do not notice that it is away."""
    user = User.objects.create_user(f"user-{number}")
    movements.top_up(user, _USD * NANO, actor=None, reason="bench")
    token, secret = create_token(user, "everything", actor=None)
    if number % 3:
        token.max_rpm, token.max_tpm, token.max_concurrency = 100_000, 100_000_000, 200
        token.save()
    return secret


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
