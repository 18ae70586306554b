"""What clients of AIRelays 0.22 and 0.2.5 were seen to get, of the real server on a mocked issuer and plan.

Each row of that observation is a function here, by its number. Where the portal differs on purpose, its docstring says
why. Rows of commands are in `test_conformance_commands.py`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.portal.airelays.personal import Relay
from tests.support.peers.plans.chatgpt import hello
from tests.support.peers.plans.people import events_of

Row = Callable[[Relay], None]
ROWS: dict[int, Row] = {}
RELAY = {"AIRELAYS_MAX_UPLOAD_BYTES": "4000000"}
TEXT = base64.b64encode(b"hello").decode()
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def row(*numbers: int) -> Callable[[Row], Row]:
    def note(function: Row) -> Row:
        for number in numbers:
            ROWS[number] = function
        return function

    return note


def plain(relay: Relay, path: str = "/v1/models", **headers: str) -> httpx.Response:
    return httpx.get(relay.server.url + path, headers=headers, trust_env=False, timeout=30, follow_redirects=True)


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def file_of(relay: Relay, name: str, content: bytes, kind: str, **fields: str) -> Any:
    form = {"files": {"file": (name, content, kind)}, "data": {"purpose": "user_data", **fields}}
    return relay.server.request("POST", relay.token, "/v1/files", **form)


def with_part(relay: Relay, **part: Any) -> Any:
    return relay.respond(input=[{"role": "user", "content": [part]}])


def sent_part(relay: Relay) -> dict[str, Any]:
    found: dict[str, Any] = relay.sent["input"][0]["content"][0]
    return found


@row(2)
def front_page(relay: Relay) -> None:
    """The front page is the portal, which asks to sign in."""
    answer = plain(relay, "/")
    assert answer.status_code == 200 and "text/html" in answer.headers["content-type"]


@row(3)
def no_token(relay: Relay) -> None:
    error = plain(relay).json()["error"]
    assert plain(relay).status_code == 401
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


@row(5)
def scheme_in_lower_case(relay: Relay) -> None:
    assert plain(relay, authorization=f"bearer {relay.token}").status_code == 200


@row(6)
def x_api_key(relay: Relay) -> None:
    """It is a place for the token: clients of Anthropic's API have no other."""
    assert plain(relay, **{"x-api-key": relay.token}).status_code == 200


@row(8, 9)
def blocked(relay: Relay) -> None:
    """A valid token works from a blocked address: behind one address there may be many people."""
    assert [plain(relay).status_code for _ in range(9)][-1] == 429
    assert code_of(plain(relay)) == (429, "ip_temporarily_blocked")
    assert plain(relay, authorization=f"Bearer {relay.token}").status_code == 200
    assert plain(relay, "/healthz").status_code == 200
    relay.home("manage", "shell", "-c", "from relay.models import BlockedAddress as b; b.objects.all().delete()")
    relay.server.catch_up()


@row(26)
def models(relay: Relay) -> None:
    """Models that the plan hides are not listed, and `created` is a time, as SDKs expect."""
    listed = {one["id"]: one["object"] for one in relay.server.get(relay.token, "/v1/models").json()["data"]}
    assert listed.items() >= {("gpt-5.5", "model"), ("gpt-5.4-mini", "model")}


@row(27)
def models_are_kept(relay: Relay) -> None:
    """They are read at the sign-in, by a job, and by a button; `?refresh=true` asks nobody."""
    for query in ("", "?refresh=true"):
        assert relay.server.get(relay.token, f"/v1/models{query}").status_code == 200
    assert relay.chatgpt.count("/models") == 0


@row(29)
def unknown_model(relay: Relay) -> None:
    assert code_of(relay.server.get(relay.token, "/v1/models/nope")) == (404, "model_not_found")


@row(30)
def unknown_model_in_a_request(relay: Relay) -> None:
    answer = relay.respond(CHAT, model="gpt-4o")
    assert code_of(answer) == (404, "model_not_found") and "gpt-5.5" in answer.json()["error"]["message"]
    assert relay.chatgpt.count("/responses") == 0


@row(32)
def body_upstream(relay: Relay) -> None:
    """The form that OpenAI supports demands neither instructions nor tools; the older one has both."""
    assert relay.respond(CHAT).status_code == 200
    assert relay.sent["store"] is False and relay.sent["stream"] is True
    assert relay.sent["input"][0]["content"][0] == {"type": "input_text", "text": "Hi"}


@row(33)
def headers_upstream(relay: Relay) -> None:
    """The portal presents itself under its own name, and as nobody else's `originator`."""
    assert relay.respond(CHAT).status_code == 200
    headers = relay.chatgpt.seen[-1]["headers"]
    assert headers["authorization"].removeprefix("Bearer ") in relay.chatgpt.valid
    assert "originator" not in headers and headers["user-agent"].startswith("airelays-portal")


@row(35)
def sampling_of_chat(relay: Relay) -> None:
    given = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.2}
    answer = relay.respond(CHAT, **given)
    assert answer.status_code == 200, answer.text
    assert set(answer.headers["x-airelays-ignored-parameters"].split(",")) == given.keys()
    assert not given.keys() & relay.sent.keys()


@row(36)
def unknown_parameter(relay: Relay) -> None:
    answer = relay.respond(CHAT, **{"foo bar": 1})
    assert "foo%20bar" in answer.headers["x-airelays-ignored-parameters"] and "foo bar" not in relay.sent


@row(38, 39)
def limits_of_the_output(relay: Relay) -> None:
    """As the FAQ has it; `PLAN_OUTPUT_LIMITS=forward` is what 0.22 did."""
    for path, name in ((RESPONSES, "max_output_tokens"), (CHAT, "max_completion_tokens")):
        answer = relay.respond(path, **{name: 50})
        assert answer.status_code == 422
        assert f"does not currently support `{name}` on `{path}`." in answer.json()["error"]["message"]


@row(41)
def no_tokens_at_all(relay: Relay) -> None:
    """`max_tokens` of chat is left out over a plan, whatever it is: nothing would honour it."""
    assert relay.respond(CHAT, max_tokens=0).headers["x-airelays-ignored-parameters"] == "max_tokens"


@row(42)
def stop(relay: Relay) -> None:
    """The portal ends the answer there itself."""
    answer = relay.respond(CHAT, stop="Ada")
    assert answer.status_code == 200 and "stop" not in relay.sent
    assert answer.json()["choices"][0]["message"]["content"] == "Hello "
    assert relay.respond(CHAT, stop=[]).status_code == 200


@row(44)
def no_object(relay: Relay) -> None:
    for body in (b"{bad", b"[]"):
        assert relay.server.post(relay.token, body).status_code == 400


@row(45)
def no_messages(relay: Relay) -> None:
    """400, as OpenAI's API answers."""
    assert relay.server.post(relay.token, {"model": "gpt-5.5"}).status_code == 400


def call_of(arguments: str = '{"city":"Paris"}') -> list[dict[str, Any]]:
    events = hello("gpt-5.5", "resp_1")
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "status": "completed"}
    return [
        *events[:2],
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": arguments},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "arguments": arguments}},
        events[-1],
    ]


@row(47)
def tool_call(relay: Relay) -> None:
    relay.chatgpt.events = call_of()
    answer = relay.respond(CHAT, tools=[TOOL])
    (choice,) = answer.json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    assert call["id"] == "call_1" and json.loads(call["function"]["arguments"]) == {"city": "Paris"}


@row(48)
def tool_loop(relay: Relay) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert relay.respond(CHAT, messages=messages, tools=[TOOL]).status_code == 200
    sent = [item["type"] for item in relay.sent["input"]]
    assert sent == ["additional_tools", "message", "function_call", "function_call_output"]


@row(50)
def no_tools(relay: Relay) -> None:
    """There are no such routes: a client that wants no tools names none."""
    assert relay.server.post(relay.token, {}, "/no-tools/v1/chat/completions").status_code == 404


@row(51)
def strict_schema(relay: Relay) -> None:
    """A schema is sent as the client gave it, and OpenAI says what is not strict in it: nothing is made nullable."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    format_ = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert relay.respond(CHAT, response_format=format_).status_code == 200
    assert relay.sent["text"]["format"] == {"type": "json_schema", "name": "x", "strict": True, "schema": schema}


@row(53)
def usage_of_a_stream(relay: Relay) -> None:
    answer = relay.respond(CHAT, stream=True, stream_options={"include_usage": True})
    chunks = events_of(answer.text)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["prompt_tokens"] == 9
    assert all(chunk.get("usage") is None for chunk in chunks[:-1]) and answer.text.endswith("data: [DONE]\n\n")


@row(54)
def used_up(relay: Relay) -> None:
    error = {"type": "usage_limit_reached", "message": "x", "resets_in_seconds": 7200}
    relay.chatgpt.answers["/responses"] = (429, json.dumps({"error": error}).encode())
    answer = relay.respond(CHAT, stream=True)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "7200"
    assert answer.headers["content-type"] == "application/json"


@row(56)
def ends_early(relay: Relay) -> None:
    """502, with the code that the portal has for it at each upstream."""
    relay.chatgpt.events = hello("gpt-5.5", "resp_1")[:5]
    assert relay.respond(CHAT).status_code == 502


@row(57)
def refused_twice(relay: Relay) -> None:
    relay.chatgpt.reject_access = True
    assert code_of(relay.respond(CHAT)) == (503, "upstream_auth_rejected")
    assert relay.chatgpt.count("/oauth/token") == 1


@row(62)
def incomplete(relay: Relay) -> None:
    for reason, finish in (("max_output_tokens", "length"), ("content_filter", "content_filter")):
        *events, last = hello("gpt-5.5", "resp_1")
        whole = {**last["response"], "status": "incomplete", "incomplete_details": {"reason": reason}}
        relay.chatgpt.events = [*events, {"type": "response.incomplete", "response": whole}]
        assert relay.respond(CHAT).json()["choices"][0]["finish_reason"] == finish


@row(63)
def whole_response(relay: Relay) -> None:
    found = relay.respond().json()
    assert found["output"][0]["content"][0]["text"] == "Hello Ada." and found["usage"]["total_tokens"] == 13


@row(65)
def sampling_of_responses(relay: Relay) -> None:
    answer = relay.respond(temperature=0.5)
    assert answer.headers["x-airelays-ignored-parameters"] == "temperature" and "temperature" not in relay.sent


@row(66, 68, 69)
def inline_files(relay: Relay) -> None:
    address = {"type": "input_file", "file_url": "https://example.org/a.pdf"}
    assert with_part(relay, **address).status_code == 200 and sent_part(relay) == address
    assert with_part(relay, type="input_file", filename="a.txt", file_data=TEXT).status_code == 200
    assert sent_part(relay)["file_data"] == f"data:text/plain;base64,{TEXT}"
    for more in ({}, {"filename": "a.zzzzzz"}):
        assert with_part(relay, type="input_file", file_data=TEXT, **more).status_code == 422


@row(71)
def fields_of_an_upload(relay: Relay) -> None:
    """400, as OpenAI's API answers; `expires_after` is honoured."""
    assert file_of(relay, "a.txt", b"x", "text/plain", purpose="foo").status_code == 400


@row(72)
def too_large(relay: Relay) -> None:
    before = len(relay.server.get(relay.token, "/v1/files").json()["data"])
    assert file_of(relay, "a.txt", bytes(4_000_001), "text/plain").status_code == 413
    assert len(relay.server.get(relay.token, "/v1/files").json()["data"]) == before


@row(74, 75)
def uploaded_files(relay: Relay) -> None:
    pdf = file_of(relay, "a.pdf", b"hello", "application/pdf").json()["id"]
    assert with_part(relay, type="input_file", file_id=pdf).status_code == 200
    data = f"data:application/pdf;base64,{TEXT}"
    assert sent_part(relay) == {"type": "input_file", "filename": "a.pdf", "file_data": data}
    image = file_of(relay, "a.png", PNG, "image/png").json()["id"]
    assert with_part(relay, type="input_image", file_id=image).status_code == 200
    assert sent_part(relay)["image_url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@row(77)
def unknown_file(relay: Relay) -> None:
    assert with_part(relay, type="input_file", file_id="file_unknown").status_code == 422


@row(78)
def file_as_text(relay: Relay) -> None:
    """A text has no `file_id` in OpenAI's API, and is never made of a file."""
    name = file_of(relay, "a.txt", b"x" * 2_000_000, "text/plain").json()["id"]
    assert with_part(relay, type="input_text", file_id=name).status_code == 422


@row(80)
def deleted_file(relay: Relay) -> None:
    name = file_of(relay, "a.txt", b"deleted", "text/plain").json()["id"]
    assert relay.server.request("DELETE", relay.token, f"/v1/files/{name}").json()["deleted"] is True
    assert relay.server.get(relay.token, f"/v1/files/{name}").status_code == 404
    kept = (path for path in (relay.home.data / "uploads").rglob("*") if path.is_file())
    assert b"deleted" not in [path.read_bytes() for path in kept]


@row(81)
def pages_of_files(relay: Relay) -> None:
    ids = [file_of(relay, "a.txt", b"x", "text/plain").json()["id"] for _ in range(3)]
    first = relay.server.get(relay.token, "/v1/files?limit=2").json()
    assert first["has_more"] and [one["id"] for one in first["data"]] == [ids[2], ids[1]]
    rest = relay.server.get(relay.token, f"/v1/files?after={first['last_id']}").json()
    assert rest["data"][0]["id"] == ids[0]


@row(83)
def conversation(relay: Relay) -> None:
    """The plan is sent no `session_id`: it is none of the supported form's headers."""
    made = relay.server.post(relay.token, {}, "/v1/conversations").json()["id"]
    for said in ("One", "Two"):
        assert relay.respond(input=said, conversation=made).status_code == 200
    assert [item.get("role") for item in relay.sent["input"]] == ["user", "assistant", "user"]


@row(84)
def unknown_conversation(relay: Relay) -> None:
    assert relay.server.get(relay.token, "/v1/conversations/conv_none").status_code == 404


@row(86, 87)
def state_of_the_relay(relay: Relay) -> None:
    """It is told by `airelays status --json` and the admin, and not to every client: clients read `/v1/usage`."""
    assert relay.respond().status_code == 200
    assert relay.server.get(relay.token, "/v1/relay/status").status_code == 404
    state = relay.home.json("status")["auth"]["sign_ins"][0]
    assert state["ready_for_requests"] and state["plan_type"] == "plus"
    assert state["windows"]["primary"]["label"] == "5h"


@row(93)
def request_ids(relay: Relay) -> None:
    """Every answer of an API: pages and probes have no receipt that the id would lead to."""
    for path in ("/v1/models", "/v1/nope", "/v1/files", "/v1beta/models"):
        for token in (relay.token, "sk-wrong"):
            answer = plain(relay, path, authorization=f"Bearer {token}")
            assert answer.headers["x-request-id"].startswith("req_"), path


@pytest.mark.parametrize("number", sorted(ROWS))
def test_row(number: int, relay: Relay) -> None:
    ROWS[number](relay)
