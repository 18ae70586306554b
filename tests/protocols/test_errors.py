"""Error objects of upstreams, in the shapes in which vendors and servers send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.errors import own_words, read_error, read_text


@pytest.mark.parametrize(
    ("body", "message", "words"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, "m", {"t", "c"}),
        ({"error": "m"}, "m", set()),
        ({"code": "Some code", "error": "m"}, "m", {"some code"}),  # xAI
        ({"error": "rate_limited", "message": "m"}, "m", {"rate_limited"}),
        ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, "m", {"badrequesterror", "400"}),
        ({"code": "Throttling.RateQuota", "message": "m", "request_id": "r"}, "m", {"throttling.ratequota"}),
        ({"detail": "m"}, "m", set()),  # FastAPI
        ({"detail": {"code": "c", "message": "m"}}, "m", {"c"}),
        ({"detail": {"error": {"code": "c", "message": "m"}}}, "m", {"c"}),
        ({"detail": [{"loc": ["body"], "msg": "m"}]}, '[{"loc":["body"],"msg":"m"}]', set()),
        ({"code": 401, "msg": "m", "success": False}, "m", {"401"}),  # Zhipu's gateway
        ({"error_code": 18, "error_msg": "m"}, "m", {"18"}),  # Qianfan's first API
        ({"base_resp": {"status_code": 1002, "status_msg": "m"}}, "m", {"1002", "base_resp:1002"}),  # MiniMax
        ({"success": False, "errors": [{"code": 10000, "message": "m"}]}, "m", {"10000"}),  # Cloudflare
        ({"errors": {"role": ["m"]}}, '{"role":["m"]}', set()),
        ({"Response": {"Error": {"Code": "AuthFailure", "Message": "m"}}}, "m", {"authfailure"}),  # Tencent Cloud
        (
            {"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}},
            "m",
            {"c", "response.failed"},
        ),
        ({"statusCode": 400, "error": "Bad Request", "message": "m"}, "m", set()),  # NestJS
        ({"timestamp": "x", "status": 404, "error": "Not Found", "path": "/x"}, "Not Found", {"404"}),  # Spring
        (
            {"error": {"message": "m", "metadata": {"error_type": "t", "raw": '{"code":"x"}', "reason": "y"}}},
            "m",
            {"t"},
        ),
        ({"error": {"message": "m", "param": "p", "input": "i", "name": "n"}}, "m", set()),
    ],
)
def test_shapes_of_errors(body: dict[str, Any], message: str, words: set[str]) -> None:
    error = read_error(json.dumps(body).encode())
    assert error is not None and (error.message, set(error.words)) == (message, words)


def test_a_body_that_is_a_sentence() -> None:
    """As axum, which Rust servers are written with, refuses a body."""
    error = read_text(b"Failed to deserialize the JSON body: messages[0].role: unknown variant `x`, expected `user`")
    assert error is not None and error.message.endswith("expected `user`") and not error.words
    assert error.own == "Failed to deserialize the JSON body: messages…"
    for body in (b"", b" ", b"<html>", b'{"a":1}', b"[1]", b"\xff\xfe", b"x" * 5000):
        assert read_text(body) is None


def test_an_error_as_an_event() -> None:
    """As DashScope answers a request for a stream that it refuses."""
    body = b'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"InvalidParameter","message":"m"}\n\n'
    error = read_error(body)
    assert error is not None and (error.message, error.code) == ("m", "InvalidParameter")
    assert read_error(b"event: error\n\n") is None and read_error(b": nothing") is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"base_resp": {"status_code": 0, "status_msg": "success"}, "choices": []},
        {"errors": []},
        {"errors": None, "data": 1},
    ],
)
def test_what_is_no_error(body: dict[str, Any]) -> None:
    assert read_error(json.dumps(body).encode()) is None


@pytest.mark.parametrize(
    ("message", "own"),
    [
        ("Rate limit reached for gpt-5. Try again in 6s.", "Rate limit reached for gpt-5. Try again in 6s."),
        (
            "Invalid value: 'x'.",
            "Invalid value: ….",
        ),
        ("unknown variant `x`, expected one of `a`, `b` at line 1", "unknown variant … at line 1"),
        ("unknown variant `x` try again `y`, expected `a` at line 1", "unknown variant … at line 1"),
        ('Unexpected role "x\' y". See the docs.', "Unexpected role …. See the docs."),
        ("Role “x” is unknown", "Role … is unknown"),
        ("参数「x」不合法", "参数…不合法"),
        ("Bad input: {'role': 'x', 'n': [1]} (1 error)", "Bad input: … (1 error)"),
        ("Item ['x'] not found.", "Item … not found."),
        ("This model's limit is 4096. You can't.", "This model's limit is 4096. You can't."),
        ("The tokens' limit is reached.", "The tokens' limit is reached."),
        ("It was cut: 'x and then", "It was cut: …"),
        ("  two\n lines ", "two lines"),
        ("", ""),
    ],
)
def test_what_an_upstream_says_in_its_own_words(message: str, own: str) -> None:
    assert own_words(message) == own


def test_a_message_of_marks_takes_no_time() -> None:
    assert own_words("a '" * 20_000) == "a …"


def test_no_member_of_an_error_names_a_host_or_a_key() -> None:
    error = read_error(
        b'{"error":{"message":"m","type":"https://a.internal/x","code":"sk-abcdefghijklmnop","param":"10.1.2.3:80"}}'
    )
    assert error is not None
    assert (error.type, error.code, error.param) == ("[link removed]", "[redacted key]", "[address]")
    kept = read_error(b'{"error":{"message":"m","type":"invalid_request_error","param":"messages[0].content.0.image"}}')
    assert kept is not None and (kept.type, kept.param) == ("invalid_request_error", "messages[0].content.0.image")
    long = read_error(b'{"error":{"message":"m","type":"%b","param":"%b"}}' % (b"t" * 9000, b"p" * 9000))
    assert long is not None and len(long.type) <= 64 and len(long.param or "") <= 200
