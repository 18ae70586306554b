"""Bodies of errors in the form in which vendors send them."""

from __future__ import annotations

from typing import Any


def openai(
    message: str = "x", code: object = None, type_: str | None = "invalid_request_error", param: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def anthropic(type_: str, message: str = "x", **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type_, "message": message, **more}, "request_id": "req_x"}


def gemini(code: int, status: str, message: str = "x", *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": message, "details": list(details)}}


def quota(id_: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": id_}]}


def zhipu(code: str, message: str = "x") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}
