"""Watches over several worker processes: starts them, replaces those that end or hang, and ends them.

Run as a program of its own in the place of the command that has checked everything, with the socket that it has bound:
it imports neither Django nor anything else that is not Python's, and takes a tenth of the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_WORKER: Final = str(Path(__file__).with_name("worker.py"))
CANNOT_START: Final = 3  # the status of a worker that could not start, which no other one could either
_LOOK_SECONDS: Final = 0.5  # between two looks at the workers
_AGAIN_SECONDS: Final = 1.0  # between two starts in the place of one worker
RETIRE: Final = signal.SIGUSR1  # to a worker: end when its running requests have ended, since another one serves
READY: Final = b"r"  # what a worker says once it serves; anything else says that it lives
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


class WorkerProcess:
    """A worker, and the socket on which it says that it lives. The worker ends when the socket does."""

    def __init__(
        self, listening: int, selector: selectors.BaseSelector, options: Sequence[str], inherited: Sequence[int]
    ) -> None:
        """`options`: of the worker's program; `inherited`: further descriptors that it is given."""
        self._selector = selector
        numbers = [str(one) for one in inherited]
        self._words, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  # this program
                [sys.executable, _WORKER, str(listening), str(theirs.fileno()), *numbers, *options],
                pass_fds=(listening, theirs.fileno(), *inherited),
            )
        self._words.setblocking(False)
        selector.register(self._words, selectors.EVENT_READ, self)
        self.ready = False
        self.started = self.heard = time.monotonic()
        self._closed = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> None:
        """Something can be read."""
        try:
            said = self._words.recv(256)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            self.heard = time.monotonic()
            self.ready = self.ready or READY in said
        else:
            self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._selector.unregister(self._words)
            self._words.close()

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.close()


class Supervisor:
    """The workers of one listening socket."""

    def __init__(
        self,
        listening: int,
        workers: int,
        patience: float,
        as_json: bool,
        *,
        options: Sequence[str] = (),
        inherited: Sequence[int] = (),
    ) -> None:
        """`patience`: seconds that a worker may take to start, and to say that it lives.

        `options`: of its program; `inherited`: further descriptors that it is given.
        """
        self._options, self._inherited = options, inherited
        self._listening, self._patience, self._json = listening, patience, as_json
        self._wanted = workers
        self._selector = selectors.DefaultSelector()
        self._workers: list[WorkerProcess] = []
        self._leaving: list[WorkerProcess] = []  # that others have replaced, until their running requests have ended
        self._received: list[int] = []
        self._ending = False
        self._served = False  # a worker has begun to serve
        self.status = 0
        self.terminated = False  # by SIGTERM

    def run(self) -> None:
        """Returns when all workers have ended."""
        wake, woken = socket.socketpair()
        with wake, woken, self._selector:
            wake.setblocking(False)
            woken.setblocking(False)
            self._selector.register(woken, selectors.EVENT_READ)
            signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
            for number in _SIGNALS:
                signal.signal(number, lambda received, _: self._received.append(received))
            self._workers = [self._start() for _ in range(self._wanted)]
            while not self._ending:
                self._look()
                self._keep_alive()
                self._let_go()
            everybody = [*self._workers, *self._leaving]
            for worker in everybody:
                worker.signal(signal.SIGTERM)
            for worker in everybody:
                self._wait_for_end(worker)

    def _start(self) -> WorkerProcess:
        return WorkerProcess(self._listening, self._selector, self._options, self._inherited)

    def _look(self) -> None:
        """Hear the workers, and do what signals say."""
        for key, _ in self._selector.select(_LOOK_SECONDS):
            if isinstance(key.data, WorkerProcess):
                key.data.hear()
            else:
                key.fileobj.recv(256)  # type: ignore[union-attr]  # a socket
        received, self._received = self._received, []
        for number in received:
            self._handle(number)

    def _handle(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._ending:  # once more: who sends it does not want to wait
                for worker in (*self._workers, *self._leaving):
                    worker.signal(number)
            self._ending = True
            self.terminated = self.terminated or number == signal.SIGTERM
        elif self._ending:
            return
        elif number == signal.SIGHUP:
            self._replace_all()
        elif number == signal.SIGTTIN:
            self._wanted += 1
            self._workers.append(self._start())
        elif number == signal.SIGTTOU and self._wanted > 1:
            self._wanted -= 1
            last = self._workers.pop()
            last.signal(signal.SIGTERM)
            self._wait_for_end(last)

    def _keep_alive(self) -> None:
        self._served = self._served or any(worker.ready for worker in self._workers)
        for place, worker in enumerate(self._workers):
            if self._ending:
                return
            status = worker.process.poll()
            now = time.monotonic()
            if status is None and now - worker.heard <= self._patience:
                continue
            if status is None:
                self._say("ERROR", f"worker {worker.pid} has not answered for {self._patience:.0f} s and is killed")
                worker.kill()
            elif status == CANNOT_START or (status > 0 and not self._served):
                self._say("ERROR", f"worker {worker.pid} cannot start, so the others end as well")
                self.status, self._ending = CANNOT_START, True
                return
            elif now - worker.started < _AGAIN_SECONDS:
                continue  # it would end as soon again
            else:
                self._say("WARNING", f"worker {worker.pid} has ended with {status}: another one takes its place")
            worker.close()
            self._workers[place] = self._start()

    def _let_go(self) -> None:
        """Forget workers that have left; kill one that hangs."""
        for worker in list(self._leaving):
            if worker.process.poll() is None and time.monotonic() - worker.heard > self._patience:
                self._say("ERROR", f"worker {worker.pid}, which was replaced, does not answer and is killed")
                worker.kill()
            if worker.process.poll() is not None:
                worker.close()
                self._leaving.remove(worker)

    def _replace_all(self) -> None:
        """Replace one worker after the other. Each serves before the one that it replaces is told to retire."""
        for place in range(len(self._workers)):
            new = self._start()
            until = time.monotonic() + self._patience
            while not new.ready and new.process.poll() is None and time.monotonic() < until and not self._ending:
                self._look()
            if not new.ready:
                new.kill()
                if not self._ending:
                    self._say("ERROR", f"worker {new.pid} did not start in time: those that serve stay")
                return
            if place >= len(self._workers):  # there are to be fewer by now
                new.signal(signal.SIGTERM)
                self._wait_for_end(new)
                return
            old, self._workers[place] = self._workers[place], new
            old.signal(RETIRE)
            self._leaving.append(old)

    def _wait_for_end(self, worker: WorkerProcess) -> None:
        while worker.process.poll() is None:
            self._look()
        worker.close()

    def _say(self, level: str, text: str) -> None:
        now = datetime.now(UTC)
        if self._json:
            entry = {
                "time": now.isoformat(timespec="milliseconds"), "level": level, "logger": "airelays.supervisor",
                "message": text,
            }  # fmt: skip
            line = json.dumps(entry)
        else:
            line = f"{now.astimezone():%Y-%m-%d %H:%M:%S} {level} airelays.supervisor: {text}"
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:  # nobody reads it any more
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("listening", type=int)
    parser.add_argument("workers", type=int)
    parser.add_argument("--patience", type=float, default=60)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--relay-only", action="store_true")
    parser.add_argument("--status-of-term", type=int, default=0)
    parser.add_argument("--inherited", type=int, action="append", default=[])
    options = parser.parse_args()
    for one in (options.listening, *options.inherited):
        os.set_inheritable(one, False)  # workers are given it
    of_workers = ["--relay-only"] if options.relay_only else []
    supervisor = Supervisor(
        options.listening,
        options.workers,
        options.patience,
        options.json,
        options=of_workers,
        inherited=options.inherited,
    )
    supervisor.run()
    sys.exit(supervisor.status or (options.status_of_term if supervisor.terminated else 0))


if __name__ == "__main__":
    main()
