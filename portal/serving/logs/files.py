"""Log files: one a day, or several when it grows large, for their owner alone; the oldest are deleted.

Several processes write into the same files: each line is one write at the file's end.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from portal.lib import crypto

_NAME: Final = re.compile(r"airelays-\d{4}-\d\d-\d\d(?:\.\d{1,6})?\.log")  # others in the folder are not ours
_MIB: Final = 1 << 20
_DAY: Final = 86_400
_LOOK_SECONDS: Final = 60.0  # between looks at how large the files are


class FolderHandler(logging.Handler):
    """Appends lines to the file of the day in a folder. What the disk does not take is dropped: requests go on."""

    def __init__(self, folder: str, days: int, total_mb: int, file_mb: int) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._days, self._total, self._most = days, total_mb * _MIB, file_mb * _MIB
        self._file = -1
        self._day = ""
        self._told = False
        self._look_at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            day = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d")
            if day != self._day or time.monotonic() >= self._look_at:
                self._open(day)
            os.write(self._file, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._told:
                self._told = True
                sys.stderr.write(f"airelays: log files cannot be written to {self._folder}: {error.strerror}\n")
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self.acquire()
        try:
            if self._file >= 0:
                os.close(self._file)
            self._file, self._day = -1, ""
        finally:
            self.release()
        super().close()

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
