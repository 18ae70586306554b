"""Work in a fork of this process, so that what it imports and reads does not stay in this one's memory."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

from django.db import connections

T = TypeVar("T")
_PR_SET_PDEATHSIG: Final = 1  # of prctl.h


def apart(work: Callable[[], T]) -> T:
    """Call a function in a fork, and return what it returns or raise what it raises. Both are pickled.

    There must be no other threads. Databases are connected to anew. On other systems than Linux, whose libraries may
    not go on in a fork, the function is called here.
    """
    if sys.platform != "linux":
        return work()
    _disconnect()
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _work(work, write)
    os.close(write)
    try:
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not said:
        raise RuntimeError(f"the process that prepares the start ended with {status}")
    failed, outcome = pickle.loads(said)  # noqa: S301  # of this program
    if failed:
        raise outcome
    result: T = outcome
    return result


def _disconnect() -> None:
    for connection in connections.all(initialized_only=True):
        connection.close()
        if getattr(connection, "pool", None):
            connection.close_pool()  # type: ignore[attr-defined]  # it has threads


def _work(work: Callable[[], Any], pipe: int) -> NoReturn:
    """In the fork, which ends with it."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # nobody is to migrate for a command that was ended
    try:
        said = pickle.dumps((False, work()))
    except BaseException as error:
        error.add_note(f"In a fork:\n{traceback.format_exc()}")
        try:
            said = pickle.dumps((True, error))
        except Exception:
            said = pickle.dumps((True, RuntimeError(traceback.format_exc())))
    with suppress(Exception):
        _disconnect()
    with os.fdopen(pipe, "wb") as file:
        file.write(said)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)
