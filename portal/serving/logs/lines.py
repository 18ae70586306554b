"""Log formatters for text and JSON, which redact secrets in all lines, and a handler that nobody waits for."""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from datetime import UTC, datetime
from typing import Final

from portal.lib.redaction.paths import shown_path
from portal.lib.redaction.redact import redact


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = redact(super().format(record))
        repeated = getattr(record, "repeated", 0)
        return f"{line} (and {repeated} more times before)" if repeated else line


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        request_id = getattr(record, "request_id", None)
        if isinstance(request_id, str):
            entry["request_id"] = request_id
        repeated: int = getattr(record, "repeated", 0)
        if repeated:
            entry["repeated"] = repeated
        access = getattr(record, "access", None)
        if isinstance(access, dict):
            entry.update(access)
        if record.exc_info:
            entry["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


_PIECE: Final = 4096  # bytes that a pipe takes at once when it takes any
_PATIENCE_MS: Final = 100  # for a reader that is behind, with the first line only


class StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the standard error output, and drops lines while nobody reads it.

    A pipe whose reader has stopped is full after 64 KiB. The event loop would stand still at the next line, for good.
    """

    dropped = 0  # lines since one was written

    def emit(self, record: logging.LogRecord) -> None:
        try:
            output = self.stream.fileno()
        except (OSError, ValueError):  # no file, as in some tests
            super().emit(record)
            return
        try:
            lines = self.format(record) + self.terminator
            if self.dropped:
                lines = f"{self.dropped} line(s) of the log were dropped: nobody read them{self.terminator}{lines}"
            self.flush()
            if self._write(output, lines.encode("utf-8", "backslashreplace")):
                self.dropped = 0
            else:
                self.dropped += 1
        except Exception:
            self.handleError(record)

    def _write(self, output: int, data: bytes) -> bool:
        """Write as long as that takes no time. Returns whether everything was written."""
        ready = select.poll()
        ready.register(output, select.POLLOUT)
        for start in range(0, len(data), _PIECE):
            if not ready.poll(0 if self.dropped else _PATIENCE_MS):
                return False
            os.write(output, data[start : start + _PIECE])
        return True


class RefusedHandshakeFilter(logging.Filter):
    """Drops uvicorn's error about a websocket that was refused with an HTTP response.

    ASGI allows it (`websocket.http.response`), but uvicorn reports it as a missing handshake.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.getMessage() != "ASGI callable returned without completing handshake."


class RefusalFilter(logging.Filter):
    """Drops the traceback of requests that were refused, with 403 for example: the line says which and why."""

    def filter(self, record: logging.LogRecord) -> bool:
        status = getattr(record, "status_code", 0)
        if record.exc_info and isinstance(status, int) and 400 <= status < 500:
            record.exc_info, record.exc_text = None, None
        return True


class PathFilter(logging.Filter):
    """Takes what may be a secret out of the paths that Django logs with requests that it refuses."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.") and isinstance(record.args, tuple):
            record.args = tuple(
                shown_path(part) if isinstance(part, str) and part.startswith("/") else part for part in record.args
            )
        return True


_APART: Final = 10.0  # seconds between two lines with the same error
_MOST_KNOWN: Final = 1000  # errors


class RepeatFilter(logging.Filter):
    """Drops an error that was logged in the last ten seconds. The next line with it says how often it came meanwhile.

    While a database or Redis is away, each request would log the same line. Tracebacks are never dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, int]] = {}  # when an error was logged, and how often it was not

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR or record.exc_info:
            return True
        error = (record.name, record.getMessage())
        with self._lock:
            at, dropped = self._known.pop(error, (float("-inf"), 0))
            apart = not 0 <= record.created - at < _APART
            self._known[error] = (record.created, 0) if apart else (at, dropped + 1)
            if len(self._known) > _MOST_KNOWN:
                self._known.pop(next(iter(self._known)))
        if apart and dropped:
            record.repeated = dropped
        return apart
