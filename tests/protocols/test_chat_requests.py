"""Requests and answers of chat completions: understood or refused, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.chat_completions.answer import parse_chat_answer
from relay.protocols.chat_completions.request import conversation_key, parse_chat_request
from relay.protocols.fields import BadRequest
from tests.support.strategies import FIELDS, JSON_VALUES, TEXT


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS | TEXT, JSON_VALUES, max_size=8))
def test_request_is_understood_or_refused_and_its_other_fields_survive(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    try:
        request = parse_chat_request(body)
    except BadRequest as bad:
        param = bad.param or "model"
        read = param in {"model", "messages", "stream", "stream_options", "n"}
        assert bad.message and (read or "to some parsers only" in bad.message)
        return
    sent = json.loads(request.upstream_body("other-name", True))
    expected = {**json.loads(body), "model": "other-name"}
    if request.stream and not request.include_usage:
        expected["stream_options"] = {**(expected.get("stream_options") or {}), "include_usage": True}
    assert sent == expected


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), JSON_VALUES))
def test_answer_parser_survives_anything(body: bytes) -> None:
    parse_chat_answer(body)
    try:
        parse_chat_request(body)
    except BadRequest:
        pass


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('"prompt_cache_key":"k","user":"u"', "k"),
        ('"previous_response_id":"resp_1","user":"u"', "resp_1"),
        ('"metadata":{"user_id":"m"},"user":"u"', "m"),
        ('"user":"u"', "u"),
        ('"user":null,"metadata":null', ""),
        ('"user":7,"metadata":{"user_id":{}},"prompt_cache_key":[]', ""),
        ('"temperature":1', ""),
    ],
)
def test_what_tells_a_conversation(body: str, expected: str) -> None:
    request = parse_chat_request(f'{{"model":"m","messages":[{{}}],{body}}}'.encode())
    assert conversation_key(request.fields) == expected
