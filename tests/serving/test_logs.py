"""Log lines carry no secret."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys

import pytest

from portal.serving.logs import JsonFormatter, RefusalFilter, StderrHandler, TextFormatter


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
