"""Requests and answers of chat completions: understood or refused, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal import limits
from portal.lib.json import Json
from relay.protocols.chat_completions.answer import parse_chat_answer
from relay.protocols.chat_completions.request import conversation_key, parse_chat_request
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.contract import Dialect
from relay.protocols.fields import BadRequest
from relay.protocols.responses.request import UpstreamTarget, parse_responses_request
from relay.protocols.responses.upstream import ResponsesUpstream
from tests.support.strategies import FIELDS, JSON_VALUES, TEXT


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS | TEXT, JSON_VALUES, max_size=8))
def test_request_is_understood_or_refused_and_its_other_fields_survive(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    try:
        request = parse_chat_request(body)
    except BadRequest as bad:
        param = (bad.param or "model").partition(".")[0]
        read = param in {"model", "messages", "stream", "stream_options", "n"}
        known = "to some parsers only" in bad.message or "account at the upstream" in bad.message
        assert bad.message and (read or known)
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


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ({"n_predict": -1, "max_tokens": 10}, 10),  # llama.cpp takes n_predict before max_tokens
        ({"n_predict": 9000, "max_tokens": 10}, 10),
        ({"n_predict": 20}, 20),
        ({"n_predict": 0, "max_new_tokens": 5}, 0),
        ({"n_predict": -1}, None),
        ({"n_predict": None, "max_length": 30}, 30),
        ({"max_new_tokens": 30, "num_predict": 20, "max_gen_len": 25}, 20),
        ({"max_length": 30, "n_predict": -1}, None),
        ({"max_tokens_to_sample": "all"}, None),
        ({"max_output_tokens": 40}, 40),
        ({"maxOutputTokens": 40, "maxTokens": 60}, 40),
        ({"max_tokens_to_generate": 50, "maximum_tokens": 60, "tokens_to_generate": 70}, 50),
    ],
)
def test_an_output_limit_has_one_name(members: dict[str, Any], limit: int | None) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **members}).encode()
    request = parse_chat_request(body)
    assert request.output_limit == limit
    sent = json.loads(request.upstream_body("m", False))
    assert {name: value for name, value in sent.items() if "max" in name or "predict" in name} == (
        {"max_tokens": limit} if limit is not None else {}
    )
    body = json.dumps({"model": "m", "input": "x", **members}).encode()
    response = parse_responses_request(body)
    assert response.output_limit == (None if members.get("n_predict") == -1 else limit)
    others = {name for name in response.fields if "max" in name.lower() or "predict" in name}
    assert others <= {"max_output_tokens"}


@pytest.mark.parametrize("name", ["min_tokens", "min_new_tokens", "min_length", "minTokens"])
def test_no_least_length_is_above_the_limit(name: str) -> None:
    """An upstream may keep to the one or the other."""
    messages = [{"role": "user", "content": "x"}]
    for members, clamp, kept in (
        ({name: 900, "max_tokens": 100}, None, False),
        ({name: 90, "max_tokens": 100}, None, True),
        ({name: 90, "max_tokens": 100}, 50, False),
        ({name: 90}, None, True),
        ({name: 90}, 50, False),
        ({name: "many", "max_tokens": 100}, None, False),
    ):
        body = json.dumps({"model": "m", "messages": messages, **members}).encode()
        sent = json.loads(parse_chat_request(body).upstream_body("m", False, clamp))
        assert (name in sent, sent.get("max_tokens")) == (kept, clamp or members.get("max_tokens")), members
        members = {"max_output_tokens" if one == "max_tokens" else one: value for one, value in members.items()}
        request = parse_responses_request(json.dumps({"model": "m", "input": "x", **members}).encode())
        sent = json.loads(request.upstream_body(UpstreamTarget("m", True, clamp), request.fields, None))
        assert (name in sent, sent.get("max_output_tokens")) == (kept, clamp or members.get("max_output_tokens"))


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (None, 48),
        (0, 0),
        (5, 5),
        (5.0, 5),
        (48, 48),
        (49, 48),
        (-1, 48),
        (1e300, 48),
        (True, 48),
        ("5", 48),
        ([], 48),
    ],
)
def test_what_can_be_paid_for_never_raises_a_limit(asked: object, sent: int) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": asked}
    body = json.loads(parse_chat_request(json.dumps(chat).encode()).upstream_body("m", False, 48, "max_tokens"))
    assert body["max_tokens" if asked is None else "max_completion_tokens"] == sent
    both = parse_chat_request(json.dumps({**chat, "max_tokens": 100}).encode())
    assert json.loads(both.upstream_body("m", False, 48))["max_tokens"] == 48
    response = {"model": "m", "input": "x", "max_output_tokens": asked}
    request, target = parse_responses_request(json.dumps(response).encode()), UpstreamTarget("m", False, 48, "")
    assert json.loads(request.upstream_body(target, request.fields, None))["max_output_tokens"] == sent
    for upstream, field in ((ChatUpstream(), "max_completion_tokens"), (ResponsesUpstream(), "max_output_tokens")):
        converted: Json = {} if asked is None else {field: asked}
        upstream.limit(converted, 48, Dialect())
        assert converted[field] == sent


@pytest.mark.parametrize(
    ("members", "sent"),
    [
        ({}, {}),
        ({"num_images": 4}, {"n": 4}),
        ({"batch_size": 4, "num_return_sequences": 7, "samples": None}, {"n": 7}),
        ({"n": None, "candidateCount": 2}, {"n": 2}),
        ({"n": 2, "num_images": 4}, {"n": 2, "num_images": 4}),  # channels' rules leave it out
        ({"num_images": "many"}, {"num_images": "many"}),
    ],
)
def test_the_number_of_answers_has_one_name(members: dict[str, Any], sent: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **members}).encode()
    request = parse_chat_request(body)
    assert request.choices == sent.get("n", 1)
    found = json.loads(request.upstream_body("m", False))
    assert {name: value for name, value in found.items() if name not in ("model", "messages")} == sent


@pytest.mark.parametrize(
    ("members", "known"),
    [
        ({}, True),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}, True),
        ({"tools": [{"type": "web_search"}]}, False),
        ({"tools": {"type": "web_search"}}, False),
        ({"web_search_options": {}}, False),
        ({"plugins": [{"id": "web"}]}, False),
        ({"messages": [{"role": "user", "content": 'they wrote "file_url": "x"'}]}, True),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://a/b"}}]}]},
            False,
        ),
    ],
)
def test_what_adds_to_a_prompt_is_told(members: dict[str, Any], known: bool) -> None:
    values = {"model": "m", "messages": [{"role": "user", "content": "x"}], **members}
    assert parse_chat_request(json.dumps(values).encode()).at_most(7) == (7 if known else None)
    values["input"] = values.pop("messages")
    values.pop("plugins", None)
    if "plugins" not in members:
        assert parse_responses_request(json.dumps(values).encode()).at_most(7) == (7 if known else None)


_SMALL = b'{"model":"m","messages":[{"role":"user","content":"%b"}],"tools":[%b],"x":[%b]%b}'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            _SMALL % (b"", b"{" + b",".join(b'"%d":1' % n for n in range(limits.JSON_MEMBERS)) + b"}", b"", b""),
            "members",
        ),
        (_SMALL % (b"", b"", b",".join([b"0"] * limits.JSON_VALUES), b""), "items"),
        (_SMALL % (b"", b"", b",".join([b"{}"] * (limits.JSON_VALUES // 2)), b""), "items"),
        (_SMALL % (b"", b"", b",".join([b'"",0'] * limits.JSON_VALUES), b""), "items"),
        (_SMALL % (b"", b"", b"", b"".join(b',"f%d":1' % n for n in range(limits.JSON_FIELDS))), "fields"),
    ],
)
def test_more_members_and_items_than_any_request_has_are_refused_unread(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        parse_chat_request(body)


def test_long_texts_and_lists_of_tokens_are_read() -> None:
    text = b'a, b: [c, {d}]\\n \\"e\\", f' * (limits.JSON_VALUES // 2)
    parse_chat_request(_SMALL % (text, b"", b"", b""))
    parse_chat_request(_SMALL % (b"", b"", b",".join([b"1000"] * 300_000), b""))
