"""What every error of /v1 must look like, and waiting for what is to happen."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import httpx
from asgiref.sync import async_to_sync


def check(response: httpx.Response, status: int, type_: str, code: str | None, param: str | None = None) -> str:
    """The error has the one shape; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    error = response.json()["error"]
    if response.json().get("type") == "error":  # of Anthropic's API, in its own shape
        assert response.headers["request-id"] == response.json()["request_id"] == response.headers["x-request-id"]
        details = error["details"]
        error = {"type": error["type"], "message": error["message"], "code": details["error_code"], "param": None}
        error["param"] = details.get("param")
    if "status" in error:  # of Google's APIs
        assert error["code"] == status
        info = next(one for one in error["details"] if one["@type"].endswith("ErrorInfo"))
        told = {"message": error["message"], "code": info["reason"].lower(), "type": type_}
        error = {**told, "param": info.get("metadata", {}).get("field")}
    if "type" not in error and "details" in error:  # of Google's Interactions API
        info = error["details"][0]
        told = {"message": error["message"], "code": info["reason"].lower(), "type": type_}
        error = {**told, "param": info.get("metadata", {}).get("field")}
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (type_, code, param)
    assert error["message"][-1] in ".;!" and "127.0.0.1" not in error["message"] and "req_" not in error["message"]
    return str(error["message"])


def until(found: Callable[[], Any], every: float = 0.02) -> Any:
    """What it returns as soon as that is something, asked at intervals. The suite's time limit ends what never comes.

    `every`: seconds.
    """
    while not (value := found()):
        time.sleep(every)
    return value


def csv_rows(response: Any) -> list[dict[str, str]]:
    """The rows of a CSV file, also of one that is streamed asynchronously, read with this thread's connection."""

    async def read() -> bytes:
        return b"".join([chunk async for chunk in response.streaming_content])

    with mock.patch("channels.db.close_old_connections"):  # the test's own connection, which holds its transaction
        body = async_to_sync(read)() if response.streaming else response.content
    return list(csv.DictReader(io.StringIO(body.decode())))
