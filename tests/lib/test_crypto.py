"""Encrypted secrets and their keys."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from portal.lib import crypto


def test_box_opens_with_old_keys_and_not_with_others_or_other_purposes() -> None:
    old, new = crypto.random_key(), crypto.random_key()
    sealed = crypto.SecretBox([old], "a").seal("sk-secret")
    assert "secret" not in sealed
    both = crypto.SecretBox([new, old], "a")
    assert both.open(sealed) == "sk-secret"
    assert crypto.SecretBox([new], "a").open(both.seal("sk-secret")) == "sk-secret", "the first key encrypts"
    for wrong in (crypto.SecretBox([new], "a"), crypto.SecretBox([old], "b")):
        with pytest.raises(crypto.Undecryptable):
            wrong.open(sealed)
    with pytest.raises(crypto.Undecryptable):
        both.open("nonsense")


def test_key_file_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(crypto.load_or_create(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found[0]) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["k"]
