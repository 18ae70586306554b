"""Servers that hang: they keep their connections open and say nothing, as a frozen machine does.

And a Redis that answers, and does nothing that it is asked to.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Stalled:
    """Accepts connections; passes bytes to and from a target until it is frozen, and nothing without a target."""

    def __init__(self, target: tuple[str, int] | None = None) -> None:
        self._target = target
        self._moving = threading.Event()
        if target is not None:
            self._moving.set()
        self._open = True
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()

    def close(self) -> None:
        self._open = False
        self._moving.set()
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while self._open:
                client = self._listener.accept()[0]
                self._sockets.append(client)
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._moving.wait()
        if self._target is None or not self._open:
            return
        with suppress(OSError):
            server = socket.create_connection(self._target)
            self._sockets.append(server)
            threading.Thread(target=self._pass, args=(server, client), daemon=True).start()
            self._pass(client, server)

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._moving.wait()
                to.sendall(data)
        with suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)


@contextmanager
def stalled(target: tuple[str, int] | None = None) -> Iterator[Stalled]:
    server = Stalled(target)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def refusing(error: str) -> Iterator[int]:
    """The port of a Redis that answers what would write with an error, and greetings as others do."""

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, ValueError):
                while head := self.rfile.readline():  # *<words>, then each as $<size> and its bytes
                    words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
                    greeting = words[0].upper() in {b"CLIENT", b"SELECT"}
                    self.wfile.write(b"+OK\r\n" if greeting else b"-%s\r\n" % error.encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
