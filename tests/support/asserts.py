"""What every error of /v1 must look like, and waiting for what is to happen."""

from __future__ import annotations

import time
from typing import Any

import httpx


def check(response: httpx.Response, status: int, type_: str, code: str | None, param: str | None = None) -> str:
    """The error has the one shape; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (type_, code, param)
    assert error["message"][-1] in ".;!" and "127.0.0.1" not in error["message"] and "req_" not in error["message"]
    return str(error["message"])


def until(found: Any, seconds: float = 10.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
    return value
