"""Fixtures: a database that the suite and its servers share, a scripted upstream, a running portal, three people.

Tests with the `db` fixture are rolled back. Tests that need a server use `live`: what they write is committed, under names of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.hashers import make_password
from django.core.management import call_command
from django.db import connection
from hypothesis import strategies

from tests.support.server import Server, serving
from tests.support.upstream import Script, Upstream

_numbers = itertools.count(1)
_used: set[str] = set()  # fixtures of the file that write for real


@hypothesis.settings(max_examples=5, deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(strategies.text(), strategies.floats(), strategies.integers())
def _make_tables(text: str, number: float, whole: int) -> None:
    """Hypothesis builds its tables at the first example on a clean clone, which takes longer than it allows the examples of a test."""


@pytest.fixture(scope="session", autouse=True)
def tables() -> None:
    """Made before the first test, and not in the time of one."""
    _make_tables()


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> Iterator[None]:
    """The database of the data folder itself, so that servers in other processes see it too."""
    with django_db_blocker.unblock():
        call_command("migrate", interactive=False, verbosity=0)
        connection.close()
    yield


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker with a short keep-alive, so that tests need not wait for it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(log, env={"AIRELAYS_FEED_POLL_SECONDS": "0.05", "AIRELAYS_KEEPALIVE_SECONDS": "1", "AIRELAYS_MAX_BODY_BYTES": str(8 * 1024 * 1024)}) as running:
        yield running
    text = log.read_text()
    assert "Traceback" not in text, f"the server met an error of its own:\n{text[-4000:]}"


@pytest.fixture(scope="module", autouse=True)
def tidy(django_db_blocker: Any) -> Iterator[None]:
    """What the tests of a file made is switched off at its end: the servers would read it again at each change."""
    yield
    if not _used:
        return
    from relay.models import Channel, Model

    _used.clear()
    with django_db_blocker.unblock():
        Channel.objects.exclude(provider="demo").filter(enabled=True).update(enabled=False)
        Model.objects.exclude(served_by__channel__provider="demo").filter(enabled=True).update(enabled=False)
        connection.close()


@pytest.fixture
def live(django_db_setup: None, django_db_blocker: Any, upstream: Upstream) -> Iterator[Portal]:
    """Write to the servers' database for real."""
    _used.add("live")
    with django_db_blocker.unblock():
        yield Portal(upstream)
        connection.close()


@cache
def _password() -> str:
    """Hashed once, since that is meant to take long."""
    return make_password("a long password")


@dataclass
class Portal:
    """Makes what tests need, each under a name that nobody else has."""

    upstream: Upstream

    def name(self, prefix: str) -> str:
        return f"{prefix}-{next(_numbers)}"

    def user(self, **options: Any) -> Any:
        from accounts.models import User
        from relay.billing.ledger import movements

        balance = options.pop("balance", None)
        user = User.objects.create_user(self.name("user"), **options)
        user.password = _password()
        user.save(update_fields=["password"])
        if balance is None:
            movements.set_unlimited(user, True)
        elif balance:
            movements.top_up(user, balance, actor=None, reason="test")
        return user

    def token(self, user: Any = None, **options: Any) -> str:
        from relay.tokens.lifecycle import create_token

        return create_token(user or self.user(), self.name("token"), actor=None, **options)[1]

    def channel(self, base_url: str | None = None, keys: tuple[str, ...] = ("sk-upstream-secret-0123456789",), **options: Any) -> Any:
        from relay.models import ApiKey, Channel

        options.setdefault("provider", "openai")
        channel = Channel.objects.create(name=self.name("channel"), base_url=base_url or self.upstream.base_url, **options)
        for secret in keys:
            key = ApiKey(channel=channel)
            key.set_secret(secret)
            key.save()
        return channel

    def model(self, script: Script | None = None, channels: list[Any] | None = None, is_open: bool = True, upstream_name: str = "", **options: Any) -> str:
        """A new model on new or given channels; `script` is what the upstream does with requests for it."""
        from relay.models import ChannelModel, Model, ModelPrice

        price = options.pop("price", {"input": 0, "output": 0})
        model = Model.objects.create(name=self.name("model"), is_open=is_open, **{name: options.pop(name) for name in ("max_output_tokens", "max_rpm") if name in options})
        for row in [price] if isinstance(price, dict) else price or []:
            ModelPrice.objects.create(model=model, **row)
        for channel in channels if channels is not None else [self.channel(**options)]:
            ChannelModel.objects.create(channel=channel, model=model, upstream_name=upstream_name)
        if script is not None:
            self.upstream.script(upstream_name or model.name, script)
        return model.name

    def record(self, response_or_id: Any) -> Any:
        """The usage record of an answer, waited for: it may be written a moment after a client has left."""
        import time

        from relay.models import UsageRecord

        request_id = response_or_id if isinstance(response_or_id, str) else response_or_id.headers["x-request-id"]
        for _ in range(200):
            found = UsageRecord.objects.filter(request_id=request_id).first()
            if found is not None:
                return found
            time.sleep(0.02)
        raise AssertionError(f"there is no usage record of {request_id}")


def ask(model: str, **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **more}


@pytest.fixture
def people(db: None, settings: Any) -> People:
    """Three actors: an owner, another user, a member of staff."""
    from accounts.models import User

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # Argon2 is slow on purpose

    return People(
        User.objects.create_user("alice", password="a long password"),
        User.objects.create_user("bob", password="a long password"),
        User.objects.create_superuser("carol", password="a long password"),
    )


@pytest.fixture
def clean_addresses(live: Portal, server: Server) -> Any:
    """Bad tokens of this test count from zero: a good token from the same address resets the count."""

    def reset() -> None:
        from relay.models import BlockedAddress

        BlockedAddress.objects.all().delete()
        assert server.get(live.token(), "/v1/models").status_code == 200

    reset()
    yield reset
    reset()


@dataclass
class People:
    owner: Any
    other: Any
    staff: Any


@pytest.fixture
def data_dir() -> Path:
    return Path(django_settings.DATA_DIR)
