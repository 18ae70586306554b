"""The lock of a data folder: one holder, whoever it is, until it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from portal.installation.lock import FolderInUse, FolderLock, holder, listening_at
from portal.lib.processes import host_id, process_start
from tests.support.server import ROOT


def test_the_lock_is_given_up_with_the_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from portal.installation.lock import FolderLock;"
        "FolderLock(Path(sys.argv[1])).hold(); print('held', flush=True); time.sleep(100)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(FolderInUse, match=rf"\(pid {holder.pid}\)"):
        FolderLock(tmp_path).hold(patience=0)
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path).hold(shared=True, patience=0)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    one, other = FolderLock(tmp_path), FolderLock(tmp_path)
    assert one.hold(shared=True, patience=5) and other.hold(shared=True, patience=0)
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path).hold(patience=0)
    one.release()
    other.release()
    assert (tmp_path / "relay.pid").read_text() == f"{os.getpid()}\n", "as 0.22 writes it"


def test_who_holds_it_says_where_it_listens_until_it_ends(tmp_path: Path) -> None:
    assert listening_at(tmp_path) is None
    lock = FolderLock(tmp_path)
    lock.hold(patience=0)
    assert listening_at(tmp_path) is None, "it does not listen"
    lock.release()
    lock.hold(patience=0, listens=("::1", 8081))
    assert listening_at(tmp_path) == ("::1", 8081) and holder(tmp_path) == f"pid {os.getpid()}"
    lock.release()
    lock.hold(shared=True, patience=0, listens=("::1", 8081))
    assert listening_at(tmp_path) is None, "it may be any of several"
    lock.release()
    pid = os.getpid()
    for about in (
        f"{pid} {host_id()} 1 box 127.0.0.1 80",
        f"{pid} elsewhere {process_start(pid)} box 127.0.0.1 80",
        f"{pid} {host_id()} {process_start(pid)} box 127.0.0.1 http",
    ):
        (tmp_path / "relay.lock").write_text(about + "\n")
        assert listening_at(tmp_path) is None, about


@pytest.mark.parametrize(
    ("pid", "about", "said"),
    [
        (None, None, "pid unknown"),
        ("", "", "pid unknown"),
        ("not a number\n", "", "pid unknown"),
        ("4242\n", "", "pid 4242"),
        ("4242\n", "7 box-1 99 box\n", "pid 4242"),
        ("{pid}\n", "{pid} {host} {start} box\n", "pid {pid}"),
        ("{pid}\n", "{pid} {host} 1 box\n", "pid unknown"),
        ("7\n", "7 box-4026531836 99 box\n", "pid 7 on box, another machine or container"),
    ],
)
def test_the_holder_is_named_only_where_its_number_means_something(
    pid: str | None, about: str | None, said: str, tmp_path: Path
) -> None:
    """A number may have been given to another process since, and in another container it is another process."""
    own = {"pid": os.getpid(), "host": host_id(), "start": process_start(os.getpid())}
    for name, text in (("relay.pid", pid), ("relay.lock", about)):
        if text is not None:
            (tmp_path / name).write_text(text.format(**own))
    assert holder(tmp_path) == said.format(**own)


def test_a_file_system_without_locks_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    assert FolderLock(tmp_path).hold(patience=0) is False


def test_a_portal_that_is_just_ending_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FolderLock(tmp_path)
    assert first.hold(patience=0)
    monkeypatch.setattr("portal.installation.lock.time.sleep", lambda _seconds: first.release())
    assert FolderLock(tmp_path).hold(patience=60)
