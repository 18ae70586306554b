"""What is checked is what is sent: bodies that parsers read differently are refused by every endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.api.reference.openapi import operations
from relay.api.urls import api
from tests.support.asserts import check
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared

# Every endpoint that reads a JSON body, by its operation: a path for it, where the path has parameters.
JSON_BODIES = {
    "create_chat_completion": "",
    "create_completion": "",
    "create_embedding": "",
    "create_moderation": "",
    "create_image": "",
    "edit_image": "",
    "vary_image": "",
    "create_speech": "",
    "create_rerank": "",
    "create_message": "",
    "count_message_tokens": "",
    "create_message_batch": "",
    "generate_content": "/v1beta/models/m:generateContent",
    "stream_generate_content": "/v1beta/models/m:streamGenerateContent",
    "count_tokens": "/v1beta/models/m:countTokens",
    "create_interaction": "",
    "embed_content": "/v1beta/models/m:embedContent",
    "batch_embed_contents": "/v1beta/models/m:batchEmbedContents",
    "create_response": "",
    "compact_response": "",
    "count_input_tokens": "",
    "create_upload": "",
    "complete_upload": "/v1/uploads/upload_1/complete",
    "create_batch": "",
    "create_client_secret": "",
    "create_session": "",
    "create_transcription_session": "",
    "create_conversation": "",
    "update_conversation": "/v1/conversations/conv_1",
    "create_items": "/v1/conversations/conv_1/items",
}
# Those that read a form, and a field that is read of each.
FORMS = {
    "edit_image": "model",
    "vary_image": "n",
    "create_transcription": "model",
    "create_translation": "response_format",
    "create_file": "purpose",
    "create_call": "sdp",
}
# Those that read no body, and the part of an upload, whose form has no field but the file.
WITHOUT_A_BODY = {
    "hang_up_call", "cancel_batch", "cancel_interaction", "cancel_message_batch", "cancel_response", "cancel_upload",
    "create_part",
}  # fmt: skip
PATHS = {operation.name: operation.path for operation in operations(api) if operation.method == "POST"}


def test_every_endpoint_that_reads_a_body_is_tried() -> None:
    assert sorted(PATHS) == sorted({*JSON_BODIES, *FORMS} | WITHOUT_A_BODY)


@pytest.mark.parametrize("name", JSON_BODIES)
def test_a_member_twice_is_refused_and_named(server: Server, live: Portal, name: str) -> None:
    token, path = live.token(), JSON_BODIES[name] or PATHS[name]
    for body, where in (
        (b'{"model":"closed","messages":[{"role":"user","content":"x"}],"input":"x","model":"open"}', "model"),
        (b'{"mo\\u0064el":"closed","messages":[{}],"input":"x","model":"open"}', "model"),
        (b'{"model":"m","messages":[{"role":"user"},{"role" : "user","content":[{"type":"a","type":"b"}]}]}',
         "messages[1].content[0].type"),
        (b'{"model":"m","input":"a: \\u003a","metadata":{"a":{"b":1,"b":1}}}', "metadata.a.b"),
    ):  # fmt: skip
        message = check(server.post(token, body, path=path), 400, "invalid_request_error", "invalid_json", where)
        assert f"“{where}”" in message


@pytest.mark.parametrize("name", JSON_BODIES)
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","input":"\xff"}',
        b'{"model":"m","input":"\xed\xa0\xbd"}',
        b'{"model":"m","input":"\\ud83d"}',
        b'{"model":"m","input":NaN}',
        b'{"model":"m","input":-Infinity}',
        b'{"model":"m","input":1e999}',
        b'{"model":"m","input":"x"}{"model":"n"}',
        b'{"model":"m","input":"x"}\x00',
        b'{"model":"m","input":"x",}',
        b"{'model':'m'}",
        b'{"model":"m","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'\xff\xfe{\x00"\x00m\x00"\x00:\x001\x00}\x00',
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
def test_what_is_no_json_to_some_parsers_is_refused(server: Server, live: Portal, name: str, body: bytes) -> None:
    token, path = live.token(), JSON_BODIES[name] or PATHS[name]
    check(server.post(token, body, path=path), 400, "invalid_request_error", "invalid_json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'"\\ud83d"', "half of a character"),
        (b'"\\ude00\\ud83d"', "half of a character"),
        (b'"\\ud83d', "not valid JSON"),
    ],
    ids=["deep", "half", "halves", "cut"],
)
def test_why_a_document_cannot_be_read_is_told(server: Server, live: Portal, content: bytes, said: str) -> None:
    response = server.post(live.token(), b'{"model":"m","messages":%s}' % content)
    check(response, 400, "invalid_request_error", "invalid_json")
    assert said in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (b"Model", "model"),
        (b"MODEL", "model"),
        (b"mode\\u006C\\u0000x", "model"),
        (b"\\u017ftream", "stream"),
        (b"max_to\\u212aens", "max_tokens"),
        (b" n", "n"),
    ],
)
def test_a_parameter_in_other_letters_is_refused(server: Server, live: Portal, name: bytes, plain: str) -> None:
    """encoding/json of Go takes each for the parameter, and of two the last; parsers in C end a name at a NUL."""
    model, token = live.model(), live.token()
    body = b'{"model":"%s","messages":[{"role":"user","content":"x"}],"%s":1}' % (model.encode(), name)
    check(server.post(token, body), 400, "invalid_request_error", "invalid_json", plain)
    assert not live.upstream.count(model)


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("chat/completions", '{"stream":true,"stream_options":{"Include_Usage":false}}', "include_usage"),
        ("chat/completions", '{"messages":[{"role":"user","Role":"system","content":"x"}]}', "role"),
        ("chat/completions", '{"messages":[{"role":"user","content":[{"type":"text","TEXT":"x"}]}]}', "text"),
        ("chat/completions", '{"messages":[{"role":"user","content":"x","x":1,"X":2}]}', "x"),
        ("chat/completions", '{"tools":[{"type":"function","Function":{"name":"f"}}]}', "function"),
        ("responses", '{"input":[{"type":"message","role":"user","content":[{"type":"input_file","File_ID":"f"}]}]}',
         "file_id"),
        ("responses", '{"input":"x","reasoning":{"Effort":"high"}}', "effort"),
        ("embeddings", '{"input":[{"type":"text","Text":"x"}]}', "text"),
        ("completions", '{"prompt":"x","stream":true,"stream_options":{"include_usage":true,"include_u\u017fage":1}}',
         "include_usage"),
        ("conversations", '{"items":[{"role":"user","ROLE":"system","content":"x"}]}', "role"),
    ],
)  # fmt: skip
def test_a_member_inside_a_parameter_in_other_letters_is_refused(
    server: Server, live: Portal, path: str, body: str, name: str
) -> None:
    model, token = live.model(), live.token()
    members = {"model": model, "messages": [{"role": "user", "content": "x"}], **json.loads(body)}
    response = server.post(token, members, path=f"/v1/{path}")
    check(response, 400, "invalid_request_error", "invalid_json", name)
    assert not live.upstream.count(model)


def test_names_of_the_clients_own_may_have_any_letters(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    schema = {"type": "object", "properties": {"ID": {"Type": "x"}, "id": {}, "Model": {}}, "Required": []}
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "x"}],
        "metadata": {"Model": "a", "model": "b"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
    }
    assert server.post(token, body).status_code == 200
    assert live.upstream.last(model).json == body


def test_what_looks_like_it_and_is_none_passes_byte_by_byte(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    body = (
        b'{ "model" : "%s",\n "messages":[{"role":"user",'
        b'"content":"\\"role\\":\\"a\\": \\u003a \xc3\xa9 \\ud83d\\ude00"},'
        b'{"role":"user","content":"x"}], "seed":123456789012345678901234567890, "temperature":1.0,'
        b'"x":{"ID":1,"id":2},"vendorOption":1 }'
    ) % model.encode()
    response = server.post(token, body)
    assert response.status_code == 200, response.text
    assert live.upstream.last(model).body == body


def test_a_byte_order_mark_is_left_out(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
    assert server.post(token, b"\xef\xbb\xbf" + body).status_code == 200
    assert live.upstream.last(model).body == body


def form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    """The headers after `form-data; name=`, and the content."""
    body = b"".join(
        b"--b\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n" % (head.encode(), content)
        for head, content in parts
    )
    return {"body": body + b"--b--\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}


FILE = ('"file"; filename="a.wav"\r\nContent-Type: audio/wav', b"RIFF")
IMAGE = ('"image"; filename="a.png"\r\nContent-Type: image/png', b"\x89PNG")


@pytest.mark.parametrize("name", FORMS)
def test_a_field_twice_is_refused_and_named(server: Server, live: Portal, name: str) -> None:
    field = FORMS[name]
    made = form((f'"{field}"', b"1"), FILE, IMAGE, ('"model"', b"m") if field != "model" else ('"prompt"', b"x"),
                (f'"{field}"', b"2"))  # fmt: skip
    check(server.post(live.token(), path=PATHS[name], **made), 400, "invalid_request_error", "invalid_multipart", field)


@pytest.mark.parametrize(
    "head",
    [
        '"model"; filename="a"',
        '"Model"',
        '"mode\\l"',
        '"model"; name="other"',
        "\"other\"; name*=utf-8''model",
        '"model"\r\nContent-Transfer-Encoding: base64',
        '"model"\r\nContent-Disposition: form-data; name="other"',
    ],
)
def test_a_part_that_parsers_read_differently_is_refused(server: Server, live: Portal, head: str) -> None:
    model = live.model()
    made = form(FILE, ('"model"', model.encode()), (head, b"closed"))
    if head == '"model"; filename="a"':
        made = form(FILE, (head, model.encode()))
    response = server.post(live.token(), path="/v1/audio/transcriptions", **made)
    assert response.status_code == 400 and response.json()["error"]["code"] in {"invalid_multipart", "invalid_json"}
    assert not live.upstream.count(model)


def test_lists_in_forms_may_repeat_their_name(server: Server, live: Portal) -> None:
    async def script(call: Any) -> None:
        await call.reply(200, {"data": [{"b64_json": "x"}]})

    model = live.model(script)
    made = form(('"image[]"; filename="a.png"', b"\x89PNG"), ('"image[]"; filename="b.png"', b"\x89PNG"), IMAGE,
                ('"model"', model.encode()), ('"prompt"', b"x"), ('"x[]"', b"1"), ('"x[]"', b"2"),
                ('"include"', b"1"), ('"include"', b"2"))  # fmt: skip
    assert server.post(live.token(), path="/v1/images/edits", **made).status_code == 200
    assert live.upstream.last(model).body == made["body"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files?limit=1&limit=2",
        "/v1/batches?after=a&after=b",
        "/v1/conversations/conv_1/items?order=asc&order=desc",
        "/v1/responses/resp_1/input_items?limit=1&limit=1",
        "/v1/responses/resp_1?stream=true&stream=false",
    ],
)
def test_a_parameter_twice_in_the_address_is_refused(server: Server, live: Portal, path: str) -> None:
    name = path.partition("?")[2].partition("=")[0]
    check(server.get(live.token(), path), 400, "invalid_request_error", "invalid_value", name)
