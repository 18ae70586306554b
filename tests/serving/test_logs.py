"""Log lines carry no secret."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys

import pytest

from portal.serving.logs.lines import JsonFormatter, RefusalFilter, RepeatFilter, StderrHandler, TextFormatter


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
