"""Files that are no batch, and lines that fail alone."""

from __future__ import annotations

import json

import pytest

from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.fields import BadRequest
from relay.storage.batch_input import parse, refusal

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"), (b"{", "invalid_json_line"), (b"[]", "invalid_json_line"),
        (b'{"method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}', "missing_custom_id"),
        (b'{"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{"model":"m"}}', "invalid_method"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m"}}', "mismatched_endpoint"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions"}', "missing_body"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":null}', "missing_body"),
    ],
)  # fmt: skip
def test_files_that_are_no_batch(content: bytes, code: str) -> None:
    found = parse(content, "/v1/chat/completions")
    assert [entry["code"] for entry in found.errors] == [code]


LINE = b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":%s}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"\\ud83d"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\xf0\x9f"}]}',
        b'{"model":"closed","messages":[{"role":"user"}],"model":"open"}',
        b'{"model":"m","messages":[{}],"seed":NaN}',
        b'{"model":"m","messages":[{}],}',
        b'{"model":"m","messages":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'"{\\"model\\":\\"m\\"}"',
        b"[1]",
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_a_line_whose_body_is_wrong_fails_alone(body: bytes) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join((LINE % (b"a", b'{"model": "m"}'), LINE % (b"b", body)))
    found = parse(content, "/v1/chat/completions")
    assert found.errors == () and [line.custom_id for line in found.lines] == ["a", "b"]
    assert found.lines[0].body == b'{"model": "m"}' and found.model == "m"
    with pytest.raises(BadRequest) as caught:
        parse_chat_request(found.lines[1].body)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("name", ["stream", "background"])
def test_a_line_that_no_batch_can_make_fails_alone(name: str) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"%s":true}' % name.encode()
    found = parse(LINE % (b"a", body), "/v1/chat/completions")
    assert found.errors == ()
    assert json.loads(refusal(found.lines[0].body))["error"]["param"] == name
    assert refusal(body.replace(b"true", b"false")) == b""


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace(b'"method"', b'"custom_id":"x","method"') % (b"a", b'{"model":"m"}'),
        LINE.replace(b'"method"', b'"bod\\u0079":{"model":"n"},"method"') % (b"a", b'{"model":"m"}'),
        LINE % (b"a", b'{"model":"m"'),
        LINE % (b"a", b'{"model":"m"}}'),
        LINE % (b"a", b'{"a": }, "body":{"model":"m"}'),
        LINE.replace(b'"method"', b"method") % (b"a", b'{"a": }'),
        LINE.replace(b'"POST"', b"POST") % (b"a", b'{"a": }'),
        (LINE % (b"a", b'{"model":"m"}')).decode().encode("utf-16"),
    ],
)
def test_a_line_that_could_be_read_differently_fails_the_batch(line: bytes) -> None:
    found = parse(line, "/v1/chat/completions")
    assert [(entry["code"], entry["line"]) for entry in found.errors] == [("invalid_json_line", 1)]
