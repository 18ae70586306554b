"""Serves in this process, or makes it the supervisor of several others."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from django.conf import settings

from portal import limits
from portal.metrics.counts.memory import new_file
from portal.metrics.installed import turned_on
from portal.serving import uvicorn
from portal.serving.workers import supervisor


def run(
    host: str, port: int, workers: int, ready: Callable[[], object], status_of_term: int = 0, relay_only: bool = False
) -> bool:
    """Serve until SIGTERM or Ctrl-C; return when all records are written. Calls `ready` when the port is open.

    Returns whether it was ended by SIGTERM. With several workers, or one that only relays, it does not return: the
    process exits with `status_of_term` after SIGTERM.
    """
    if workers > 1 or relay_only:  # this process has loaded what workers that only relay do without
        listening = uvicorn.bind(host, port)
        ready()  # the workers listen shortly
        _supervise(listening, workers, status_of_term, relay_only)
    return uvicorn.run(host, port, ready)


def _supervise(listening: socket.socket, workers: int, status_of_term: int, relay_only: bool) -> NoReturn:
    """Become the supervisor, with the lock of the data folder, which is inherited."""
    listening.set_inheritable(True)
    inherited = []
    if turned_on(settings.CONFIG):
        inherited.append(new_file(round(time.time() * 1000)))
        if (metrics := uvicorn.bind_metrics()) is not None:
            inherited.append(metrics.detach())
    # A worker that does not answer for so long is killed with all that it serves, and so is one that takes longer to
    # start. To import everything takes seconds, on a machine that has much else to do many.
    options = ["--patience", str(limits.WORKER_ANSWER_SECONDS), "--status-of-term", str(status_of_term)]
    for one in inherited:
        os.set_inheritable(one, True)
        options += ["--inherited", str(one)]
    if settings.CONFIG.log_format == "json":
        options.append("--json")
    if relay_only:
        options.append("--relay-only")
    sys.stdout.flush()
    program = [sys.executable, "-I", "-S", supervisor.__file__, str(listening.fileno()), str(workers), *options]
    os.execv(sys.executable, program)  # noqa: S606  # this program
