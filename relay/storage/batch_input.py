"""The input file of a batch: its lines, and what is wrong with them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, text_of

ENDPOINTS: Final = {
    "/v1/chat/completions": "chat.completions", "/v1/responses": "responses", "/v1/embeddings": "embeddings", "/v1/completions": "completions", "/v1/moderations": "moderations",
    "/v1/images/generations": "images.generations", "/v1/rerank": "rerank",
}  # fmt: skip
MOST_LINES: Final = 50_000
_MOST_ERRORS: Final = 100
_MOST_NAME: Final = 512


@dataclass(frozen=True, slots=True)
class BatchInputLine:
    """One request. `number` from 1."""

    number: int
    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    lines: tuple[BatchInputLine, ...]
    model: str
    errors: tuple[Json, ...]


def error(code: str, message: str, line: int | None = None, param: str | None = None) -> Json:
    """One entry of a batch's `errors`."""
    return {"code": code, "message": message, "param": param, "line": line}


def parse(content: bytes, endpoint: str) -> Parsed:
    """The lines of a file for one endpoint."""
    lines: list[BatchInputLine] = []
    errors: list[Json] = []
    names: set[str] = set()
    model = ""
    for number, raw in enumerate(content.splitlines(), 1):
        if not raw.strip():
            continue
        if len(lines) >= MOST_LINES:
            errors.append(error("too_many_requests_in_file", f"A batch may have at most {MOST_LINES:,} requests. Split the file.", number))
            break
        found = decode_object(raw)
        wrong = _wrong(found, endpoint, names)
        if wrong is not None or found is None:
            errors.append({**(wrong or error("invalid_json_line", "This line is no JSON object.")), "line": number})
            if len(errors) >= _MOST_ERRORS:
                break
            continue
        body = object_of(found, "body")
        names.add(text_of(found, "custom_id"))
        model = model or text_of(body, "model")
        lines.append(BatchInputLine(number, text_of(found, "custom_id"), encode(body)))
    if not lines and not errors:
        errors.append(error("empty_file", "The file has no requests: write one JSON object a line."))
    return Parsed(tuple(lines), model[:120], tuple(errors))


def _wrong(found: Json | None, endpoint: str, names: set[str]) -> Json | None:
    if found is None:
        return error("invalid_json_line", "This line is no JSON object.")
    name = text_of(found, "custom_id")
    if not name or len(name) > _MOST_NAME:
        return error("missing_custom_id", "Each line needs a “custom_id”, by which its answer is told.", param="custom_id")
    if name in names:
        return error("duplicate_custom_id", f"The custom_id “{name[:60]}” stands in the file twice.", param="custom_id")
    if text_of(found, "method") != "POST":
        return error("invalid_method", "The “method” of each line must be POST.", param="method")
    if text_of(found, "url") != endpoint:
        return error("mismatched_endpoint", f"The “url” of each line must be the batch's endpoint, {endpoint}.", param="url")
    body = found.get("body")
    if not isinstance(body, dict) or not body:
        return error("missing_body", "Each line needs a “body”, the request itself.", param="body")
    if body.get("stream") or body.get("background"):
        return error("invalid_body", "Requests of a batch are neither streamed nor made in the background: leave “stream” and “background” out.", param="body")
    return None


def answer_line(line: BatchInputLine, request_id: str, status: int, body: bytes) -> str:
    """A line of the output file, or of the error file."""
    shown = decode_object(body)
    response: Json = {"status_code": status, "request_id": request_id, "body": shown if shown is not None else body.decode("utf-8", "replace")}
    return encode({"id": f"batch_req_{request_id.removeprefix('req_')}", "custom_id": line.custom_id, "response": response, "error": None}).decode()


def unanswered_line(line: BatchInputLine, code: str, message: str) -> str:
    """A line of the error file for a request that was never made."""
    return encode({"id": f"batch_req_{line.number:08d}", "custom_id": line.custom_id, "response": None, "error": {"code": code, "message": message}}).decode()
