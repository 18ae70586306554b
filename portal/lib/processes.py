"""Identity of worker processes across machines and containers, whether they are alive, and their resources."""

from __future__ import annotations

import ctypes
import os
import resource
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final


def new_owner() -> str:
    """A unique name for this worker, never reused: `host:process:start:random`."""
    return f"{host_id()}:{os.getpid()}:{process_start(os.getpid())}:{secrets.token_hex(4)}"


def host_id() -> str:
    """The machine and container that this process runs in, within which process numbers are unique."""
    try:
        container = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        container = ""
    return f"{socket.gethostname()[:30]}-{container}"


def process_start(pid: int) -> str:
    """The start time of a process in clock ticks since boot; empty if it has ended or /proc is unavailable.

    It differs for a later process with the same number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return fields[19] if fields[0] not in {"Z", "X"} else ""
    except (OSError, IndexError):
        return ""


def is_dead(owner: str) -> bool:
    """Whether the named worker ran on this machine and has certainly ended."""
    host, _, rest = owner.partition(":")
    pid, _, rest = rest.partition(":")
    start = rest.partition(":")[0]
    if host != host_id() or not pid.isdigit() or not start:
        return False
    return process_start(int(pid)) != start


def open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # creates no Path for each
    except OSError:
        return 0


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where /proc is unavailable."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


_ENOUGH: Final = 65_536  # descriptors
_M_ARENA_MAX: Final = -8  # of glibc's malloc.h
_MADV_DONTNEED: Final = 4  # of Linux's mman-common.h


def share_arena() -> None:
    """Let glibc take the memory of all threads from one place, before there are any; elsewhere this does nothing.

    Each thread has one of its own otherwise, and what is free in one is of no use to another: 7 MiB after a burst.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give the system what a start leaves: free memory of glibc's, and pages of libraries that only the start has read.

    Those are the files' own, unchanged, and come from the system's cache when they are used again; most never are. Does
    nothing where glibc or /proc is not there.
    """
    with suppress(AttributeError, OSError, ValueError):
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        for begin, end in _unchanged(Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")):
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def _unchanged(smaps: str) -> Iterator[tuple[int, int]]:
    """The addresses of libraries' pages that cannot be written and have not been: not those with relocations.

    Of libraries alone: nothing unmaps them, while a thread may put something else in the place of another file.
    """
    place = None
    for line in smaps.splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):  # `begin-end permissions offset device inode path`
            begin, _, end = first.partition("-")
            name = " ".join(rest[4:]).rpartition("/")[2]
            of_library = "w" not in rest[0] and rest[3] != "0" and ".so" in name
            place = (int(begin, 16), int(end, 16)) if of_library else None
        elif first == "Anonymous:" and place is not None and rest[0] == "0":
            yield place


def raise_descriptors() -> int:
    """Let this process open as many descriptors as it may; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or soft < hard):
        wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        with suppress(OSError, ValueError):  # macOS: the kernel has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft
