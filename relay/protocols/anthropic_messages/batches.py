"""Message batches: the requests that one is made of, and the lines of its results. Pure.

`{"requests": [{"custom_id", "params"}]}`; each line of the results is `{"custom_id", "result": {"type", …}}`, its type
`succeeded` with a `message`, `errored` with an `error`, `canceled` or `expired`.

Source: Anthropic's API reference and its SDK 2.14, November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from portal import limits
from portal.lib.json import BOM, decode, decode_object, encode, has_more_values
from relay.protocols.anthropic_messages.errors import error_object, error_type
from relay.protocols.fields import BadRequest, check_inner_names, read_object

PATH: Final = "/v1/messages"  # of the requests in a batch
MOST_REQUESTS: Final = 100_000
# The header by which clients of the beta name the API itself, which is none of the requests.
BATCHES_BETA: Final = "message-batches-2024-09-24"
_CUSTOM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_requests: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ONE: Final = "It is an object with “custom_id” and “params”."


def batch_input(body: bytes) -> tuple[bytes, int]:
    """The lines of an input file for the requests of a batch, and how many they are. Raises BadRequest.

    A body of ordinary size is read as those of all endpoints are. Of a larger one the requests are read when their turn
    comes, as the lines of a file are, and what is around them here.
    """
    body = body.removeprefix(BOM)
    if not has_more_values(body, limits.JSON_MEMBERS, limits.JSON_VALUES):
        check_inner_names(read_object(body))
    lines: list[bytes] = []
    names: set[str] = set()
    for index, raw in enumerate(_requests_of(body)):
        where = f"requests[{index}]"
        request = _object(raw, where)
        name = decode(request.get("custom_id", msgspec.Raw(b"null")))
        if not isinstance(name, str) or _CUSTOM_ID.fullmatch(name) is None:
            raise BadRequest(
                f"The field “{where}.custom_id” must be 1 to 64 letters, digits, “_” or “-”.",
                f"{where}.custom_id",
            )
        if name in names:
            raise BadRequest(
                f"The custom_id “{name}” is there twice. Give each request one of its own.", f"{where}.custom_id"
            )
        names.add(name)
        params = bytes(request.get("params", b"")).strip()
        if not params.startswith(b"{"):
            message = f"The field “{where}.params” must be an object: the request to POST {PATH}."
            raise BadRequest(message, f"{where}.params")
        if unknown := next((one for one in request if one not in {"custom_id", "params"}), ""):
            raise BadRequest(f"{where} has no field “{unknown[:64]}”. {_ONE}", f"{where}.{unknown[:64]}")
        lines.append(_line(name, params))
    return b"".join(lines), len(lines)


def _requests_of(body: bytes) -> list[msgspec.Raw]:
    members = _object(body, "")
    raw = members.get("requests")
    if raw is None:
        raise BadRequest(
            "The field “requests” is missing: send the list of requests.", "requests", "missing_required_parameter"
        )
    if unknown := next((name for name in members if name != "requests"), ""):
        raise BadRequest(f"A batch has no field “{unknown[:64]}”. Write it into each request.", unknown[:64])
    try:
        found = _requests.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = []
    if not found:
        raise BadRequest("The field “requests” must be a list of at least one request.", "requests")
    if len(found) > MOST_REQUESTS:
        message = f"A batch may have at most {MOST_REQUESTS:,} requests. Make several."
        raise BadRequest(message, "requests")
    return found


def _object(raw: bytes | msgspec.Raw, where: str) -> Mapping[str, msgspec.Raw]:
    """The members of an object, none of which is there twice. Raises BadRequest."""
    try:
        found = _members.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        if where:
            raise BadRequest(f"{where} is no JSON object. {_ONE}", where) from None
        raise BadRequest("The request body must be a JSON object.", None, "invalid_json") from None
    # What the decoder drops takes a colon with it; the values are kept byte by byte.
    if encode(found).count(b":") != bytes(raw).count(b":"):
        message = f"A member of {where or 'the request body'} is there twice. Send it once."
        raise BadRequest(message, where or None, "invalid_json")
    return found


def _line(name: str, params: bytes) -> bytes:
    """A line in the form that batches of all endpoints have here. JSON has line breaks between its values alone."""
    flat = params.replace(b"\r", b" ").replace(b"\n", b" ")
    return b'{"custom_id":%s,"method":"POST","url":"%s","body":%s}\n' % (encode(name), PATH.encode(), flat)


def message_result(custom_id: str, status: int, body: bytes) -> str:
    """The line of a request that was answered: with a message, or an error."""
    found = decode_object(body)
    if status == 200 and found is not None:
        result = {"type": "succeeded", "message": found}
    else:
        if found is None or found.get("type") != "error":
            text = body.decode("utf-8", "replace")[:300] or "The request failed."
            found = error_object(error_type(status, None), text, None, None)
        result = {"type": "errored", "error": found}
    return encode({"custom_id": custom_id, "result": result}).decode()


def missing_result(custom_id: str, code: str, message: str) -> str:
    """The line of a request that was not answered. `code`: why, as `relay.storage.batch_results` has it."""
    kind = {"batch_cancelled": "canceled", "batch_expired": "expired"}.get(code, "")
    if kind:
        return encode({"custom_id": custom_id, "result": {"type": kind}}).decode()
    error = error_object("api_error", message, code, None)
    return encode({"custom_id": custom_id, "result": {"type": "errored", "error": error}}).decode()
