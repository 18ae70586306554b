"""Prepares a portal for the fault tests: `python -m bench.faults.setup FILE`. Prints the token of a user with a
balance.

Every case has its own channels, so that the cooldowns of one case do not affect the next.
"""

from __future__ import annotations

import json
import os
import sys
from decimal import Decimal
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

django.setup()

from django.core.management import call_command  # noqa: E402

from accounts.models import User  # noqa: E402
from portal.lib.money import NANO  # noqa: E402
from relay.billing.ledger import movements  # noqa: E402
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice  # noqa: E402
from relay.tokens.lifecycle import create_token  # noqa: E402


def main(file: Path) -> str:
    wanted = json.loads(file.read_text())
    call_command("migrate", interactive=False, verbosity=0)
    for entry in wanted["models"]:
        model = Model.objects.create(name=entry["name"], is_open=True)
        ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
        add(model, f"{entry['name']}", entry["base"], 5, entry["retry"])
        if entry["spare"]:
            add(model, f"{entry['name']}, spare", wanted["spare"], 0, "broken")
    user = User.objects.create_user("faults")
    movements.top_up(user, 1000 * NANO, actor=None, reason="bench")
    token, secret = create_token(user, "faults", actor=None)
    token.max_rpm = 1_000_000
    token.save()
    User.objects.create_superuser("staff", password=None)
    return secret


def add(model: Model, name: str, base: str, priority: int, retry: str) -> None:
    channel = Channel.objects.create(
        name=name, provider="openai", base_url=base, priority=priority, retry_unanswered=retry
    )
    key = ApiKey(channel=channel)
    key.set_secret(f"sk-upstream-of-{name.replace(' ', '-').replace(',', '')}-0123456789")
    key.save()
    ChannelModel.objects.create(channel=channel, model=model)


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
