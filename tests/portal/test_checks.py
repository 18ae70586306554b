"""System checks of an installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from portal import checks, config


@pytest.mark.parametrize(
    ("mode", "found"), [(0o600, []), (0o640, ["portal.W008"]), (0o660, ["portal.W008"]), (0o604, ["portal.E001"])]
)
def test_key_files_are_for_their_owner_and_at_most_for_a_group(
    settings: Any, tmp_path: Path, mode: int, found: list[str]
) -> None:
    """Kubernetes gives the files of a volume to a group at each mount (`fsGroup`): that must not stop the program."""
    settings.DATA_DIR = tmp_path
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "secret_key").touch(mode)
    (tmp_path / "keys" / "secret_key").chmod(mode)
    assert [message.id for message in checks.key_files(None)] == found


def test_settings_that_nothing_reads_are_on_the_page_of_the_installation(settings: Any) -> None:
    settings.CONFIG = config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAYS_SIGNUP_DOMAIN": "example.org"})
    (message,) = checks.settings_without_effect(None)
    assert "AIRELAYS_SIGNUP_DOMAINS" in message.msg and message.id == "portal.W007"
