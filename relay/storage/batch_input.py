"""Parses and validates the input file of a batch, and formats the lines of its output files. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, text_of

# Paths that a batch may call, and their names in usage records.
ENDPOINTS: Final = {
    "/v1/chat/completions": "chat.completions", "/v1/responses": "responses", "/v1/embeddings": "embeddings",
    "/v1/completions": "completions", "/v1/moderations": "moderations", "/v1/images/generations": "images.generations",
    "/v1/rerank": "rerank",
}  # fmt: skip
MAX_LINES: Final = 50_000
_MAX_ERRORS: Final = 100
_MAX_CUSTOM_ID: Final = 512  # characters


@dataclass(frozen=True, slots=True)
class BatchInputLine:
    """One request of a batch."""

    number: int  # of the line in the file, from 1
    custom_id: str  # the client's name for the request
    body: bytes  # JSON


@dataclass(frozen=True, slots=True)
class BatchInput:
    """A parsed input file."""

    lines: tuple[BatchInputLine, ...]
    model: str  # of the first request, empty when it names none
    errors: tuple[Json, ...]  # entries of the batch's `errors`; the batch fails when there is one


def error(code: str, message: str, line: int | None = None, param: str | None = None) -> Json:
    """Return one entry of a batch's `errors`."""
    return {"code": code, "message": message, "param": param, "line": line}


def parse(content: bytes, endpoint: str) -> BatchInput:
    """Parse an input file whose requests are all for one endpoint."""
    lines: list[BatchInputLine] = []
    errors: list[Json] = []
    names: set[str] = set()
    model = ""
    for number, raw in enumerate(content.splitlines(), 1):
        if not raw.strip():
            continue
        if len(lines) >= MAX_LINES:
            errors.append(
                error(
                    "too_many_requests_in_file",
                    f"A batch may have at most {MAX_LINES:,} requests. Split the file.",
                    number,
                )
            )
            break
        found = decode_object(raw)
        wrong = _check_line(found, endpoint, names)
        if wrong is not None or found is None:
            errors.append({**(wrong or error("invalid_json_line", "This line is no JSON object.")), "line": number})
            if len(errors) >= _MAX_ERRORS:
                break
            continue
        body = object_of(found, "body")
        names.add(text_of(found, "custom_id"))
        model = model or text_of(body, "model")
        lines.append(BatchInputLine(number, text_of(found, "custom_id"), encode(body)))
    if not lines and not errors:
        errors.append(error("empty_file", "The file has no requests: write one JSON object a line."))
    return BatchInput(tuple(lines), model[:120], tuple(errors))


def _check_line(found: Json | None, endpoint: str, names: set[str]) -> Json | None:
    """Return what is wrong with a line as an entry of `errors`. `names`: the custom ids of the lines before."""
    if found is None:
        return error("invalid_json_line", "This line is no JSON object.")
    name = text_of(found, "custom_id")
    if not name or len(name) > _MAX_CUSTOM_ID:
        return error(
            "missing_custom_id", "Each line needs a “custom_id”, by which its answer is told.", param="custom_id"
        )
    if name in names:
        return error("duplicate_custom_id", f"The custom_id “{name[:60]}” stands in the file twice.", param="custom_id")
    if text_of(found, "method") != "POST":
        return error("invalid_method", "The “method” of each line must be POST.", param="method")
    if text_of(found, "url") != endpoint:
        return error(
            "mismatched_endpoint", f"The “url” of each line must be the batch's endpoint, {endpoint}.", param="url"
        )
    body = found.get("body")
    if not isinstance(body, dict) or not body:
        return error("missing_body", "Each line needs a “body”, the request itself.", param="body")
    if body.get("stream") or body.get("background"):
        return error(
            "invalid_body",
            "Requests of a batch are neither streamed nor made in the background: leave “stream” and “background” out.",
            param="body",
        )
    return None


def answer_line(line: BatchInputLine, request_id: str, status: int, body: bytes) -> str:
    """Format the answer to a request as a line of the output file or the error file."""
    shown = decode_object(body)
    response: Json = {
        "status_code": status,
        "request_id": request_id,
        "body": shown if shown is not None else body.decode("utf-8", "replace"),
    }
    return encode(
        {
            "id": f"batch_req_{request_id.removeprefix('req_')}",
            "custom_id": line.custom_id,
            "response": response,
            "error": None,
        }
    ).decode()


def unanswered_line(line: BatchInputLine, code: str, message: str) -> str:
    """Format a line of the error file for a request that was never made."""
    return encode(
        {
            "id": f"batch_req_{line.number:08d}",
            "custom_id": line.custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    ).decode()
