"""Prepares a data folder for the benchmark: `python -m bench.portal_setup UPSTREAM_BASE_URL`. Prints the token."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

django.setup()

from django.core.management import call_command  # noqa: E402

from accounts.models import User  # noqa: E402
from relay.models import ApiKey, Channel, ChannelModel, Model  # noqa: E402
from relay.tokens import create_token  # noqa: E402


def main(base_url: str) -> str:
    call_command("migrate", interactive=False, verbosity=0)
    user = User.objects.create_user("bench")
    channel = Channel.objects.create(name="Bench", provider="openai", base_url=base_url)
    key = ApiKey(channel=channel)
    key.set_secret("sk-upstream-of-the-bench-0123456789")
    key.save()
    for name in ("plain", "burst", "paced", "endless"):
        ChannelModel.objects.create(channel=channel, model=Model.objects.create(name=name, is_open=True))
    return create_token(user, "bench", actor=None)[1]


if __name__ == "__main__":
    print(main(sys.argv[1]))
