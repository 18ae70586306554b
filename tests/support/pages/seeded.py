"""A portal with made-up use, for those who look at its pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.pages.pages import BIG_CHANNEL

PASSWORD: Final = "a long password"  # of a portal that lives for a minute
STAFF_NAME: Final = "admin"


@contextmanager
def portal(folder: Path, requests: int = 20_000) -> Iterator[tuple[str, dict[str, Any]]]:
    """Start a seeded portal; yields its address and the ids for paths."""
    if "TEST_RUN" in os.environ:  # the suite has a migrated database
        from tests.support import environment

        environment.new_sqlite(folder)
    os.environ.update(
        AIRELAYS_DATA_DIR=str(folder),
        AIRELAYS_CONFIG="",
        AIRELAYS_STATUS_PAGE="public",
        AIRELAYS_SIGNUP="open",
        AIRELAYS_EMAIL_HOST="127.0.0.1",
        AIRELAYS_JOBS="false",
        NO_PROXY="127.0.0.1,localhost",
    )
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from accounts.models import AuditEvent, User
    from portal.serving.first_run import first_run
    from relay.billing import redemption
    from relay.billing.ledger import movements
    from tests.support.pages.pages import ids
    from tests.support.server import serving

    call_command("migrate", verbosity=0)
    first_run()
    admin = User.objects.get(username=STAFF_NAME)
    admin.set_password(PASSWORD)
    admin.save()
    call_command("seed", password=PASSWORD, requests=requests, stdout=open(os.devnull, "w"))  # noqa: SIM115
    known = ids()
    user = User.objects.get(pk=known["user"])
    movements.set_unlimited(user, False)
    movements.top_up(user, 40_000_000_000, actor=admin, reason="Welcome")
    redemption.create_codes("Spring", 10_000_000_000, 20, actor=admin)
    AuditEvent.write("wallet.top-up", admin, user, "203.0.113.9", usd="40", reason="Welcome")
    add_typical_problems()
    connection.close()
    with serving(folder / "log", env={}) as server:
        yield server.url.replace("127.0.0.1", "localhost"), known


def add_big_channel(models: int = 5000, keys: int = 5000) -> None:
    """Add a channel of an aggregator, with more models and keys than a form can hold. Disabled: nothing goes to it."""
    from relay.channels.keys import add_keys
    from relay.channels.models import add_models
    from relay.models import Channel

    channel, made = Channel.objects.get_or_create(name=BIG_CHANNEL, provider="openrouter", defaults={"enabled": False})
    if made:
        add_models(channel, [(f"vendor-{number % 40}/model-{number:04}", "") for number in range(models)], {})
        add_keys(channel, [f"sk-made-up-{number:08}" for number in range(keys)])


def add_typical_problems() -> None:
    """Add what a portal has on an ordinary day: a disabled key, a channel that is cooling down, a proof of
    the ledger.
    """
    from portal.lib import clock
    from relay.billing.ledger import proofs
    from relay.channels import cooldowns
    from relay.channels import keys as upstream_keys
    from relay.models import Channel

    now = clock.now().timestamp()
    key = Channel.objects.get(name="OpenAI main").keys.order_by("pk")[2]
    upstream_keys.take_out(key.pk, "key_dead", "401 Incorrect API key provided")
    groq = Channel.objects.get(name="Groq")
    cooldowns.save_circuits(
        [
            (
                (groq.pk, 0, 0),
                cooldowns.StoredCircuit(now, now + 3600, "overload", "503 over capacity", 1, False, "tour"),
            )
        ],
        "tour",
    )
    proofs.prove(proofs.begin_proof()[0])
