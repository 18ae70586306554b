"""Log formatters for text and JSON. Both redact secrets in all lines, including tracebacks."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from portal.lib.redact import redact


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        request_id = getattr(record, "request_id", None)
        if isinstance(request_id, str):
            entry["request_id"] = request_id
        if record.exc_info:
            entry["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


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
