"""/v1/responses and /v1/conversations: over channels of either kind, kept, gone on from, private."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.conftest import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion, hello

USED = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 16}


def response(number: int, text: str, **more: Any) -> dict[str, Any]:
    item = {
        "id": f"msg_{number}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }
    return {
        "id": f"resp_{number:032x}", "object": "response", "created_at": 1700000000, "status": "completed", "error": None, "incomplete_details": None, "instructions": None,
        "model": "u", "output": [item], "parallel_tool_calls": True, "tools": [], "tool_choice": "auto", "metadata": {}, "temperature": 1.0, "top_p": 1.0, "usage": USED,
        "text": {"format": {"type": "text"}}, "previous_response_id": None, **more,
    }  # fmt: skip


class Upstream:
    """Speaks responses natively, and remembers what it was asked. `forgets`: it does not know earlier responses."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.forgets = False

    async def __call__(self, call: Call) -> None:
        if call.method == "DELETE":
            self.deleted.append(call.path.rpartition("/")[2])
            await call.reply(200, {"deleted": True})
            return
        assert call.path == "/v1/responses", call.path
        body = call.json
        self.asked.append(body)
        if self.forgets and body.get("previous_response_id"):
            await call.reply(
                400, {"error": {"message": "Previous response not found.", "type": "invalid_request_error", "param": "previous_response_id", "code": "previous_response_not_found"}}
            )
            return
        number = int(time.time_ns()) % 10**12
        answer = response(number, f"answer {len(self.asked)}", metadata=body.get("metadata") or {})
        if not body.get("stream"):
            await call.reply(200, answer)
            return
        await call.open_stream()
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": {**answer["output"][0], "content": [], "status": "in_progress"}},
            {"type": "response.content_part.added", "output_index": 0, "content_index": 0, "item_id": answer["output"][0]["id"],
             "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []}},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": answer["output"][0]["id"], "delta": "answer", "logprobs": []},
            {"type": "response.output_item.done", "output_index": 0, "item": answer["output"][0]},
            {"type": "response.completed", "response": {**answer, "output": []}},  # as some do
        ]  # fmt: skip
        for number, event in enumerate(events):
            await call.event({**event, "sequence_number": number})
        await call.end()


@pytest.fixture
def sdk(server: Server, live: Portal) -> Iterator[OpenAI]:
    client = OpenAI(base_url=server.url + "/v1", api_key=live.token(), max_retries=0, timeout=30)
    server.catch_up()
    yield client
    client.close()


@pytest.fixture
def native(live: Portal, server: Server) -> tuple[str, Upstream]:
    upstream = Upstream()
    model = live.model(upstream)
    server.catch_up()
    return model, upstream


@pytest.fixture
def chat_only(live: Portal, server: Server) -> str:
    """A model whose upstream speaks chat alone."""

    async def script(call: Call) -> None:
        assert call.path == "/v1/chat/completions"
        await hello(call)

    model = live.model(script, text_api="chat")
    server.catch_up()
    return model


# -- made ------------------------------------------------------------------------------------------------------------


def test_a_native_answer_passes_and_is_billed(sdk: OpenAI, live: Portal, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    answer = sdk.responses.with_raw_response.create(model=model, input="hi", metadata={"a": "b"}, extra_body={"foo": 1})
    found = answer.parse()
    assert found.output_text == "answer 1" and found.metadata == {"a": "b"} and upstream.asked[0] == {"model": model, "input": "hi", "metadata": {"a": "b"}, "foo": 1}
    record = live.record(answer.headers["x-request-id"])
    assert (record.endpoint, record.input_tokens, record.cached_input_tokens, record.output_tokens, record.reasoning_tokens) == ("responses", 9, 4, 7, 3)


def test_good_answers_pass_byte_for_byte(live: Portal, server: Server) -> None:
    answer = json.dumps({**response(3, "Grüße", store=True), "usage": USED}, indent=1, ensure_ascii=False).encode()
    begun = b'event: response.created\ndata: {"type":"response.created",  "sequence_number":0,"response":%s}\n\n' % answer.replace(b"\n", b"")
    ended = b'event: response.completed\ndata: {"type":"response.completed","sequence_number":1,"response":%s}\n\n' % answer.replace(b"\n", b"")

    async def script(call: Call) -> None:
        if not call.json.get("stream"):
            await call.reply(200, answer)
            return
        await call.open_stream()
        await call.send(begun + ended)
        await call.end()

    model, token = live.model(script), live.token()
    body = b'{"input": "x",  "model": "%s", "odd": [1,2.50]}' % model.encode()
    assert server.post(token, body, path="/v1/responses").content == answer and live.upstream.last(model).body == body
    assert server.post(token, body.replace(b'"odd"', b'"stream":true,"odd"'), path="/v1/responses").content == begun + ended


def test_the_stream_ends_with_the_whole_response_although_the_upstreams_is_empty(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    with sdk.responses.stream(model=native[0], input="hi") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "answer 1" and kinds[-1] == "response.completed" and final.usage is not None and final.usage.total_tokens == 16
    assert sdk.responses.retrieve(final.id).output_text == "answer 1"


def test_a_client_of_responses_at_an_upstream_of_chat(sdk: OpenAI, live: Portal, chat_only: str) -> None:
    answer = sdk.responses.with_raw_response.create(model=chat_only, input="hi", instructions="Be kind.", truncation="auto")
    found = answer.parse()
    assert found.output_text == "Hello there." and found.status == "completed" and found.usage is not None and found.usage.input_tokens == 9
    assert found.instructions == "Be kind." and answer.headers["x-airelays-ignored-parameters"] == "truncation"
    sent = live.upstream.last(chat_only).json
    assert sent["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    with sdk.responses.stream(model=chat_only, input="hi") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == "Hello there."
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed" and "response.output_text.delta" in kinds
    assert live.upstream.last(chat_only).json["stream_options"] == {"include_usage": True}


def test_tools_over_an_upstream_of_chat(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if call.json["messages"][-1]["role"] == "tool":
            assert call.json["messages"][-2]["tool_calls"][0]["id"] == "call_9" and call.json["messages"][-1]["content"] == "sunny"
            await call.reply(200, completion("It is sunny."))
            return
        await call.open_stream()
        await call.event(
            chunk("")
            | {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "call_9", "type": "function", "function": {"name": "get_weather", "arguments": ""}}]}}]}
        )
        for piece in ('{"city"', ':"Paris"}'):
            await call.event(chunk("") | {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}]})
        await call.event(chunk(None, "tool_calls"))
        await call.event("[DONE]")
        await call.end()

    model = live.model(script, text_api="chat")
    server.catch_up()
    tool: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}, "strict": False}
    with sdk.responses.stream(model=model, input="weather?", tools=[tool]) as stream:
        for _ in stream:
            continue
        first = stream.get_final_response()
    call: Any = first.output[0]
    assert (call.type, call.name, call.arguments, call.call_id) == ("function_call", "get_weather", '{"city":"Paris"}', "call_9")
    second = sdk.responses.create(model=model, input=[{"type": "function_call_output", "call_id": "call_9", "output": "sunny"}], previous_response_id=first.id)
    assert second.output_text == "It is sunny." and second.previous_response_id == first.id


def test_structured_output_over_chat(sdk: OpenAI, live: Portal, server: Server) -> None:
    class Answer(BaseModel):
        n: int

    async def script(call: Call) -> None:
        assert call.json["response_format"]["json_schema"]["strict"] is True
        await call.reply(200, completion('{"n": 7}'))

    model = live.model(script, text_api="chat")
    server.catch_up()
    found = sdk.responses.parse(model=model, input="x", text_format=Answer).output_parsed
    assert found is not None and found.n == 7


def test_a_client_of_chat_at_an_upstream_of_responses(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Upstream()
    model = live.model(upstream, text_api="responses")
    server.catch_up()
    answer = sdk.chat.completions.create(model=model, messages=[{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}], max_tokens=50, seed=3)
    assert answer.choices[0].message.content == "answer 1" and answer.choices[0].finish_reason == "stop" and answer.usage is not None and answer.usage.prompt_tokens == 9
    sent = upstream.asked[0]
    assert sent["instructions"] == "S" and sent["store"] is False and sent["max_output_tokens"] == 50 and "seed" not in sent
    chunks = list(sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in chunks if piece.choices) == "answer" and chunks[-1].usage is not None
    refusal = server.post(sdk.api_key, ask(model, n=2))
    assert refusal.status_code == 422 and refusal.json()["error"]["param"] == "n" and len(upstream.asked) == 2


def test_an_upstream_that_turns_out_to_lack_responses_is_asked_by_chat(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if call.path == "/v1/responses":
            await call.reply(404, {"detail": "Not Found"})
        else:
            await hello(call)

    model = live.model(script)
    server.catch_up()
    for _ in range(2):
        assert sdk.responses.create(model=model, input="hi").output_text == "Hello there."
    assert [call.path for call in live.upstream.calls if call.body and call.json.get("model") == model] == ["/v1/responses", "/v1/chat/completions", "/v1/chat/completions"]


def test_a_stream_that_was_not_asked_for_is_put_together(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Upstream()

    async def script(call: Call) -> None:
        call.json["stream"] = True
        await upstream(call)

    model = live.model(script)
    server.catch_up()
    assert sdk.responses.create(model=model, input="hi").output_text == "answer 1"


def test_a_stream_that_fails_before_it_says_anything_is_tried_elsewhere(sdk: OpenAI, live: Portal, server: Server) -> None:
    good = Upstream()

    async def script(call: Call) -> None:
        if "first" not in call.headers["authorization"]:
            await good(call)
            return
        await call.open_stream()
        begun = response(1, "x", status="in_progress", output=[])
        await call.event({"type": "response.created", "sequence_number": 0, "response": begun})
        failed = {**begun, "status": "failed", "error": {"code": "server_error", "message": "overloaded"}}
        await call.event({"type": "response.failed", "sequence_number": 1, "response": failed})
        await call.end()

    channels = [live.channel(keys=("sk-first-0123456789abcdef",), priority=1), live.channel(keys=("sk-second-0123456789abcdef",))]
    model = live.model(script, channels=channels)
    server.catch_up()
    with sdk.responses.stream(model=model, input="hi") as stream:
        assert stream.until_done().get_final_response().output_text == "answer 1"


def test_a_stream_that_breaks_off_ends_with_an_error_event(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event({"type": "response.created", "sequence_number": 0, "response": response(1, "", status="in_progress", output=[])})
        await call.event({"type": "response.output_text.delta", "sequence_number": 1, "output_index": 0, "content_index": 0, "item_id": "m", "delta": "Hel", "logprobs": []})
        call.cut()

    answer = server.post(live.token(), {"model": live.model(script), "input": "hi", "stream": True}, path="/v1/responses")
    assert "event: error\n" in answer.text and '"sequence_number":2' in answer.text and "[DONE]" not in answer.text and "response.completed" not in answer.text
    assert live.record(answer).end_reason == "truncated"


# -- kept ------------------------------------------------------------------------------------------------------------


def test_the_next_turn_goes_where_the_first_one_is_known(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Upstream()
    channels = [live.channel() for _ in range(4)]
    model = live.model(upstream, channels=channels)
    server.catch_up()
    first = sdk.responses.with_raw_response.create(model=model, input="one")
    for _ in range(4):
        second = sdk.responses.with_raw_response.create(model=model, input="two", previous_response_id=first.parse().id)
        assert second.headers["x-relay-channel"] == first.headers["x-relay-channel"]
    assert upstream.asked[-1]["previous_response_id"] == first.parse().id and upstream.asked[-1]["input"] == "two"


def test_the_next_turn_is_told_everything_where_the_first_one_is_not_known(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Channel

    upstream = Upstream()
    channels = [live.channel(), live.channel()]
    model = live.model(upstream, channels=channels)
    server.catch_up()
    first = sdk.responses.with_raw_response.create(model=model, input="one", store=True)
    channel = Channel.objects.get(pk=first.headers["x-relay-channel"])
    channel.enabled = False
    channel.save()
    server.catch_up()
    second = sdk.responses.create(model=model, input="two", previous_response_id=first.parse().id)
    assert second.previous_response_id == first.parse().id and second.model_dump()["store"] is True
    sent = upstream.asked[-1]
    assert "previous_response_id" not in sent and [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
    assert sent["input"][1]["content"][0]["text"] == "answer 1" and not any("id" in item for item in sent["input"])


def test_an_upstream_that_has_forgotten_is_told_everything(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    first = sdk.responses.create(model=model, input="one")
    upstream.forgets = True
    assert sdk.responses.create(model=model, input="two", previous_response_id=first.id).output_text == "answer 3"
    assert len(upstream.asked[-1]["input"]) == 3


def test_kept_listed_and_deleted(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    made = sdk.responses.create(model=model, input=[{"role": "user", "content": "one"}, {"role": "user", "content": [{"type": "input_text", "text": "two"}]}])
    assert sdk.responses.retrieve(made.id).output_text == made.output_text
    items: list[Any] = list(sdk.responses.input_items.list(made.id, order="asc", limit=1))
    assert [item.content[0].text for item in items] == ["one", "two"] and all(item.id for item in items)
    assert [event.type for event in sdk.responses.retrieve(made.id, stream=True, starting_after=1)][-1] == "response.completed"
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    until = time.monotonic() + 5
    while made.id not in upstream.deleted and time.monotonic() < until:
        time.sleep(0.02)
    assert made.id in upstream.deleted


def test_what_shall_not_be_kept_is_not(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    made = sdk.responses.create(model=native[0], input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model=native[0], input="x", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"


def test_nobody_else_sees_or_uses_what_is_kept(sdk: OpenAI, live: Portal, server: Server, native: tuple[str, Upstream]) -> None:
    model, _ = native
    made, talk = sdk.responses.create(model=model, input="secret"), sdk.conversations.create(items=[{"role": "user", "content": "secret"}])
    for stranger in (live.token(), live.token(live.user(is_staff=True, is_superuser=True))):
        for method, path in [("GET", f"responses/{made.id}"), ("GET", f"responses/{made.id}/input_items"), ("DELETE", f"responses/{made.id}"),
                             ("POST", f"responses/{made.id}/cancel"),
                             ("GET", f"conversations/{talk.id}"), ("GET", f"conversations/{talk.id}/items"), ("DELETE", f"conversations/{talk.id}")]:  # fmt: skip
            assert server.request(method, stranger, f"/v1/{path}").status_code == 404, path
        assert server.post(stranger, {"model": model, "input": "x", "previous_response_id": made.id}, path="/v1/responses").status_code == 400
        assert server.post(stranger, {"model": model, "input": "x", "conversation": talk.id}, path="/v1/responses").status_code == 400
    other_token = live.token(_user_of(sdk.api_key))
    assert server.get(other_token, f"/v1/responses/{made.id}").status_code == 200  # it belongs to the user, not to the token


def _user_of(secret: str) -> Any:
    from relay.models import Token
    from relay.models.token import digest_of

    return Token.objects.get(digest=digest_of(secret)).user


def test_two_users_may_have_responses_of_one_id(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, response(77, f"for {call.json['input']}"))

    model, alice, bob = live.model(script), live.token(), live.token()
    for token, name in ((alice, "alice"), (bob, "bob"), (alice, "alice again")):
        assert server.post(token, {"model": model, "input": name}, path="/v1/responses").status_code == 200
    shown = [server.get(token, f"/v1/responses/resp_{77:032x}").json()["output"][0]["content"][0]["text"] for token in (alice, bob)]
    assert shown == ["for alice again", "for bob"]


def test_what_is_kept_ends(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    from datetime import timedelta

    from portal.lib import clock
    from relay.models import StoredResponse
    from relay.storage import responses as stored_responses

    made = sdk.responses.create(model=native[0], input="x")
    row = StoredResponse.objects.get(response_id=made.id)
    assert timedelta(days=29) < row.expires_at - clock.now() <= timedelta(days=30)
    StoredResponse.objects.filter(pk=row.pk).update(expires_at=clock.now() - timedelta(seconds=1))
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    stored_responses.sweep(clock.now())
    assert not StoredResponse.objects.filter(pk=row.pk).exists()


# -- in the background -----------------------------------------------------------------------------------------------


def wait_for(sdk: OpenAI, response_id: str, seconds: float = 10) -> Any:
    until = time.monotonic() + seconds
    while (found := sdk.responses.retrieve(response_id)).status in {"queued", "in_progress"}:
        assert time.monotonic() < until, found.status
        time.sleep(0.03)
    return found


def test_made_in_the_background_and_gone_on_from(sdk: OpenAI, live: Portal, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    made = sdk.responses.create(model=model, input="slow", background=True)
    assert made.status == "queued" and made.background is True
    done = wait_for(sdk, made.id)
    assert done.id == made.id and done.status == "completed" and done.output_text == "answer 1" and done.background is True
    assert "background" not in upstream.asked[0] and upstream.asked[0]["store"] is False
    assert sdk.responses.create(model=model, input="next", previous_response_id=made.id).output_text == "answer 2"
    assert len(upstream.asked[1]["input"]) == 3


def test_a_background_response_can_be_cancelled(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.closed_event()

    model = live.model(script)
    server.catch_up()
    made = sdk.responses.create(model=model, input="x", background=True)
    while not live.upstream.count(model):
        time.sleep(0.02)
    assert sdk.responses.cancel(made.id).status == "cancelled"
    assert live.upstream.last_closed(model, 3)
    assert wait_for(sdk, made.id).status == "cancelled"


def test_a_background_response_that_fails_says_why(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.error(400, "too long", "context_length_exceeded")

    model = live.model(script)
    server.catch_up()
    found = wait_for(sdk, sdk.responses.create(model=model, input="x", background=True).id)
    assert found.status == "failed" and found.error.message == "too long"


def test_a_background_response_whose_worker_was_killed_has_failed(sdk: OpenAI, live: Portal, native: tuple[str, Upstream]) -> None:
    from relay.models import StoredResponse

    made = sdk.responses.create(model=native[0], input="x")
    StoredResponse.objects.filter(response_id=made.id).update(status="in_progress", owner=_dead_owner(), body='{"id":"x","status":"in_progress","background":true,"output":[]}')
    found = sdk.responses.retrieve(made.id)
    assert found.status == "failed" and found.error is not None and "stopped" in found.error.message


def _dead_owner() -> str:
    from portal.lib.processes import new_owner

    host = new_owner().partition(":")[0]
    return f"{host}:999999:1:x"


def test_only_background_responses_are_cancelled(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    with pytest.raises(openai.BadRequestError):
        sdk.responses.cancel(sdk.responses.create(model=native[0], input="x").id)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        list(sdk.responses.create(model=native[0], input="x", background=True, stream=True))
    assert caught.value.param == "background"


# -- counted and compacted -------------------------------------------------------------------------------------------


def test_input_is_counted_and_compacted_without_an_upstream_for_it(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/chat/completions"
        await call.reply(200, completion("They like tea."))

    model = live.model(script, text_api="chat")
    server.catch_up()
    assert 2 < sdk.responses.input_tokens.count(model=model, input="How many tokens is this?").input_tokens < 30
    assert live.upstream.count(model) == 0
    talk: Any = [{"role": "user", "content": "I like tea."}, {"role": "assistant", "content": "Noted."}, {"role": "user", "content": "Go on."}]
    again: Any = sdk.responses.with_raw_response.compact(model=model, input=talk).http_response.json()["output"]
    assert [item["type"] for item in again] == ["message", "compaction"]
    sdk.responses.create(model=model, input=[*again, {"role": "user", "content": "And now?"}])
    assert "They like tea." in str(live.upstream.last(model).json["messages"])


def test_counting_and_compacting_are_asked_of_upstreams_that_can(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if call.path.endswith("/input_tokens"):
            await call.reply(200, {"object": "response.input_tokens", "input_tokens": 123})
        else:
            assert call.path == "/v1/responses/compact"
            await call.reply(
                200, {"id": "resp_c", "object": "response.compaction", "created_at": 1, "output": [{"id": "c", "type": "compaction", "encrypted_content": "z"}], "usage": USED}
            )

    model = live.model(script, price={"input": 1, "output": 1, "per_call": 1})
    server.catch_up()
    counted = sdk.responses.input_tokens.with_raw_response.count(model=model, input="x")
    assert counted.parse().input_tokens == 123 and live.record(counted.headers["x-request-id"]).cost == 0
    made = sdk.responses.with_raw_response.compact(model=model, input="x")
    assert made.parse().output[0].type == "compaction" and live.record(made.headers["x-request-id"]).output_tokens == 7


# -- conversations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text_api", ["chat", "responses"])
def test_a_conversation_grows_with_each_turn(sdk: OpenAI, live: Portal, server: Server, text_api: str) -> None:
    asked: list[Any] = []

    async def script(call: Call) -> None:
        asked.append(call.json.get("messages") or call.json["input"])
        assert "conversation" not in call.json
        await call.reply(200, completion("ok") if text_api == "chat" else response(len(asked) + 500, "ok"))

    model = live.model(script, text_api=text_api)
    server.catch_up()
    talk = sdk.conversations.create(items=[{"role": "user", "content": "I am Ann."}], metadata={"k": "v"})
    for text in ("one", "two"):
        found = sdk.responses.create(model=model, input=text, conversation=talk.id)
        assert found.conversation is not None and found.conversation.id == talk.id
    assert [len(entry) for entry in asked] == [2, 4]
    items = list(sdk.conversations.items.list(talk.id, order="asc"))
    assert len(items) == 5 and len({item.id for item in items}) == 5


def test_a_conversation_is_kept_from_its_last_turn_on(sdk: OpenAI, live: Portal, chat_only: str) -> None:
    from datetime import timedelta

    from portal.lib import clock
    from relay.models import Conversation

    talk = sdk.conversations.create()
    Conversation.objects.filter(conversation_id=talk.id).update(expires_at=clock.now() + timedelta(hours=1))
    sdk.responses.create(model=chat_only, input="x", conversation=talk.id)
    assert Conversation.objects.get(conversation_id=talk.id).expires_at > clock.now() + timedelta(days=29)


def test_what_cannot_be_decoded_is_passed_on_all_the_same(live: Portal, server: Server) -> None:
    broken = json.dumps(response(9, "a stray BYTE of Latin-1")).encode().replace(b"BYTE", b"\xe9")

    async def script(call: Call) -> None:
        if not call.json.get("stream"):
            await call.reply(200, broken)
            return
        await call.open_stream()
        await call.event({"type": "response.created", "sequence_number": 0, "response": response(9, "", status="in_progress", output=[])})
        await call.send(b'data: {"type":"response.completed","sequence_number":1,"response":' + broken + b"}\n\n")
        await call.end()

    model, token = live.model(script), live.token()
    plain = server.post(token, {"model": model, "input": "x"}, path="/v1/responses")
    assert plain.content == broken and live.record(plain).output_tokens == 7
    streamed = server.post(token, {"model": model, "input": "x", "stream": True}, path="/v1/responses")
    assert b"a stray \xe9 of" in streamed.content and live.record(streamed).end_reason == "completed"


def test_conversations_are_managed(sdk: OpenAI) -> None:
    talk = sdk.conversations.create(metadata={"a": "1"})
    assert sdk.conversations.retrieve(talk.id).metadata == {"a": "1"}
    assert sdk.conversations.update(talk.id, metadata={"b": "2"}).metadata == {"b": "2"}
    added = sdk.conversations.items.create(talk.id, items=[{"role": "user", "content": "x"}, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "y"}]}])
    first = added.data[0].id
    assert first is not None and sdk.conversations.items.retrieve(first, conversation_id=talk.id).id == first
    sdk.conversations.items.delete(first, conversation_id=talk.id)
    assert len(list(sdk.conversations.items.list(talk.id))) == 1
    assert sdk.conversations.delete(talk.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.conversations.retrieve(talk.id)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "input"), ({"input": "x"}, "model"), ({"model": "m", "input": 5}, "input"), ({"model": "m", "input": ["x"]}, "input"),
        ({"model": "m", "input": "x", "previous_response_id": "a", "conversation": "b"}, "previous_response_id"),
        ({"model": "m", "input": "x", "conversation": 5}, "conversation"), ({"model": "m", "input": "x", "background": True, "store": False}, "background"),
    ],
)  # fmt: skip
def test_requests_that_make_no_sense(live: Portal, server: Server, body: dict[str, Any], param: str) -> None:
    answer = server.post(live.token(), body, path="/v1/responses")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_explicit_nulls_are_legal(live: Portal, server: Server, chat_only: str) -> None:
    body = {
        name: None
        for name in ("include", "instructions", "metadata", "previous_response_id", "conversation", "tools", "tool_choice", "text", "reasoning", "background", "stream", "user")
    }
    assert server.post(live.token(), {"model": chat_only, "input": "x", **body}, path="/v1/responses").status_code == 200


def test_a_compaction_that_its_upstream_turns_out_to_lack_is_still_one_request_with_one_receipt(live: Portal, server: Server) -> None:
    from relay.models import Token, UsageRecord
    from relay.models.token import digest_of

    async def script(call: Call) -> None:
        if call.path == "/v1/responses/compact":
            await call.reply(404, {"error": {"message": "Not Found", "type": "invalid_request_error", "param": None, "code": None}})
        else:
            assert call.path == "/v1/responses"
            await call.reply(200, response(31, "They like tea."))

    model, user = live.model(script, price={"input": 1, "output": 1}), live.user(balance=10**12)
    token = live.token(user)
    row = Token.objects.get(digest=digest_of(token))
    row.max_concurrency, row.max_rpm = 1, 1
    row.save()
    answer = server.post(token, {"model": model, "input": "I like tea."}, path="/v1/responses/compact")
    assert answer.status_code == 200 and answer.json()["output"][-1]["type"] == "compaction"
    record = live.record(answer)
    assert (record.endpoint, record.cost, record.end_reason) == ("responses.compact", 16_000, "completed")
    assert UsageRecord.objects.filter(user=user).count() == 1
    assert answer.headers.get_list("x-relay-attempts") == ["2"], "it was asked first, and then told how"
    assert answer.headers.get_list("x-ratelimit-remaining-requests") == ["0"]


def test_a_count_that_its_upstream_turns_out_to_lack_is_made_here_and_recorded_as_answered(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/responses/input_tokens"
        await call.reply(404, {"error": {"message": "Not Found", "type": "invalid_request_error", "param": None, "code": None}})

    model = live.model(script, price={"input": 1, "output": 1})
    token = live.token()
    answer = server.post(token, {"model": model, "input": "How many tokens is this?"}, path="/v1/responses/input_tokens")
    assert answer.status_code == 200 and 2 < answer.json()["input_tokens"] < 30
    record = live.record(answer)
    assert (record.end_reason, record.status, record.cost) == ("completed", 200, 0)
    again = server.post(token, {"model": model, "input": "How many tokens is this?"}, path="/v1/responses/input_tokens")
    assert again.json() == answer.json() and live.upstream.count(model) == 1, "what it lacks is remembered"
