"""A response that goes on from an earlier one."""

from __future__ import annotations

import json
from typing import Any, cast

import openai
import pytest
from openai import OpenAI

from portal.lib.json import Json
from relay.endpoints.text.response_turn import ResponseTurn
from relay.endpoints.text.turn_request import gateway_request
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.runtime import Runtime
from relay.protocols.responses.request import parse_responses_request
from tests.endpoints.text.responses_upstream import Upstream, response
from tests.gateway.attempts import CALLER
from tests.protocols.chat_rules import refusal
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, completion, hello
from tests.support.upstream import Upstream as SecondUpstream

pytestmark = pytest.mark.shared


def test_the_next_turn_goes_where_the_first_one_is_known(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Upstream()
    channels = [live.channel() for _ in range(4)]
    model = live.model(upstream, channels=channels)
    server.catch_up()
    first = sdk.responses.with_raw_response.create(model=model, input="one")
    for _ in range(4):
        second = sdk.responses.with_raw_response.create(model=model, input="two", previous_response_id=first.parse().id)
        assert second.headers["x-relay-channel"] == first.headers["x-relay-channel"]
        assert second.parse().previous_response_id == first.parse().id
    assert upstream.asked[-1]["previous_response_id"] == upstream.made[0] and upstream.asked[-1]["input"] == "two"


def test_the_next_turn_is_told_everything_where_the_first_one_is_not_known(
    sdk: OpenAI, live: Portal, server: Server
) -> None:
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
    assert "previous_response_id" not in sent and [item["role"] for item in sent["input"]] == [
        "user",
        "assistant",
        "user",
    ]
    assert sent["input"][1]["content"][0]["text"] == "answer 1" and not any("id" in item for item in sent["input"])


def test_an_upstream_that_has_forgotten_is_told_everything(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    first = sdk.responses.create(model=model, input="one")
    upstream.forgets = True
    assert sdk.responses.create(model=model, input="two", previous_response_id=first.id).output_text == "answer 3"
    assert len(upstream.asked[-1]["input"]) == 3


def test_an_upstream_that_refuses_the_next_turn_for_another_reason_is_asked_once(
    sdk: OpenAI, live: Portal, server: Server
) -> None:
    upstream = Upstream()

    async def script(call: Call) -> None:
        if call.json.get("previous_response_id"):
            upstream.asked.append(call.json)
            await call.error(400, "The input is too long.", "context_length_exceeded")
        else:
            await upstream(call)

    model = live.model(script)
    server.catch_up()
    first = sdk.responses.create(model=model, input="one")
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model=model, input="two", previous_response_id=first.id)
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("provider", ["openai", "vllm"])
@pytest.mark.parametrize("stream", [False, True])
def test_each_turn_is_told_once_whatever_ids_the_upstream_gives(
    sdk: OpenAI, live: Portal, server: Server, provider: str, stream: bool
) -> None:
    asked: list[dict[str, Any]] = []

    async def script(call: Call) -> None:
        asked.append(call.json)
        answer = {**response(0, f"answer {len(asked)}"), "id": "resp_0"}
        if not call.json.get("stream"):
            await call.reply(200, answer)
            return
        await call.open_stream()
        await call.event({"type": "response.created", "response": {**answer, "output": []}})
        await call.event({"type": "response.completed", "response": answer})
        await call.end()

    model = live.model(script, provider=provider, text_api="both")
    server.catch_up()
    previous: Any = openai.omit
    for number in range(1, 6):
        if stream:
            with sdk.responses.stream(model=model, input=f"in {number}", previous_response_id=previous) as events:
                made: Any = events.get_final_response()
        else:
            made = sdk.responses.create(model=model, input=f"in {number}", previous_response_id=previous)
        assert made.output_text == f"answer {number}" and made.id != "resp_0"
        previous = made.id
        assert "previous_response_id" not in asked[-1]
        told = asked[-1]["input"]
        assert len(told) == 2 * number - 1 if number > 1 else told == "in 1"


NOT_FOUND: dict[str, tuple[int, dict[str, Any]]] = {
    "vLLM": (404, {"message": "Response with id '{}' not found.", "param": "response_id", "code": 404}),
    "OpenAI": (
        400,
        {
            "message": "Previous response with id '{}' not found.",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        },
    ),
    "xAI": (404, {"message": "Response with id={} not found"}),
    "LM Studio": (
        400,
        {
            "message": "Prediction history node with id '{}' not found while attempting to build chat history chain "
            "that includes this node."
        },
    ),
    "zero data retention": (
        400,
        {"message": "Previous response cannot be used for this organization due to Zero Data Retention."},
    ),
    "a server without a store": (
        400,
        {"message": "No tool call found for function call output with call_id call_1.", "param": "input"},
    ),
    "a proxy without a body": (404, {}),
}


@pytest.mark.parametrize("words", NOT_FOUND)
@pytest.mark.parametrize("way", ["plain", "stream", "error in a stream"])
def test_an_upstream_that_keeps_nothing_is_told_everything(
    sdk: OpenAI, live: Portal, server: Server, words: str, way: str
) -> None:
    upstream = Upstream()

    async def script(call: Call) -> None:
        if not call.json.get("previous_response_id"):
            await upstream(call)
            return
        upstream.asked.append(call.json)
        assert call.json["previous_response_id"] == upstream.made[-1]
        status, error = NOT_FOUND[words]
        error = {**error, "message": str(error.get("message", "")).format(upstream.made[-1])} if error else error
        if way == "error in a stream" and error:  # lmstudio-bug-tracker #1188
            await call.open_stream()
            await call.event({"type": "error", **error})
            await call.end()
        elif error:
            await call.reply(status, {"error": {"type": "invalid_request_error", **error}})
        else:
            await call.reply(status, b"")

    model = live.model(script)
    server.catch_up()
    asked = []
    previous: Any = openai.omit
    for number in range(1, 5):
        if way == "plain":
            made: Any = sdk.responses.create(model=model, input=f"in {number}", previous_response_id=previous)
        else:
            with sdk.responses.stream(model=model, input=f"in {number}", previous_response_id=previous) as events:
                made = events.get_final_response()
        previous = made.id
        asked.append(len(upstream.asked))
        told = upstream.asked[-1]
        assert "previous_response_id" not in told and (number == 1 or len(told["input"]) == 2 * number - 1)
    # Named once and not found; from then on this user's turns at this channel are told at once.
    assert asked == [1, 3, 4, 5]
    # What one user met changes nothing for another.
    stranger = sdk.with_options(api_key=live.token())
    first = stranger.responses.create(model=model, input="one")
    assert upstream.asked[-1].get("store") is not False
    stranger.responses.create(model=model, input="two", previous_response_id=first.id)
    assert upstream.asked[-2]["previous_response_id"] == upstream.made[-2]


def test_a_turn_that_was_deleted_is_missed_aloud(sdk: OpenAI, live: Portal, server: Server, chat_only: str) -> None:
    made = [sdk.responses.create(model=chat_only, input="one")]
    for text in ("two", "three"):
        made.append(sdk.responses.create(model=chat_only, input=text, previous_response_id=made[-1].id))
    sdk.responses.delete(made[0].id)
    last = sdk.responses.with_raw_response.create(model=chat_only, input="four", previous_response_id=made[-1].id)
    assert last.headers["x-airelays-ignored-parameters"] == "previous_response_id[earlier]"
    told = [message["content"] for message in live.upstream.last(chat_only).json["messages"]]
    assert told == ["two", "Hello there.", "three", "Hello there.", "four"]


def test_items_of_a_conversation_have_their_own_ids(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, response(0, "again"))  # each time with an item called `msg_0`

    model = live.model(script)
    server.catch_up()
    talk = sdk.conversations.create()
    for number in range(3):
        sdk.responses.create(model=model, input=f"in {number}", conversation=talk.id)
    items = list(sdk.conversations.items.list(talk.id, order="asc"))
    assert len(items) == 6 and len({item.id for item in items}) == 6


def test_a_conversation_with_hosted_tools_goes_on_at_a_channel_that_has_none(
    live: Portal, server: Server, second: SecondUpstream
) -> None:
    """The items were never the client's: the portal put them together."""
    from relay.models import Channel

    searched = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"query": "tea"}}
    sealed = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}

    async def native(call: Call) -> None:
        assert call.path == "/v1/responses"
        made = response(7, "Tea it is.")
        await call.reply(200, {**made, "output": [sealed, searched, *made["output"]]})

    async def chat(call: Call) -> None:
        assert call.path == "/v1/chat/completions" and not refusal(call.json)
        await hello(call)

    first, spare = live.channel(priority=5), live.channel(second.base_url, text_api="chat")
    model, token = live.model(native, channels=[first, spare]), live.token()
    second.script(model, chat)
    body = {"model": model, "input": "What shall I drink?", "tools": [{"type": "web_search"}]}
    one = server.post(token, body, path="/v1/responses")
    assert one.status_code == 200
    row = Channel.objects.get(pk=first.pk)
    row.enabled = False
    row.save()
    two = server.post(
        token, {**body, "input": "And now?", "previous_response_id": one.json()["id"]}, path="/v1/responses"
    )
    assert two.status_code == 200, two.text
    assert "input[web_search_call]" in two.headers["x-airelays-ignored-parameters"]
    sent = json.dumps(second.last(model).json["messages"])
    assert "tea" in sent and "Tea it is." in sent and "gAAA" not in sent


@pytest.mark.parametrize("kept", [True, False])
def test_a_conversation_with_readable_thoughts_goes_on_at_an_upstream_that_takes_none(
    live: Portal, server: Server, second: SecondUpstream, kept: bool
) -> None:
    """OpenAI takes no reasoning with content, as channels of chat completions make it (querymt #976)."""
    from relay.models import Channel

    async def chat(call: Call) -> None:
        message = {"role": "assistant", "content": "Tea.", "reasoning_content": "They are thirsty."}
        await call.reply(200, completion("") | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async def native(call: Call) -> None:
        for number, item in enumerate(call.json["input"]):
            if item["type"] == "reasoning" and item.get("content"):
                text = f"Invalid 'input[{number}].content': array too long. Expected an array with maximum length 0, "
                await call.error(400, text + "but got an array with length 1 instead.", "array_above_max_length")
                return
        await call.reply(200, response(7, "Tea it is."))

    first, spare = live.channel(priority=5, text_api="chat"), live.channel(second.base_url)
    model, token = live.model(chat, channels=[first, spare]), live.token()
    second.script(model, native)
    one = server.post(token, {"model": model, "input": "What shall I drink?", "store": kept}, path="/v1/responses")
    assert [item["type"] for item in one.json()["output"]] == ["reasoning", "message"]
    row = Channel.objects.get(pk=first.pk)
    row.enabled = False
    row.save()
    asked = {"role": "user", "content": "And now?", "type": "message"}
    body = (
        {"input": "And now?", "previous_response_id": one.json()["id"]}
        if kept
        else {"input": [asked, *one.json()["output"], asked], "store": False}
    )
    two = server.post(token, {"model": model, **body}, path="/v1/responses")
    assert two.status_code == 200, two.text
    assert two.headers["x-airelays-ignored-parameters"] == "input[reasoning]"
    sent = second.last(model).json["input"]
    assert "Tea." in json.dumps(sent) and "thirsty" not in json.dumps(sent)


def test_what_was_said_before_is_held_for_as_what_is_said_now() -> None:
    """A kept conversation with a document by its address can fill the context, and its images count."""
    body = b'{"model":"m","input":"And now?"}'
    document = {"type": "input_file", "file_url": "https://x.example/a.pdf"}
    image = {"type": "input_image", "image_url": "https://x.example/a.png"}

    def asked(*parts: dict[str, str]) -> GatewayRequest:
        history: list[Json] = [{"type": "message", "role": "user", "content": list(parts)}] if parts else []
        request = parse_responses_request(body)
        items = request.items()
        return gateway_request(cast(Runtime, None), ResponseTurn(request, CALLER, items, items, history))

    plain, pictured, unbounded = asked(), asked(*[image] * 3), asked(document)
    assert plain.most_prompt is not None and pictured.most_prompt is not None and unbounded.most_prompt is not None
    assert plain.most_prompt() == len(b'"And now?"') + 4 and unbounded.most_prompt() is None
    assert (pictured.most_prompt() or 0) > 3 * 25_600 and pictured.prompt_tokens > 3 * 800
