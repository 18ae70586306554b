"""The requests of message batches as lines of a file, and the lines of their results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portal import limits
from relay.protocols.anthropic_messages.batches import PATH, batch_input, message_result, missing_result
from relay.protocols.fields import BadRequest
from relay.storage.batch_input import parse


def _body(count: int, **more: Any) -> bytes:
    params = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}], **more}
    return json.dumps({"requests": [{"custom_id": f"r{one}", "params": params} for one in range(count)]}).encode()


@pytest.mark.parametrize("indent", [None, 2], ids=["one line", "many lines"])
def test_params_reach_the_lines_as_they_are(indent: int | None) -> None:
    params = {"model": "m", "new": [1.50, {"a": "two\nlines\r\u2028é"}]}
    text = json.dumps({"requests": [{"custom_id": "a", "params": params}]}, indent=indent)
    lines, total = batch_input(b"\xef\xbb\xbf" + text.encode())
    found = parse(lines, PATH)
    assert total == 1 and found.errors == () and found.model == "m"
    (line,) = found.lines
    assert (line.custom_id, json.loads(line.body), line.messages) == ("a", params, True)
    assert b"1.5" in line.body


def test_more_members_than_a_request_may_have() -> None:
    count = limits.JSON_MEMBERS // 4
    lines, total = batch_input(_body(count))
    assert total == count and len(parse(lines, PATH).lines) == count


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        (b'"requests": [', b'"requests": [], "requests": [', "requests"),
        (b'"custom_id": "r7"', b'"custom_id": "x", "custom_id": "r7"', "requests[7]"),
        (b'"custom_id": "r7"', b'"custom_id": "r6"', "requests[7].custom_id"),
    ],
)
@pytest.mark.parametrize("count", [10, limits.JSON_MEMBERS // 4], ids=["small", "large"])
def test_what_parsers_would_read_differently_is_refused(count: int, before: bytes, after: bytes, where: str) -> None:
    body = _body(count)
    assert body.count(before) == 1
    with pytest.raises(BadRequest) as caught:
        batch_input(body.replace(before, after))
    assert where in (caught.value.param or caught.value.message) or "the request body" in caught.value.message


def test_a_member_twice_inside_params_fails_its_request_alone_in_a_large_batch() -> None:
    body = _body(limits.JSON_MEMBERS // 4)
    lines, _ = batch_input(body.replace(b'"model": "m"', b'"model": "closed", "model": "m"', 1))
    assert parse(lines, PATH).lines[0].body.count(b'"model"') == 2  # as it was sent: it is read when its turn comes


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b'{"type":"message","content":[]}', "succeeded"),
        (429, b'{"type":"error","error":{"type":"rate_limit_error","message":"m"},"request_id":"r"}', "errored"),
        (502, b"<html>", "errored"),
        (500, b"", "errored"),
        (400, b"[]", "errored"),
    ],
)
def test_a_result(status: int, body: bytes, kind: str) -> None:
    found = json.loads(message_result("a", status, body))
    assert found["custom_id"] == "a" and found["result"]["type"] == kind
    if kind == "succeeded":
        assert found["result"]["message"] == json.loads(body)
    else:
        error = found["result"]["error"]
        assert error["type"] == "error" and error["error"]["type"].endswith("_error") and error["error"]["message"]


def test_a_request_without_an_answer() -> None:
    for code, kind in (("batch_cancelled", "canceled"), ("batch_expired", "expired")):
        assert json.loads(missing_result("a", code, "why")) == {"custom_id": "a", "result": {"type": kind}}
    found = json.loads(missing_result("a", "batch_failed", "why"))["result"]
    assert found["type"] == "errored" and found["error"]["error"]["message"] == "why"
