"""Streams that do not end with their client: it leaves, the upstream breaks off, or nothing is left to pay with."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.endpoints.text.responses_upstream import response
from tests.support.asserts import until
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server
from tests.support.upstream import Call, chunk

pytestmark = pytest.mark.shared

PATH = "/v1/responses"
PRICE = {"input": 1, "output": 1}


class Upstream:
    """Speaks both APIs: says "Hello there.", and after `go` it completes its answer, or breaks off."""

    def __init__(self, breaks: bool = False, words: int = 2) -> None:
        self.go, self.breaks, self.words = asyncio.Event(), breaks, words
        self.pause = 0.0  # seconds before its end

    async def __call__(self, call: Call) -> None:
        await call.open_stream()
        said = ["Hello", *[" there"] * (self.words - 2), " there."]
        if call.path == PATH:
            await self._responses(call, said)
        else:
            for word in said:
                await call.event(chunk(word))
            await self._wait()
            if self.breaks:
                return call.cut()
            await call.event(chunk(None, "stop"))
            await call.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}})
            await call.event("[DONE]")
        await call.end()

    async def _wait(self) -> None:
        await self.go.wait()
        await asyncio.sleep(self.pause)

    async def _responses(self, call: Call, said: list[str]) -> None:
        whole = response(7, "".join(said))
        thought = {"id": "rs_7", "type": "reasoning", "summary": []}
        place = {"item_id": "msg_7", "output_index": 1, "content_index": 0}
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        message = {**whole["output"][0], "status": "in_progress", "content": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": thought},
            {"type": "response.output_item.done", "output_index": 0, "item": thought},
            {"type": "response.output_item.added", "output_index": 1, "item": message},
            *({"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in said),
        ]
        call_item = {"id": "fc_7", "type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
        if self.breaks:  # the message is complete, and a call has begun
            done = {**whole["output"][0], "id": "msg_7"}
            events += [
                {"type": "response.output_item.done", "output_index": 1, "item": done},
                {"type": "response.output_item.added", "output_index": 2, "item": call_item},
                {
                    "type": "response.function_call_arguments.delta",
                    "output_index": 2,
                    "item_id": "fc_7",
                    "delta": '{"a',
                },
            ]
        for number, event in enumerate(events):
            await call.event({**event, "sequence_number": number})
        await self._wait()
        if self.breaks:
            return call.cut()
        end = {**whole, "output": [thought, *whole["output"]]}
        await call.event({"type": "response.completed", "sequence_number": len(events), "response": end})


def begun(server: Server, token: str, body: dict[str, Any], leaves: bool) -> tuple[str, str, str]:
    """The id of a response whose stream the client reads, or leaves after its first text; that of its request, and
    what it was sent.
    """
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    options: dict[str, Any] = {"timeout": 100, "trust_env": False, "verify": NO_CERTIFICATES}
    lines: list[str] = []
    with httpx.stream("POST", server.url + PATH, json={**body, "stream": True}, headers=headers, **options) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if leaves and "output_text.delta" in line:
                break
        created = next(line for line in lines if line.startswith("data:"))
        return json.loads(created[5:])["response"]["id"], answer.headers["x-request-id"], "\n".join(lines)


def text_of(found: dict[str, Any]) -> str:
    return "".join(part["text"] for item in found["output"] for part in item.get("content") or () if "text" in part)


def items(server: Server, token: str, talk: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(token, f"/v1/conversations/{talk}/items?order=asc").json()["data"]
    return found


@pytest.mark.parametrize("text_api", ["responses", "chat"])
def test_an_answer_whose_client_left_is_found_again(live: Portal, server: Server, text_api: str) -> None:
    """Tried until the portal has noticed that the client has left before the upstream ends."""
    upstream = Upstream()
    upstream.go.set()
    model, token = live.model(upstream, price=PRICE, text_api=text_api), live.token()

    def left_before_the_end() -> bool:
        upstream.pause = 2 * upstream.pause or 0.5
        talk = server.post(token, {}, path="/v1/conversations").json()["id"]
        name, request_id, _ = begun(server, token, {"model": model, "input": "x", "conversation": talk}, leaves=True)
        record = live.record(request_id)
        assert (record.usage_source, record.cost) == ("reported", 16_000)
        found = server.get(token, f"{PATH}/{name}").json()
        assert (found["id"], found["status"], text_of(found)) == (name, "completed", "Hello there.")
        question, *_, answer = items(server, token, talk)
        assert (question["role"], answer["content"][0]["text"]) == ("user", "Hello there.")
        assert server.get(live.token(), f"{PATH}/{name}").status_code == 404, "of another user"
        return bool(record.end_reason == "client_gone")

    until(left_before_the_end)


@pytest.mark.parametrize("text_api", ["responses", "chat"])
def test_an_answer_that_its_upstream_breaks_off_is_kept_as_far_as_it_came(
    live: Portal, server: Server, text_api: str
) -> None:
    upstream = Upstream(breaks=True)
    upstream.go.set()
    model, token = live.model(upstream, price=PRICE, text_api=text_api), live.token()
    talk = server.post(token, {}, path="/v1/conversations").json()["id"]
    body = {"model": model, "input": "My question", "conversation": talk}
    name, request_id, said = begun(server, token, body, leaves=False)
    record = live.record(request_id)
    assert record.end_reason == "truncated" and record.cost > 0 and "upstream_truncated" in said
    found = server.get(token, f"{PATH}/{name}").json()
    assert (found["id"], found["status"], found["model"]) == (name, "failed", found["model"])
    assert found["error"]["code"] == "upstream_truncated" and found["error"]["message"]
    assert text_of(found) == "Hello there." and found["conversation"]["id"] == talk
    states = [(item["type"], item.get("status")) for item in found["output"]]
    if text_api == "responses":
        assert states == [("reasoning", None), ("message", "completed"), ("function_call", "incomplete")]
        assert found["output"][2]["arguments"] == '{"a'
    else:
        assert states == [("message", "incomplete")]
    asked = server.get(token, f"{PATH}/{name}/input_items").json()["data"]
    assert asked[0]["content"][0]["text"] == "My question"
    assert items(server, token, talk) == [], "as at OpenAI, what did not end is no part of the conversation"
    assert server.get(live.token(), f"{PATH}/{name}").status_code == 404, "of another user"


def test_a_turn_that_goes_on_from_a_broken_one_is_told_what_can_be_used(live: Portal, server: Server) -> None:
    asked: list[dict[str, Any]] = []
    broken = Upstream(breaks=True)
    broken.go.set()

    async def script(call: Call) -> None:
        asked.append(call.json)
        if call.json.get("stream"):
            await broken(call)
        else:
            await call.reply(200, response(8, "Well."))

    model, token = live.model(script, price=PRICE), live.token()
    name, request_id, _ = begun(server, token, {"model": model, "input": "first"}, leaves=False)
    live.record(request_id)
    body = {"model": model, "input": "second", "previous_response_id": name}
    assert server.post(token, body, path=PATH).status_code == 200
    told = asked[-1]["input"]
    assert [item.get("type", "message") for item in told] == ["message"] * 3, "no call without its arguments"
    assert told[1]["content"][0]["text"] == "Hello there."


@pytest.mark.parametrize("text_api", ["responses", "chat"])
def test_of_an_answer_that_used_the_wallet_up_no_more_is_kept_than_was_sent(
    live: Portal, server: Server, text_api: str
) -> None:
    upstream = Upstream(words=400)
    model = live.model(upstream, price={"input": 1, "output": 10}, text_api=text_api)
    token = live.token(live.user(balance=1_000_000))  # nano-USD: 100 tokens
    live.upstream.set(upstream.go)
    name, request_id, said = begun(server, token, {"model": model, "input": "x"}, leaves=False)
    record = live.record(request_id)
    assert record.end_reason == "ended" and record.cost > 0 and "insufficient_quota" in said
    found = server.get(token, f"{PATH}/{name}").json()
    assert (found["status"], found["error"]["code"]) == ("failed", "insufficient_quota")
    told = [json.loads(line[5:]) for line in said.splitlines() if line.startswith("data:")]
    sent = "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta")
    assert text_of(found) == sent and 0 < len(sent.split()) < 400


@pytest.mark.parametrize("how", ["plain", "stream", "background"])
def test_a_response_with_a_number_beyond_all_is_found_again(live: Portal, server: Server, how: str) -> None:
    whole = response(9, "Hello there.")
    text = json.dumps({**whole, "temperature": "HUGE"}).replace('"HUGE"', "1e999").encode()

    async def script(call: Call) -> None:
        if not call.json.get("stream"):
            await call.reply(200, text)
            return
        await call.open_stream()
        await call.event({"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}})
        delta = {"item_id": "msg_9", "output_index": 0, "content_index": 0, "delta": "Hello there."}
        await call.event({"type": "response.output_text.delta", **delta})
        await call.send(b'data: {"type":"response.completed","response":%s}\n\n' % text)
        await call.end()

    model, token = live.model(script, price=PRICE), live.token()
    server.catch_up()
    body = {"model": model, "input": "x", "background": how == "background"}
    if how == "stream":
        name, request_id, said = begun(server, token, {"model": model, "input": "x"}, leaves=False)
        assert "response.completed" in said
    else:
        made = server.post(token, body, path=PATH)
        name, request_id = made.json()["id"], made.headers["x-request-id"]
    record = live.record(request_id)
    assert (record.end_reason, record.cost) == ("completed", 16_000)
    found = until(lambda: (one := server.get(token, f"{PATH}/{name}").json()).get("status") == "completed" and one)
    assert found["id"] == name and text_of(found) == "Hello there."


def test_what_a_turn_adds_beyond_the_last_place_of_a_conversation_is_listed(live: Portal, server: Server) -> None:
    from relay.models import Conversation, ConversationItem

    async def script(call: Call) -> None:
        await call.reply(200, response(3, "The last word."))

    model, token = live.model(script, price=PRICE), live.token()
    server.catch_up()
    talk = server.post(token, {}, path="/v1/conversations").json()["id"]
    row = Conversation.objects.get(conversation_id=talk)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "."}]}
    ConversationItem.objects.bulk_create(
        ConversationItem(conversation=row, item_id=f"msg_{n:x}", body=json.dumps({**item, "id": f"msg_{n:x}"}))
        for n in range(9_999)
    )
    body = {"model": model, "input": "x", "conversation": talk}
    assert server.post(token, body, path=PATH).status_code == 200
    newest = server.get(token, f"/v1/conversations/{talk}/items?limit=2").json()["data"]
    assert [found["role"] for found in newest] == ["assistant", "user"]
    assert newest[0]["content"][0]["text"] == "The last word."
    full = server.post(token, body, path=PATH)
    assert full.status_code == 400 and full.json()["error"]["code"] == "context_length_exceeded"
    assert live.upstream.count(model) == 1
