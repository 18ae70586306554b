"""Files that are no batch, and lines that fail alone."""

from __future__ import annotations

import json

import pytest

from portal import limits
from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.fields import BadRequest
from relay.storage.batch_input import BatchInputLine, parse, refusal

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
    refused = refusal(found.lines[0])
    assert refused is not None and refused[0] == 422 and json.loads(refused[1])["error"]["param"] == name
    assert refusal(BatchInputLine(1, "a", body.replace(b"true", b"false"))) is None


def _with(member: bytes, body: bytes = b'{"model":"m"}') -> bytes:
    return b"\n".join(
        (LINE % (b"a", b'{"model":"m"}'), LINE.replace(b'"method"', member + b',"method"') % (b"b", body))
    )


@pytest.mark.parametrize(
    "member",
    [
        b'"dc:title":"x"',
        b'"a\\u003ab":1,"c":2',
        b'"":1',
        b'"params":{"a":1,"a":2}',
        b'"note":"{\\":\\","',
        b'"x:y":[{"custom_id":"c"},"}"]',
    ],
)
def test_a_line_may_have_members_of_the_clients_own(member: bytes) -> None:
    found = parse(_with(member), "/v1/chat/completions")
    assert found.errors == ()
    assert [(line.custom_id, line.body, line.model, line.wrong) for line in found.lines] == [
        (name, b'{"model":"m"}', "m", "") for name in ("a", "b")
    ]


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (b'"note":1,"note":2', "the member “note” twice"),
        (b'"a:b":1,"a\\u003ab":2', "the member “a:b” twice"),
        (b'"a\\u003ab":1,"x":1,"x":2', "the member “x” twice"),
        (b'"note":"\\ud83d"', "“note” of this line is no JSON"),
        (b'"note":nan', "“note” of this line is no JSON"),
        (b'"many":[' + b"0," * limits.JSON_VALUES + b"0]", "more than 100,000 members or 400,000 items"),
    ],
    ids=lambda text: text[:40] if isinstance(text, str) else text[:40].decode(),
)
def test_a_line_whose_own_members_are_wrong_fails_alone_and_says_why(member: bytes, why: str) -> None:
    found = parse(_with(member), "/v1/chat/completions")
    assert found.errors == () and found.lines[0].wrong == "" and found.lines[1].custom_id == "b"
    refused = refusal(found.lines[1])
    assert refused is not None and refused[0] == 400
    told = json.loads(refused[1])["error"]
    assert why in told["message"] and told["code"] == "invalid_json"


def test_a_line_whose_body_has_too_much_fails_alone() -> None:
    body = b'{"model":"m","input":[' + b"0," * limits.JSON_VALUES + b"0]}"
    found = parse(_with(b'"note":1', body), "/v1/chat/completions")
    assert found.errors == () and "400,000 items" in found.lines[1].wrong and found.lines[1].body == b""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (LINE.replace(b'"method"', b'"custom_id":"x","method"') % (b"a", b"{}"), "the member “custom_id” twice"),
        (LINE % (b"a", b'{"model":"m"}, "body":{}'), "the member “body” twice"),
        (b"nonsense", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"{} # " + b"," * limits.JSON_VALUES + b",", "400,000 items"),
    ],
    ids=lambda text: text[:60] if isinstance(text, str) else text[:60].decode(),
)
def test_what_fails_the_batch_is_told_as_it_is(line: bytes, why: str) -> None:
    (told,) = parse(line, "/v1/chat/completions").errors
    assert why in str(told["message"]) and told["code"] == "invalid_json_line"


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
