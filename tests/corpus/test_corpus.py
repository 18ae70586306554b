"""What real upstreams and clients were seen to do, one file each: see README.md in this folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from tests.corpus.runner import Case
from tests.support.money import books_balance
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Upstream

CASES = Path(__file__).parent / "cases"


@pytest.fixture(scope="module")
def cases(
    request: pytest.FixtureRequest,
    servers_database: Callable[[], AbstractContextManager[None]],
    upstream: Upstream,
    server: Server,
) -> Iterator[dict[Path, Case]]:
    """The cases that were chosen. What they need is made at once: the server reads it again after each change.

    In several transactions with pauses, since the server cannot write meanwhile: SQLite looks every 100 ms whether it
    may, and would find the next one begun for as long as it waits.
    """
    items: list[Any] = [item for item in request.session.items if item.path == request.path]
    chosen = [item.callspec.params["path"] for item in items]
    with servers_database():
        found = {path: Case(path, Portal(upstream), server) for path in chosen}
        left = iter(found.values())
        while some := list(islice(left, 40)):
            with transaction.atomic():
                for case in some:
                    case.make()
            time.sleep(0.15)
        server.catch_up()
    yield found
    with servers_database():
        books_balance()


@pytest.mark.parametrize("path", sorted(CASES.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path, live: Portal, cases: dict[Path, Case]) -> None:
    cases[path].run()
