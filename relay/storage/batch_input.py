"""Parses and validates the input file of a batch, and formats the lines of its output files. Pure.

A line whose request cannot be found fails the batch before it begins. The body of a line is kept as the client wrote
it, and read when its turn comes like that of any request: if it is wrong, that line fails alone, as it does when one of
the client's own members beside it is.
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
from relay.protocols.anthropic_messages import batches as message_batches
from relay.protocols.anthropic_messages.errors import error_body
from relay.protocols.fields import named_model

# Paths that a batch of /v1/batches may call, and their names in usage records.
ENDPOINTS: Final = {
    "/v1/chat/completions": "chat.completions", "/v1/responses": "responses", "/v1/embeddings": "embeddings",
    "/v1/completions": "completions", "/v1/moderations": "moderations", "/v1/images/generations": "images.generations",
    "/v1/rerank": "rerank",
}  # fmt: skip
MAX_LINES: Final = 50_000
_MAX_ERRORS: Final = 100
_NO_LINE: Final = "This line is no JSON object: write each request on one line of its own."
_TOO_MANY: Final = (
    f"This line has more than {limits.JSON_MEMBERS:,} members or {limits.JSON_VALUES:,} items. Send several requests."
)
_MAX_CUSTOM_ID: Final = 512  # characters
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, as PowerShell writes them
_MARKS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.S)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Line = Mapping[str, msgspec.Raw]  # the members of a line, undecoded
_READ: Final = ("custom_id", "method", "url", "body")  # the others are the client's own


class _Read(msgspec.Struct):
    """What is read of a line, whatever else it has."""

    custom_id: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    url: msgspec.Raw = msgspec.Raw()
    body: msgspec.Raw = msgspec.Raw()


_read_alone: Final = msgspec.json.Decoder(_Read)


@dataclass(frozen=True, slots=True)
class BatchInputLine:
    """One request of a batch."""

    number: int  # of the line in the file, from 1
    custom_id: str  # the client's name for the request
    body: bytes  # as the client wrote it; it may be no JSON
    model: str = ""  # that it names
    wrong: str = ""  # why it fails though its body may be a request
    messages: bool = False  # it is of a message batch, and its outcome is written as that API has it


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
    messages = endpoint == message_batches.PATH
    most = message_batches.MOST_REQUESTS if messages else MAX_LINES
    if content.startswith(_UTF16):
        return BatchInput((), "", (error("invalid_json_line", "The file is in UTF-16. Save it as UTF-8.", 1),))
    for number, raw in enumerate(content.splitlines(), 1):
        raw = raw.removeprefix(BOM)
        if not raw.strip():
            continue
        if len(lines) >= most:
            errors.append(
                error(
                    "too_many_requests_in_file",
                    f"A batch may have at most {most:,} requests. Split the file.",
                    number,
                )
            )
            break
        found, why = _read_line(raw)
        wrong = _check_line(found, endpoint, names) if found is not None else error("invalid_json_line", why)
        if wrong is not None or found is None:
            errors.append({**(wrong or {}), "line": number})
            if len(errors) >= _MAX_ERRORS:
                break
            continue
        body = b"" if why else bytes(found["body"])
        names.add(_text(found, "custom_id"))
        own = sys.intern((named_model(body) or "").replace("\0", "")[:120])  # no database takes NULs
        model = model or own
        lines.append(BatchInputLine(number, _text(found, "custom_id"), body, own, why, messages))
    if not lines and not errors:
        errors.append(error("empty_file", "The file has no requests: write one JSON object a line."))
    return BatchInput(tuple(lines), model, tuple(errors))


def _read_line(raw: bytes) -> tuple[_Line | None, str]:
    """The members of a line, and why it fails, if it does: alone when there are members, otherwise with the batch."""
    if has_more_values(raw, limits.JSON_MEMBERS, limits.JSON_VALUES):
        return _read_large(raw), _TOO_MANY
    found = _read_object(raw)
    # What the decoder drops takes a colon with it, unless a name has one; the values are kept byte by byte.
    if found is not None and encode(found).count(b":") == raw.count(b":") and not any(":" in name for name in found):
        return found, ""
    return _split(raw)


def _read_large(raw: bytes) -> _Line | None:
    """The members of a line that are read, of one that has too many; None if it is no JSON object."""
    try:
        found = _read_alone.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return {name: value for name in _READ if bytes(value := getattr(found, name))}


def _split(raw: bytes) -> tuple[_Line | None, str]:
    """As `_read_line`, of a line that has a member twice or one with a colon in its name, or whose body is no JSON to
    the decoder: it is nested too deep, or has half a character.

    The body is whatever its brackets enclose: it fails the request later, and not the batch.
    """
    found: dict[str, msgspec.Raw] = {}
    twice: list[str] = []
    text, depth, start, name = raw.strip(), 0, 1, None
    for mark in _MARKS.finditer(text):
        kind = mark[0][:1]
        depth += (kind in b"{[") - (kind in b"}]")
        if depth < 1 and mark.end() != len(text):
            return None, _NO_LINE
        if depth == 1 and kind == b":" and name is None:
            known = decode(text[start : mark.start()].strip())
            if not isinstance(known, str):
                return None, _NO_LINE
            name, start = known, mark.end()
        elif depth < 1 or (depth == 1 and kind == b","):
            if name is None:
                return None, _NO_LINE
            if name in found:
                twice.append(name)
            found[name] = msgspec.Raw(text[start : mark.start()].strip())
            name, start = None, mark.end()
    if not text.startswith(b"{") or depth or name is not None:
        return None, _NO_LINE
    unreadable = [name for name in found if name != "body" and decode(found[name]) is NOTHING]
    if any(name in _READ for name in unreadable):
        return None, _NO_LINE
    if any(name in _READ for name in twice):
        return None, next(_twice(name) for name in twice if name in _READ)
    if twice:
        return found, _twice(twice[0])
    return found, f"The member “{unreadable[0][:64]}” of this line is no JSON." if unreadable else ""


def _twice(name: str) -> str:
    return f"This line has the member “{name[:64]}” twice. Write it once."


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


def _check_line(found: _Line, endpoint: str, names: set[str]) -> Json | None:
    """Return what is wrong with a line as an entry of `errors`. `names`: the custom ids of the lines before."""
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


def refusal(line: BatchInputLine) -> tuple[int, bytes] | None:
    """The status and the error of a request that no batch can make; None: there is none."""
    if line.wrong:
        return 400, _error_body(line, 400, line.wrong, "invalid_json", None)
    members = _read_object(line.body) or {}
    name = next((name for name in ("stream", "background") if name in members and decode(members[name])), "")
    if not name:
        return None
    message = (
        "Requests of a batch are neither streamed nor made in the background: leave “stream” and “background” out."
    )
    return 422, _error_body(line, 422, message, "unsupported_parameter", name)


def _error_body(line: BatchInputLine, status: int, message: str, code: str, param: str | None) -> bytes:
    if line.messages:
        return error_body(status, message, code, param, "")
    shown = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return encode({"error": shown})


def answer_line(line: BatchInputLine, request_id: str, status: int, body: bytes) -> str:
    """Format the answer to a request as a line of the output file or the error file."""
    if line.messages:
        return message_batches.message_result(line.custom_id, status, body)
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
    if line.messages:
        return message_batches.missing_result(line.custom_id, code, message)
    return encode(
        {
            "id": f"batch_req_{line.number:08d}",
            "custom_id": line.custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    ).decode()
