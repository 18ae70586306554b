"""Fixtures: databases that the real programs wrote, unpacked for each test, which may change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.importers.old import Old, unpack


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[str], Old]:
    return lambda program: unpack(program, tmp_path)


@pytest.fixture(params=["one-api", "new-api"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    """Of each program."""
    return unpack(request.param, tmp_path)


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host names of the databases are looked up nowhere."""
    monkeypatch.setattr("relay.channels.urls._check_resolved", lambda *_: None)
