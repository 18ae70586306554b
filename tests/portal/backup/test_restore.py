"""Where a backup is restored to."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal.backup.about import CannotRestore
from portal.backup.restore import empty_place
from portal.config import load


@pytest.mark.parametrize("name", ["keys", "uploads", "state.sqlite3", "state.sqlite3-wal", "state.sqlite3-journal"])
def test_what_is_left_of_a_portal_keeps_a_folder_from_being_empty(tmp_path: Path, name: str) -> None:
    """A `-wal` of a database that was deleted would come back in the restored one, in place of what that has."""
    config = load({"data_dir": str(tmp_path)}, environ={})
    with empty_place(config) as staging:
        assert staging.parent == tmp_path
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CannotRestore, match=name), empty_place(config):
        pytest.fail("It is not empty.")
    assert not list(tmp_path.glob(".restoring*"))
