"""Starts the portal's commands as forks of a process that has imported what needs no settings.

To import that takes half of what a command costs, and the suite starts hundreds. All else each command imports itself.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
# What the portal takes of others, as far as it can be imported before there are settings.
LIBRARIES: Final = (
    "aiohttp",
    "asgiref.sync",
    "channels.layers",
    "channels.routing",
    "cryptography.fernet",
    "cryptography.x509",
    "django.contrib.admin.options",
    "django.contrib.admin.sites",
    "django.core.handlers.asgi",
    "django.core.management",
    "django.test",
    "fido2.server",
    "httptools",
    "httpx",
    "jwt",
    "msgspec",
    "pydantic_settings",
    "requests",
    "servestatic",
    "uvicorn",
    "websockets",
)
PURE: Final = ("portal.lib", "relay.protocols", "relay.providers", "relay.transport")  # no Django in them
_LONGEST: Final = 1 << 20  # of a command with its environment


class Forked:
    """A command that runs; as `subprocess.Popen`, as far as tests use it."""

    def __init__(self, pid: int, parent: _Parent) -> None:
        self.pid, self._parent = pid, parent
        self.returncode: int | None = None
        self._end = os.pidfd_open(pid)  # readable when the process has ended
        self._asking = threading.Lock()

    def poll(self) -> int | None:
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _ended_within(self, seconds: float | None) -> int | None:
        """The code with which it has ended; None: it has not. Several threads may ask."""
        if self.returncode is not None:
            return self.returncode
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        if not poll.poll(None if seconds is None else seconds * 1000):
            return None
        with self._asking:
            if self.returncode is None:
                self.returncode = self._parent.ask({"ended": self.pid})
        return self.returncode

    def __del__(self) -> None:
        os.close(self._end)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Parent:
    """The process that forks, and what it is asked through."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        self._lock = threading.Lock()
        command = [sys.executable, "-m", "tests.support.forks", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()

    def ask(self, request: object, files: list[int] | None = None) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files or [])
            return int(json.loads(self._socket.recv(100)))

    def stop(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _parent() -> _Parent:
    parent = _Parent()
    atexit.register(parent.stop)
    return parent


def start(arguments: list[str], env: dict[str, str], out: int, errors: int) -> Forked | subprocess.Popen[bytes]:
    """Start `manage.py …` or `-m module …` in a session of its own. `env`: the whole environment.

    `out`, `errors`: descriptors of files.
    """
    if not hasattr(os, "pidfd_open"):  # on other systems than Linux
        command = [sys.executable, *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=errors, start_new_session=True)
    parent = _parent()
    return Forked(parent.ask({"arguments": arguments, "env": env}, [out, errors]), parent)


def run(arguments: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As `start`, waited for. `env`: what differs from this process's environment."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        code = start(arguments, {**os.environ, **(env or {})}, out.fileno(), errors.fileno()).wait()
        for file in (out, errors):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), errors.read())


def _next_command(asked: socket.socket) -> list[str]:
    """In the parent it never returns; in each fork it returns what that is to run."""
    while True:
        data, files, _, _ = socket.recv_fds(asked, _LONGEST, 2)
        if not data:
            os._exit(0)
        request = json.loads(data)
        if "ended" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["ended"], 0)[1])
        else:
            own, of_fork = os.pipe()
            answer = os.fork()
            if not answer:
                os.setsid()
                break
            os.close(of_fork)
            os.read(own, 1)  # ends when the fork has a session of its own
            os.close(own)
        asked.send(json.dumps(answer).encode())
        for file in files:
            os.close(file)
    asked.close()
    os.close(own)
    os.close(of_fork)
    for number, file in enumerate(files, 1):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    arguments: list[str] = request["arguments"]
    return arguments


def _main() -> None:
    asked = socket.socket(fileno=int(sys.argv[1]))
    for name in LIBRARIES:
        importlib.import_module(name)
    for package in map(importlib.import_module, PURE):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    sys.argv = _next_command(asked)
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _main()
