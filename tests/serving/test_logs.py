"""Log lines carry no secret."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.serving.logs.files import FolderHandler
from portal.serving.logs.lines import JsonFormatter, RefusalFilter, RepeatFilter, StderrHandler, TextFormatter
from tests.support.asserts import until


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_logs_and_tracebacks_carry_no_secret(formatter: logging.Formatter) -> None:
    secret = "sk-abcdefghijklmnop1234567890"
    try:
        raise ValueError(f"request with headers {{'authorization': 'Bearer {secret}'}} failed")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "key %s of %s", (secret, "us"), sys.exc_info())
    record.request_id = "req_1"
    line = formatter.format(record)
    assert secret not in line and "redacted" in line and "ValueError" in line
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["request_id"] == "req_1" and "\n" not in line


@pytest.mark.parametrize(("status", "told"), [(403, False), (400, False), (500, True), (None, True)])
def test_refusals_are_logged_in_one_line(status: int | None, told: bool) -> None:
    try:
        raise PermissionError("no")
    except PermissionError:
        record = logging.LogRecord("django.request", logging.WARNING, __file__, 1, "Forbidden", (), sys.exc_info())
    if status is not None:
        record.status_code = status
    assert RefusalFilter().filter(record)
    assert ("Traceback" in TextFormatter().format(record)) is told


def test_nobody_waits_for_a_reader_of_the_log_that_has_stopped() -> None:
    """The event loop writes most lines: it would stand still."""
    reader, writer = os.pipe()
    try:
        handler = StderrHandler(os.fdopen(writer, "w", closefd=False))
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "y" * 1000, None, None)
        while not handler.dropped:
            handler.emit(record)
        for _ in range(10):
            handler.emit(record)
        assert handler.dropped == 11
        os.set_blocking(reader, False)
        read = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                read += os.read(reader, 1 << 20)
        assert read.count(b"\n") > 50
        handler.emit(record)
        said, line = os.read(reader, 1 << 20).decode().splitlines()[-2:]
        assert said == "11 line(s) of the log were dropped: nobody read them" and line == "y" * 1000
        assert handler.dropped == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_an_error_that_comes_again_and_again_is_one_line_in_ten_seconds() -> None:
    repeats = RepeatFilter()

    def shown(at: float, message: str = "limits cannot be counted: %s", level: int = logging.ERROR) -> str | None:
        record = logging.LogRecord("x", level, __file__, 1, message, ("Redis",) if "%" in message else (), None)
        record.created = at
        return TextFormatter().format(record)[20:] if repeats.filter(record) else None

    line = "ERROR x: limits cannot be counted: Redis"
    assert [shown(1000.0 + number) for number in range(10)] == [line, *[None] * 9]
    assert shown(1009.0, "another error") == "ERROR x: another error"
    assert shown(1005.0, level=logging.WARNING) is not None
    assert shown(1010.0) == f"{line} (and 9 more times before)"
    assert shown(1030.0) == line, "nothing was dropped since"
    assert shown(900.0) == line, "the clock was put back"
    for number in range(2000):
        shown(2000.0, f"error {number}")
    assert len(repeats._known) <= 1000


def test_a_traceback_is_never_dropped() -> None:
    repeats = RepeatFilter()
    for _ in range(3):
        try:
            raise ValueError("no")
        except ValueError:
            record = logging.LogRecord("x", logging.ERROR, __file__, 1, "a fault", (), sys.exc_info())
        assert repeats.filter(record)


def test_json_lines_say_how_often_an_error_came() -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "away", (), None)
    record.repeated = 7
    assert json.loads(JsonFormatter().format(record))["repeated"] == 7


# -- log files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[FolderHandler]:
    made = FolderHandler(str(tmp_path / "logs"), 7, 1, 1)
    made.setFormatter(JsonFormatter())
    yield made
    made.close()


def line(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "x", "levelno": 20, "levelname": "INFO", "msg": text})


def written(handler: FolderHandler) -> list[str]:
    handler.flush()
    (file,) = handler._folder.glob("airelays-*.log")
    return [json.loads(text)["message"] for text in file.read_text().splitlines()]


def test_lines_are_in_the_file_in_their_order(handler: FolderHandler) -> None:
    for number in range(1000):
        handler.emit(line(f"line {number}"))
    assert written(handler) == [f"line {number}" for number in range(1000)]


def test_nobody_waits_for_a_disk_that_hangs_and_what_it_does_not_take_is_told(
    handler: FolderHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are served meanwhile: the event loop writes nothing itself, and keeps 8 MiB at most."""
    handler.emit(line("before"))
    handler.flush()
    writes, hangs, threads = os.write, threading.Event(), set()

    def write(file: int, data: bytes) -> int:
        threads.add(threading.current_thread())
        hangs.wait(30)
        return writes(file, data)

    monkeypatch.setattr(os, "write", write)
    handler.emit(line("the first hangs"))
    until(lambda: bool(threads))
    for _ in range(12):
        handler.emit(line("x" * (1 << 20)))
    assert handler._bytes <= 8 << 20 and handler._dropped == 5
    assert threading.current_thread() not in threads
    hangs.set()
    handler.flush()
    handler.emit(line("after"))
    found = written(handler)
    assert (found[:2], found[-2][:26], found[-1]) == (
        ["before", "the first hangs"],
        "5 line(s) of the log were ",
        "after",
    )
    assert [text[0] for text in found[2:-2]] == ["x"] * 7, "the gap is told where it is"


def test_a_disk_that_is_full_is_told_once_and_written_to_again(
    handler: FolderHandler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler.emit(line("before"))
    handler.flush()
    writes, full = os.write, True

    def write(file: int, data: bytes) -> int:
        if full:
            raise OSError(28, "No space left on device")
        return writes(file, data)

    monkeypatch.setattr(os, "write", write)
    for text in ("lost", "lost too"):
        handler.emit(line(text))
        handler.flush()
    assert capsys.readouterr().err.count("No space left on device") == 1
    full = False
    handler.emit(line("after"))
    assert written(handler) == [
        "before", "2 line(s) of the log were dropped: the disk did not take them in time", "after",
    ]  # fmt: skip


def test_the_end_of_the_process_writes_what_waits(tmp_path: Path) -> None:
    made = FolderHandler(str(tmp_path), 7, 1, 1)
    made.emit(line("last"))
    made.close()
    made.emit(line("too late"))
    (file,) = tmp_path.glob("airelays-*.log")
    assert file.read_text().endswith("last\n") and file.stat().st_mode & 0o777 == 0o600
