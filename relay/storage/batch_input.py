"""Parses and validates the input file of a batch, and formats the lines of its output files. Pure.

A line that cannot be read fails the batch before it begins. The body of a line is kept as the client wrote it, and read
when its turn comes like that of any request: if it is wrong, that line fails alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from portal import limits
from portal.lib.json import BOM, NOTHING, Json, decode, decode_object, encode, has_more_values
from relay.protocols.fields import named_model

# Paths that a batch may call, and their names in usage records.
ENDPOINTS: Final = {
    "/v1/chat/completions": "chat.completions", "/v1/responses": "responses", "/v1/embeddings": "embeddings",
    "/v1/completions": "completions", "/v1/moderations": "moderations", "/v1/images/generations": "images.generations",
    "/v1/rerank": "rerank",
}  # fmt: skip
MAX_LINES: Final = 50_000
_MAX_ERRORS: Final = 100
_NO_LINE: Final = "This line is no JSON object, or it has a member twice, or too many."
_MAX_CUSTOM_ID: Final = 512  # characters
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, as PowerShell writes them
_MARKS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.S)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Line = Mapping[str, msgspec.Raw]  # the members of a line, undecoded


@dataclass(frozen=True, slots=True)
class BatchInputLine:
    """One request of a batch."""

    number: int  # of the line in the file, from 1
    custom_id: str  # the client's name for the request
    body: bytes  # as the client wrote it; it may be no JSON
    model: str = ""  # that it names


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
    if content.startswith(_UTF16):
        return BatchInput((), "", (error("invalid_json_line", "The file is in UTF-16. Save it as UTF-8.", 1),))
    for number, raw in enumerate(content.splitlines(), 1):
        raw = raw.removeprefix(BOM)
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
        found = _read_line(raw)
        wrong = _check_line(found, endpoint, names)
        if wrong is not None or found is None:
            errors.append(
                {
                    **(
                        wrong
                        or error(
                            "invalid_json_line", "This line is no JSON object, has a member twice, or too many members."
                        )
                    ),
                    "line": number,
                }
            )
            if len(errors) >= _MAX_ERRORS:
                break
            continue
        body = found["body"]
        names.add(_text(found, "custom_id"))
        own = sys.intern((named_model(bytes(body)) or "").replace("\0", "")[:120])  # no database takes NULs
        model = model or own
        lines.append(BatchInputLine(number, _text(found, "custom_id"), bytes(body), own))
    if not lines and not errors:
        errors.append(error("empty_file", "The file has no requests: write one JSON object a line."))
    return BatchInput(tuple(lines), model, tuple(errors))


def _read_line(raw: bytes) -> _Line | None:
    """The members of a line; None if it is no JSON object, or has a member twice."""
    if has_more_values(raw, limits.JSON_MEMBERS, limits.JSON_VALUES):
        return None
    found = _read_object(raw)
    if found is not None:
        # What the decoder drops takes a colon with it; the values are kept byte by byte.
        whole = encode(found).count(b":") == raw.count(b":") and not any(":" in name for name in found)
        return found if whole else None
    return _split(raw)


def _split(raw: bytes) -> _Line | None:
    """The same of a line whose body is no JSON to the decoder: it is nested too deep, or has half a character.

    The body is whatever its brackets enclose: it fails the request later, and not the batch.
    """
    found: dict[str, msgspec.Raw] = {}
    text, depth, start, name = raw.strip(), 0, 1, ""
    for mark in _MARKS.finditer(text):
        kind = mark[0][:1]
        depth += (kind in b"{[") - (kind in b"}]")
        if depth < 1 and mark.end() != len(text):
            return None
        if depth == 1 and kind == b":" and not name:
            known = decode(text[start : mark.start()].strip())
            name, start = known if isinstance(known, str) else "", mark.end()
            if not name:
                return None
        elif depth < 1 or (depth == 1 and kind == b","):
            if not name or name in found:
                return None
            found[name] = msgspec.Raw(text[start : mark.start()].strip())
            name, start = "", mark.end()
    whole = text.startswith(b"{") and not depth and not name
    return found if whole and all(decode(found[name]) is not NOTHING for name in found if name != "body") else None


def _read_object(raw: bytes | msgspec.Raw) -> _Line | None:
    try:
        if has_more_values(bytes(raw), limits.JSON_MEMBERS, limits.JSON_VALUES):
            return None
        return _members.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _text(found: _Line, name: str) -> str:
    value = decode(found[name]) if name in found else ""
    return value if isinstance(value, str) else ""


def _check_line(found: _Line | None, endpoint: str, names: set[str]) -> Json | None:
    """Return what is wrong with a line as an entry of `errors`. `names`: the custom ids of the lines before."""
    if found is None:
        return error("invalid_json_line", _NO_LINE)
    name = _text(found, "custom_id")
    if not name or len(name) > _MAX_CUSTOM_ID:
        return error(
            "missing_custom_id", "Each line needs a “custom_id”, by which its answer is told.", param="custom_id"
        )
    if name in names:
        return error("duplicate_custom_id", f"The custom_id “{name[:60]}” stands in the file twice.", param="custom_id")
    if _text(found, "method") != "POST":
        return error("invalid_method", "The “method” of each line must be POST.", param="method")
    if _text(found, "url") != endpoint:
        return error(
            "mismatched_endpoint", f"The “url” of each line must be the batch's endpoint, {endpoint}.", param="url"
        )
    if bytes(found.get("body", b"null")).strip() == b"null":
        return error("missing_body", "Each line needs a “body”, the request itself.", param="body")
    return None


def refusal(body: bytes) -> bytes:
    """The error of a request that no batch can make; empty: there is none."""
    members = _read_object(body) or {}
    name = next((name for name in ("stream", "background") if name in members and decode(members[name])), "")
    if not name:
        return b""
    message = (
        "Requests of a batch are neither streamed nor made in the background: leave “stream” and “background” out."
    )
    shown = {"message": message, "type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}
    return encode({"error": shown})


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
    """Format a line of the error file for a request that has no answer."""
    return encode(
        {
            "id": f"batch_req_{line.number:08d}",
            "custom_id": line.custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    ).decode()
