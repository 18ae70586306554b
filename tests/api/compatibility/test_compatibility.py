"""Every feature of each client API at every upstream: carried, lost and told so, or refused; never lost without a word.

`python -m tests.api.compatibility` writes docs/compatibility.md anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.api.compatibility.columns import COLUMNS, Site
from tests.api.compatibility.matrix import CLIENTS, Cell, cells, run
from tests.api.compatibility.notes import NOTES
from tests.api.compatibility.page import PAGE, page
from tests.api.compatibility.verdicts import Verdict, verdict_of
from tests.support.peers.clouds.google_tokens import issuing_tokens
from tests.support.portal import Portal
from tests.support.server import serving
from tests.support.upstream import Upstream

pytestmark = pytest.mark.timeout(1800)  # a minute on a machine that has nothing else to do


@pytest.fixture(scope="module")
def seen(
    servers_database: Callable[[], AbstractContextManager[None]],
    upstream: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[Cell, Verdict]]]:
    """All cells with their verdicts."""
    log = tmp_path_factory.mktemp("compatibility") / "log"
    with issuing_tokens() as tokens, servers_database():
        env = {"AIRELAYS_FEED_POLL_SECONDS": "0.05", "AIRELAYS_GOOGLE_TOKEN_URIS": tokens.url}
        with serving(log, env=env) as server:
            todo = list(cells())
            run(Site(Portal(upstream), tokens), server, todo)
            yield [(cell, verdict_of(cell)) for cell in todo]
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_nothing_is_lost_without_a_word(seen: list[tuple[Cell, Verdict]], client: str, column: object) -> None:
    mine = [(cell, verdict) for cell, verdict in seen if cell.client == client and cell.column is column]
    assert mine
    assert [f"{cell.about}: {verdict.fault}" for cell, verdict in mine if verdict.fault] == []


def test_every_note_is_about_something(seen: list[tuple[Cell, Verdict]]) -> None:
    assert {verdict.note for _, verdict in seen if verdict.note} == set(NOTES)


def test_the_page_says_what_was_seen(seen: list[tuple[Cell, Verdict]]) -> None:
    assert not any(verdict.fault for _, verdict in seen)
    text = page(seen)
    if os.environ.get("WRITE_COMPATIBILITY"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert all(cell.strip() for row in rows for cell in row[1:])
