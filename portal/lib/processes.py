"""Who a process is, across machines and containers, and whether it still runs."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path


def new_owner() -> str:
    """A name for this worker that no other has, or had: `host:process:start:random`."""
    return f"{_here()}:{os.getpid()}:{process_start(os.getpid())}:{secrets.token_hex(4)}"


def _here() -> str:
    """Where process numbers mean what they mean here: the machine, and on it the container."""
    try:
        container = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        container = ""
    return f"{socket.gethostname()[:30]}-{container}"


def process_start(pid: int) -> str:
    """When a process of this machine began, as its kernel counts; empty when it has ended or where that cannot be told. A number used again differs in it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return fields[19] if fields[0] not in {"Z", "X"} else ""
    except (OSError, IndexError):
        return ""


def is_dead(owner: str) -> bool:
    """Whether the worker that made a reservation ran on this machine and is gone for certain."""
    host, _, rest = owner.partition(":")
    pid, _, rest = rest.partition(":")
    start = rest.partition(":")[0]
    if host != _here() or not pid.isdigit() or not start:
        return False
    return process_start(int(pid)) != start


def open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a Path per file would open more of them
    except OSError:
        return 0


def resident_bytes() -> int:
    """Bytes; 0 where it cannot be known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
