"""Log lines carry no secret."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from portal.serving.logs import JsonFormatter, RefusalFilter, TextFormatter


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
