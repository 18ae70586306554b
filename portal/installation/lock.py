"""One portal per data folder: a lock on `relay.lock`, which AIRelays 0.22 takes as well, for as long as one serves.

The system gives the lock up when the process ends, however it ends, so that no file of a dead process is in the way.
It holds across containers on one machine, and on NFS across machines. What is written in it and in `relay.pid` only
says who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Final

from portal.lib import crypto
from portal.lib.processes import host_id, process_start

_LOCK: Final = "relay.lock"
_HOLDER: Final = "relay.pid"
_HELD: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
_AGAIN_SECONDS: Final = 0.1
PATIENCE: Final = 5.0  # seconds, for a portal that is just ending


class FolderInUse(Exception):
    """Another portal serves from this data folder. The message says which process, as far as that is known."""


class FolderLock:
    """The lock of a data folder, held until `release` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = -1

    def hold(self, shared: bool = False, patience: float = PATIENCE, listens: tuple[str, int] | None = None) -> bool:
        """Take the lock. Returns False on a file system that has no locks. Raises FolderInUse, OSError.

        `shared`: the database is elsewhere, so that several portals may store their files in one folder; none with its
        database in it may be among them. `listens`: host and port of the one that takes it, for `listening_at`.
        """
        self._file = crypto.open_private(self._folder / _LOCK, os.O_RDWR | os.O_CREAT)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in _HELD:
                    self.release()
                    return False
                if time.monotonic() >= until:
                    self.release()
                    raise FolderInUse(_in_use(self._folder)) from None
            time.sleep(_AGAIN_SECONDS)
        os.set_inheritable(self._file, True)  # the process may become another program, which goes on with the folder
        self._sign(None if shared else listens)
        return True

    def _sign(self, listens: tuple[str, int] | None) -> None:
        """Write down who holds the lock: the number alone for AIRelays 0.22, which shows all that is in its file."""
        pid = os.getpid()
        descriptor = crypto.open_private(self._folder / _HOLDER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{pid}\n")
        os.ftruncate(self._file, 0)
        about = [pid, host_id(), process_start(pid), socket.gethostname(), *(listens or ())]
        os.pwrite(self._file, f"{' '.join(map(str, about))}\n".encode(), 0)

    def release(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _in_use(folder: Path) -> str:
    return (
        f"Another AIRelays relay is already running with the data directory {folder} ({holder(folder)}). Stop it "
        "first, or use a different --data-dir."
    )


def listening_at(folder: Path) -> tuple[str, int] | None:
    """Host and port of the portal that serves from a folder, on this machine; None: none is known to."""
    try:
        about = (folder / _LOCK).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    if len(about) != 6 or not (about[0].isdecimal() and about[5].isdecimal()):
        return None
    pid, host, start, _name, address, port = about
    runs = host == host_id() and process_start(int(pid)) == start
    return (address, int(port)) if runs else None


def holder(folder: Path) -> str:
    """Which process holds the lock of a folder, by what it has written there.

    Its number means something on the machine, and in the container, where it was given, and while it has not ended.
    """
    try:
        pid = (folder / _HOLDER).read_text(encoding="utf-8").strip()
        about = (folder / _LOCK).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return "pid unknown"
    if not pid.isdecimal():
        return "pid unknown"
    if len(about) not in {4, 6} or about[0] != pid:  # of AIRelays 0.22
        return f"pid {pid}"
    _, host, start, name = about[:4]
    if host != host_id():
        return f"pid {pid} on {name}, another machine or container"
    return f"pid {pid}" if process_start(int(pid)) == start else "pid unknown"
