"""Log files: one a day, or several when it grows large, for their owner alone; the oldest are deleted.

Several processes write into the same files: each line is one write at the file's end.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from portal.lib import crypto

_NAME: Final = re.compile(r"airelays-\d{4}-\d\d-\d\d(?:\.\d{1,6})?\.log")  # others in the folder are not ours
_MIB: Final = 1 << 20
_DAY: Final = 86_400
_MOST_BYTES: Final = 8 * _MIB  # of lines that wait for the disk
_PATIENCE: Final = 5.0  # seconds, at the end of the process
_LOOK_SECONDS: Final = 60.0  # between looks at how large the files are


class FolderHandler(logging.Handler):
    """Appends lines to the file of the day in a folder, in a thread of its own: no request waits for the disk.

    Lines that a slow disk has not taken wait, as many as `_MOST_BYTES` hold. What comes beyond that is dropped, and so
    is what the disk does not take at all; the next line says how many.
    """

    def __init__(self, folder: str, days: int, total_mb: int, file_mb: int) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._days, self._total, self._most = days, total_mb * _MIB, file_mb * _MIB
        self._file = -1
        self._day = ""
        self._told = False
        self._look_at = 0.0
        self._changed = threading.Condition()
        # When each line was logged, the line, and how many are missing if it is not written.
        self._waiting: deque[tuple[float, bytes, int]] = deque()
        self._bytes = self._dropped = 0
        self._busy = self._ends = False
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._ends or self._bytes + len(line) > _MOST_BYTES:
                self._dropped += 1
                return
            dropped, self._dropped = self._dropped, 0
            line = self._told_of(dropped) + line if dropped else line
            self._waiting.append((record.created, line, dropped + 1))
            self._bytes += len(line)
            if self._thread is None or not self._thread.is_alive():  # the first line of this process
                self._thread = threading.Thread(target=self._run, name="airelays log files", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all lines are written, but not for a disk that hangs."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._busy), _PATIENCE)

    def close(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(_PATIENCE)
        super().close()

    def _run(self) -> None:
        """Write what waits, until the end."""
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._ends)
                if not self._waiting:
                    break
                lines = list(self._waiting)
                self._waiting.clear()
                self._bytes, self._busy = 0, True
            self._write(lines)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._day = -1, ""

    def _write(self, lines: list[tuple[float, bytes, int]]) -> None:
        left = sum(lost for _, _, lost in lines)
        try:
            for created, line, lost in lines:
                day = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%d")
                if day != self._day or time.monotonic() >= self._look_at:
                    self._open(day)
                os.write(self._file, line)
                left -= lost
        except OSError as error:
            with self._changed:
                self._dropped += left
            if not self._told:
                self._told = True
                sys.stderr.write(f"airelays: log files cannot be written to {self._folder}: {error.strerror}\n")

    def _told_of(self, dropped: int) -> bytes:
        """The line that says how many are missing before it, in the form of all others."""
        text = f"{dropped} line(s) of the log were dropped: the disk did not take them in time"
        found = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
        return (self.format(logging.makeLogRecord(found)) + "\n").encode()

    def _open(self, day: str) -> None:
        """Open the file that is written to now, and delete what is too old or too much."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        number, path = 0, self._folder / f"airelays-{day}.log"
        while path.exists() and path.stat().st_size >= self._most:
            number += 1
            path = self._folder / f"airelays-{day}.{number}.log"
        fresh = crypto.open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._day, self._look_at = fresh, day, time.monotonic() + _LOOK_SECONDS
        self._delete_old(path)

    def _delete_old(self, current: Path) -> None:
        found = []
        for path in self._folder.iterdir():
            if _NAME.fullmatch(path.name) and path != current and path.is_file():
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        size = current.stat().st_size
        for written_at, length, path in sorted(found, reverse=True):
            size += length
            if size > self._total or written_at < time.time() - self._days * _DAY:
                path.unlink(missing_ok=True)
