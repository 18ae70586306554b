"""Log lines carry no secret."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from portal.serving.logs import JsonFormatter, TextFormatter


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
