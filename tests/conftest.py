"""Fixtures: two databases, a scripted upstream, a running portal, three people.

Tests with the `db` fixture are rolled back, in a database where nothing else happens. Tests that need a server use
`live`: what they write is committed to the database of the servers, under names of their own.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import certifi
import hypothesis
import pytest
from django.core.cache import cache
from django.db import connection
from django.template import RequestContext
from django.test import Client
from django.test import client as test_client
from django.utils import timezone, translation
from hypothesis import strategies
from openai import DefaultHttpxClient, OpenAI
from servestatic.middleware import ServeStaticMiddleware

from portal.lib import clock
from relay.models import Model, ModelPermission, Upload, UsageRecord
from relay.tokens.lifecycle import create_token
from tests.support import environment
from tests.support.environment import OwnDatabase
from tests.support.pages.sync_middleware import without_loops
from tests.support.portal import People, Portal
from tests.support.server import Server, serving
from tests.support.sessions import SECRET_WORD, SESSION
from tests.support.upstream import Upstream

LONG = (
    "tests/pages/browser/",
    "tests/pages/test_every_page.py",
    "tests/billing/ledger/test_processes.py",
    "tests/billing/ledger/test_random_operations.py",
)
"""Files that take longest. They begin first, so that no worker is left alone with one of them at the end."""
_WORLD = {certifi.where(), os.environ.get("SSL_CERT_FILE", certifi.where())}  # files of its certificates
_servers = ""  # the name of their database
_used: dict[str, Callable[..., AbstractContextManager[None]]] = {}  # databases that tests of the file have written to

# How fast examples are made depends on what else the machine does.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: next((place for place, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG))
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of the shared tests imports no file without one, which is half of them."""
    if not config.option.markexpr.startswith("shared") or not collection_path.name.startswith("test_"):
        return None
    return b"mark.shared" not in collection_path.read_bytes() or None


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported and collected stays, and most of what tests make has no cycles: without this, a fourteenth of
    their time goes into looking for garbage.
    """
    if session.config.option.collectonly:  # as CI does, once for all of its workers
        _make_tables()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@hypothesis.settings(
    max_examples=5, deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
@hypothesis.given(strategies.text(), strategies.floats(), strategies.integers())
def _make_tables(text: str, number: float, whole: int) -> None:
    """Hypothesis builds its tables at the first example on a clean clone, which takes longer than it allows the
    examples of a test.
    """


@pytest.fixture(scope="session", autouse=True)
def tables() -> None:
    """Made before the first test, and not in the time of one."""
    _make_tables()


@pytest.fixture(scope="session", autouse=True)
def static_files() -> Iterator[None]:
    """Looked for once: every test client makes the middleware anew, and that would stat all of them again."""
    look = ServeStaticMiddleware.add_files_from_finders
    found: list[ServeStaticMiddleware] = []

    def add_files(self: ServeStaticMiddleware) -> None:
        if not found:
            look(self)
            found.append(self)
        self.files, self.directories = found[0].files, found[0].directories

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServeStaticMiddleware, "add_files_from_finders", add_files)
        yield


@pytest.fixture(scope="session", autouse=True)
def middleware() -> Iterator[None]:
    with without_loops():
        yield


@pytest.fixture(scope="session", autouse=True)
def contexts_of_pages() -> Iterator[None]:
    """Only the context of a page itself is kept for its test: Django copies that of each template which it includes,
    too, in a seventh of the time that a page takes.
    """
    store = test_client.store_rendered_templates  # type: ignore[attr-defined]

    def keep(data: Any, signal: Any, sender: Any, template: Any, context: Any, **more: Any) -> None:
        if isinstance(context, RequestContext) and context.template is template:
            store(data, signal, sender, template, context, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_client, "store_rendered_templates", keep)
        yield


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    """Those of the world are read once, and not by each client that a test makes: that takes as long as ten requests
    do.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in ("httpx._transports.default", "httpx2._transports.default"):
            transports: Any = importlib.import_module(module)
            patch.setattr(transports, "create_ssl_context", functools.cache(transports.create_ssl_context))
        make: Any = ssl.create_default_context
        world = functools.cache(make)
        patch.setattr(
            ssl,
            "create_default_context",
            lambda *purpose, **files: (world if files.get("cafile") in _WORLD else make)(*purpose, **files),
        )
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Workers send reports as UTF-8: half of a surrogate pair in what a test has logged would end the whole run."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def django_db_setup() -> None:
    """Made once a worker; `db` finds its own one named."""
    global _servers
    _servers = str(connection.settings_dict["NAME"])
    _use(environment.make_own_databases())


def _use(database: str) -> None:
    connection.close()
    if connection.vendor == "postgresql":
        connection.close_pool()  # type: ignore[attr-defined]
    connection.settings_dict["NAME"] = database


@pytest.fixture(scope="session")
def servers_database(django_db_setup: None, django_db_blocker: Any) -> Callable[..., AbstractContextManager[None]]:
    """Inside, this process reads and writes the database of the servers, or another one, for real."""

    @contextmanager
    def inside(database: str = "") -> Iterator[None]:
        alone = connection.settings_dict["NAME"]
        with django_db_blocker.unblock():
            _use(database or _servers)
            try:
                yield
            finally:
                _use(alone)

    return inside


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker with a short keep-alive, so that tests need not wait for it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(
        log,
        env={
            "AIRELAYS_FEED_POLL_SECONDS": "0.05",
            "AIRELAYS_KEEPALIVE_SECONDS": "1",
            "AIRELAYS_MAX_BODY_BYTES": str(8 * 1024 * 1024),
            "AIRELAYS_UNPRICED_TOOLS": "allow",
        },
    ) as running:
        yield running
    text = log.read_text()
    assert "Traceback" not in text, f"the server met an error of its own:\n{text[-4000:]}"


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    """What the tests of a file made is switched off at its end: the servers would read it again at each change.

    No address stays blocked: all tests come from the same one.
    """
    yield
    from relay.models import BlockedAddress, Channel, Model

    for name, inside in _used.items():
        with inside(name):
            Channel.objects.exclude(provider="demo").filter(enabled=True).update(enabled=False)
            Model.objects.exclude(served_by__channel__provider="demo").filter(enabled=True).update(enabled=False)
            BlockedAddress.objects.all().delete()
    _used.clear()


@pytest.fixture(autouse=True)
def language_and_zone() -> Iterator[None]:
    """Those that a page has activated for its reader would stay active in this thread, for the next test."""
    yield
    translation.deactivate()
    timezone.deactivate()


@pytest.fixture(scope="module")
def own_database(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> OwnDatabase:
    """Of the servers that a file starts itself, where the suite's server cannot take batches from them. `live` writes
    to it in the tests that ask for it.
    """
    return environment.make_own_database(tmp_path_factory.mktemp("own"))


@pytest.fixture
def live(
    request: pytest.FixtureRequest,
    servers_database: Callable[..., AbstractContextManager[None]],
    upstream: Upstream,
) -> Iterator[Portal]:
    """Write to the servers' database for real."""
    own = "own_database" in request.fixturenames
    name = request.getfixturevalue("own_database").name if own else ""
    _used[name] = servers_database
    with servers_database(name):
        yield Portal(upstream)


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


@pytest.fixture
def staff(people: People) -> Client:
    """The member of staff, signed in."""
    client = Client()
    client.force_login(people.staff)
    return client


@pytest.fixture
def sdk(server: Server, live: Portal) -> Iterator[OpenAI]:
    """The official client with a token of a new user. What a test has changed holds for its next request."""
    http = DefaultHttpxClient(event_hooks={"request": [lambda _: server.catch_up()]})
    client = OpenAI(base_url=server.url + "/v1", api_key=live.token(), max_retries=0, timeout=30, http_client=http)
    yield client
    client.close()


@pytest.fixture
def owned(people: People) -> dict[str, Any]:
    """One of everything that belongs to Alice, each with a word in it that nobody else may read."""
    token = create_token(people.owner, SECRET_WORD, actor=people.owner)[0]
    record = UsageRecord.objects.create(
        request_id="req_" + "a" * 32,
        started_at=clock.now(),
        user=people.owner,
        token=token,
        model=SECRET_WORD,
        endpoint="chat.completions",
        streamed=False,
        status=200,
        end_reason="completed",
        usage_source="reported",
        latency_ms=5,
        session=SESSION,
        app=SECRET_WORD,
    )
    upload = Upload.objects.create(
        file_id="file-alice",
        user=people.owner,
        filename=SECRET_WORD,
        purpose="user_data",
        size=3,
        state="stored",
        storage_name="x",
        sha256="0" * 64,
        created_at=clock.now(),
    )
    model = Model.objects.create(name=f"{SECRET_WORD}-model")
    ModelPermission.objects.create(model=model, user=people.owner)
    return {
        "token": token.pk,
        "request": record.request_id,
        "session": record.session_code,
        "file": upload.file_id,
        "record": record.pk,
    }


@pytest.fixture
def one_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attempts are counted from zero and in one window of time, however long they take."""
    end = int(time.time()) + 3600
    monkeypatch.setattr("django_ratelimit.core._get_window", lambda value, period: end)
    monkeypatch.setattr("accounts.sign_in.attempts.window_end", lambda seconds: end)
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def clients(people: People) -> tuple[Client, Client, Client]:
    """Owner, other user, staff, signed in."""
    found = []
    for user in (people.owner, people.other, people.staff):
        client = Client()
        client.force_login(user)
        found.append(client)
    return found[0], found[1], found[2]


@pytest.fixture(scope="module")
def second() -> Iterator[Upstream]:
    """Another upstream beside `upstream`."""
    running = Upstream()
    yield running
    running.stop()
