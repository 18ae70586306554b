"""One portal per data folder: a lock on `relay.lock`, which AIRelays 0.22 takes as well, for as long as one serves.

The system gives the lock up when the process ends, however it ends, so that no file of a dead process is in the way.
It holds across containers on one machine, and on NFS across machines. `relay.pid` only says who holds it.
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

    def hold(self, shared: bool = False, patience: float = PATIENCE) -> bool:
        """Take the lock. Returns False on a file system that has no locks. Raises FolderInUse, OSError.

        `shared`: the database is elsewhere, so that several portals may store their files in one folder; none with its
        database in it may be among them.
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
        path = self._folder / _HOLDER
        descriptor = crypto.open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # The number alone in the first line: AIRelays 0.22 reads it.
            file.write(f"{os.getpid()}\n{host_id()} {process_start(os.getpid())}\n{socket.gethostname()}\n")
        return True

    def release(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _in_use(folder: Path) -> str:
    return (
        f"Another AIRelays relay is already running with the data directory {folder} ({holder(folder)}). Stop it "
        "first, or use a different --data-dir."
    )


def holder(folder: Path) -> str:
    """Which process holds the lock of a folder, by what it has written there.

    Its number means something on the machine, and in the container, where it was given, and while it has not ended.
    """
    try:
        lines = (folder / _HOLDER).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "pid unknown"
    pid = lines[0].strip() if lines else ""
    if not pid.isdecimal():
        return "pid unknown"
    if len(lines) < 3:  # of AIRelays 0.22
        return f"pid {pid}"
    host, _, start = lines[1].partition(" ")
    if host != host_id():
        return f"pid {pid} on {lines[2]}, another machine or container"
    return f"pid {pid}" if process_start(int(pid)) == start else "pid unknown"
