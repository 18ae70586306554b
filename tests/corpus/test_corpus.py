"""What real upstreams and clients were seen to do, one file each: see README.md in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.models import Channel, Model
from tests.corpus.runner import Case
from tests.support.money import books_balance
from tests.support.portal import Portal
from tests.support.server import Server

CASES = Path(__file__).parent / "cases"


@pytest.fixture(scope="module", autouse=True)
def books(servers_database: object) -> Iterator[None]:
    yield
    with servers_database():  # type: ignore[operator]
        books_balance()


@pytest.mark.parametrize("path", sorted(CASES.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path, live: Portal, server: Server) -> None:
    Case(path, live, server).run()
    # The server would read all of them again at each change.
    Channel.objects.exclude(provider="demo").filter(enabled=True).update(enabled=False)
    Model.objects.exclude(served_by__channel__provider="demo").filter(enabled=True).update(enabled=False)
