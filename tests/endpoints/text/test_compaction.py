"""Counting and compacting input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import OpenAI

from tests.endpoints.text.responses_upstream import USED, response
from tests.protocols.chat_rules import refusal
from tests.support.money import settled
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, Script, completion

pytestmark = pytest.mark.shared


def test_input_is_counted_and_compacted_without_an_upstream_for_it(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/chat/completions"
        await call.reply(200, completion("They like tea."))

    model = live.model(script, text_api="chat")
    server.catch_up()
    assert 2 < sdk.responses.input_tokens.count(model=model, input="How many tokens is this?").input_tokens < 30
    assert live.upstream.count(model) == 0
    talk: Any = [
        {"role": "user", "content": "I like tea."},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "Go on."},
    ]
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
                200,
                {
                    "id": "resp_c",
                    "object": "response.compaction",
                    "created_at": 1,
                    "output": [{"id": "c", "type": "compaction", "encrypted_content": "z"}],
                    "usage": USED,
                },
            )

    model = live.model(script, price={"input": 1, "output": 1, "per_call": 1})
    server.catch_up()
    counted = sdk.responses.input_tokens.with_raw_response.count(model=model, input="x")
    assert counted.parse().input_tokens == 123 and live.record(counted.headers["x-request-id"]).cost == 0
    made = sdk.responses.with_raw_response.compact(model=model, input="x", extra_body={"models": ["dear"]})
    assert "models" not in live.upstream.last(model).json
    assert made.headers["x-airelays-ignored-parameters"] == "models"
    assert made.parse().output[0].type == "compaction" and live.record(made.headers["x-request-id"]).output_tokens == 7


def test_the_channels_overrides_hold_for_counts_and_compactions(live: Portal, server: Server) -> None:
    """What the API of either would refuse is not added: `user` is a parameter of responses alone."""

    async def script(call: Call) -> None:
        if call.path.endswith("/input_tokens"):
            await call.reply(200, {"object": "response.input_tokens", "input_tokens": 123})
        else:
            output = [{"id": "c", "type": "compaction", "encrypted_content": "z"}]
            await call.reply(200, {"id": "r", "object": "response.compaction", "output": output, "usage": USED})

    rules = [
        {"do": "set", "path": "provider.data_collection", "value": "deny"},
        {"do": "set", "path": "service_tier", "value": "flex"},
        {"do": "set", "path": "user", "value": "portal"},
        {"do": "set", "path": "instructions", "value": "Be brief."},
        {"do": "remove", "path": "parallel_tool_calls"},
        {"do": "remove", "path": "input.*.status"},
    ]
    model, token = live.model(script, overrides=rules), live.token()
    said = {"type": "message", "role": "user", "status": "completed", "content": [{"type": "input_text", "text": "x"}]}
    body = {"model": model, "input": [said], "parallel_tool_calls": True}
    kept = {"provider": {"data_collection": "deny"}, "instructions": "Be brief."}
    for path, more in (("input_tokens", {}), ("compact", {"service_tier": "flex"})):
        answer = server.post(token, body, path=f"/v1/responses/{path}")
        assert answer.status_code == 200, answer.text
        sent = live.upstream.last(model)
        assert sent.path.endswith(path)
        told = sent.json.pop("input")
        assert sent.json == {"model": model, **kept, **more}
        assert [item["content"] for item in told] == [said["content"]] and "status" not in told[0]
        named = answer.headers["x-airelays-ignored-parameters"]
        assert "parallel_tool_calls" in named and "input.%2A.status" in named


def test_a_compaction_that_its_upstream_turns_out_to_lack_is_still_one_request_with_one_receipt(
    live: Portal, server: Server
) -> None:
    from relay.models import Token, UsageRecord
    from relay.models.token import digest_of

    async def script(call: Call) -> None:
        if call.path == "/v1/responses/compact":
            await call.reply(
                404, {"error": {"message": "Not Found", "type": "invalid_request_error", "param": None, "code": None}}
            )
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


def test_a_count_that_its_upstream_turns_out_to_lack_is_made_here_and_recorded_as_answered(
    live: Portal, server: Server
) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/responses/input_tokens"
        await call.reply(
            404, {"error": {"message": "Not Found", "type": "invalid_request_error", "param": None, "code": None}}
        )

    model = live.model(script, price={"input": 1, "output": 1})
    token = live.token()
    answer = server.post(
        token, {"model": model, "input": "How many tokens is this?"}, path="/v1/responses/input_tokens"
    )
    assert answer.status_code == 200 and 2 < answer.json()["input_tokens"] < 30
    assert answer.headers["x-airelays-estimated"] == "input_tokens"
    record = live.record(answer)
    assert (record.end_reason, record.status, record.cost) == ("completed", 200, 0)
    again = server.post(token, {"model": model, "input": "How many tokens is this?"}, path="/v1/responses/input_tokens")
    assert again.json() == answer.json()


# -- by a trigger in the input ---------------------------------------------------------------------------------------

TALK: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "I like tea."}]},
    {"type": "function_call", "call_id": "c", "name": "f", "namespace": "n", "arguments": "{}"},
]
TRIGGERED: dict[str, Any] = {
    "input": [
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]},
        *TALK,
        {"type": "compaction_trigger"},
    ],
    "tools": [{"type": "function", "name": "g"}],
    "tool_choice": "auto",
    "include": ["reasoning.encrypted_content"],
    "store": False,
}


async def _own_compaction(call: Call) -> None:
    """OpenAI's endpoint: the user's messages, and the compaction under its older name."""
    if not call.path.endswith("/compact"):
        await call.reply(200, response(1, "no summary was asked for"))
        return
    allowed = {"model", "input", "tools"}
    if unknown := call.json.keys() - allowed:
        await call.error(400, f"Unknown parameter: '{min(unknown)}'.", "unknown_parameter")
        return
    item = {"id": "c", "type": "compaction_summary", "encrypted_content": "gAAA"}
    made = {"id": "resp_c", "object": "response.compaction", "created_at": 1, "output": [TALK[0], item], "usage": USED}
    await call.reply(200, made)


async def _without_compaction(call: Call) -> None:
    """A server of /responses that knows neither the endpoint nor the item."""
    if call.path.endswith("/compact"):
        await call.reply(404, {"detail": "Not Found"})
    elif "compaction_trigger" in str(call.json):
        await call.error(400, "Unknown item type: compaction_trigger")
    else:
        await call.reply(200, response(1, "They like tea."))


async def _welcoming(call: Call) -> None:
    """A gateway that answers unknown paths with 200."""
    made = {"message": "Welcome to the API."} if call.path.endswith("/compact") else response(1, "They like tea.")
    await call.reply(200, made)


async def _chat(call: Call) -> None:
    assert call.path == "/v1/chat/completions" and not refusal(call.json)
    await call.reply(200, completion("They like tea."))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (_own_compaction, {}),
        (_without_compaction, {"provider": "vllm"}),
        (_without_compaction, {}),
        (_welcoming, {}),
        (_chat, {"text_api": "chat"}),
    ],
    ids=["own", "responses", "lacking", "welcoming", "chat"],
)
def test_a_trigger_is_answered_with_one_compaction_that_the_conversation_goes_on_from(
    live: Portal, server: Server, script: Script, options: dict[str, Any], stream: bool
) -> None:
    model = live.model(script, price={"input": 1, "output": 1}, **options)
    token = live.token()
    answer = server.post(token, {"model": model, **TRIGGERED, "stream": stream}, path="/v1/responses")
    assert answer.status_code == 200, answer.text
    if stream:
        found = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
        made = found[-1]["response"]
        assert found[-1]["type"] == "response.completed" and done == made["output"]
    else:
        made = answer.json()
    (item,) = made["output"]
    assert item["type"] == "compaction" and item["encrypted_content"] and made["status"] == "completed"
    assert made["object"] == "response" and made["usage"]["output_tokens"] == 7 and made["store"] is False
    record = live.record(answer)
    assert (record.endpoint, record.end_reason, record.output_tokens) == ("responses.compact", "completed", 7)
    again = server.post(
        token, {"model": model, "input": [item, {"role": "user", "content": "And?"}]}, path="/v1/responses"
    )
    assert again.status_code == 200
    if script is not _own_compaction:
        assert "They like tea." in str(live.upstream.last(model).json)


@pytest.mark.parametrize(
    "text", ["", "<think>the user wants a summary of whales</think>\n", "<think>whales and", "\u00a0\u200b\n"]
)
def test_no_summary_is_no_compaction(live: Portal, server: Server, text: str) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, completion(text))

    model = live.model(script, text_api="chat", price={"input": 1, "output": 1})
    for body, path in (({"input": TALK}, "/v1/responses/compact"), (TRIGGERED, "/v1/responses")):
        answer = server.post(live.token(), {"model": model, **body}, path=path)
        assert answer.status_code == 502 and live.record(answer).cost == 0


def test_thinking_is_no_part_of_a_summary(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, completion("<think>about whales</think>\n\nThey like tea."))

    model, token = live.model(script, text_api="chat"), live.token()
    made = server.post(token, {"model": model, "input": TALK}, path="/v1/responses/compact").json()["output"]
    server.post(token, {"model": model, "input": made}, path="/v1/responses")
    told = str(live.upstream.last(model).json)
    assert "They like tea." in told and "whales" not in told


def _item(content: object) -> dict[str, Any]:
    return {"type": "compaction", "id": "cmp_1", "encrypted_content": content}


@pytest.mark.parametrize("content", ["", "%%%", "YWJ", "gICA", "ICA=", "4oCL", "They like tea."])
def test_a_damaged_summary_of_the_portal_is_refused(live: Portal, server: Server, content: str) -> None:
    model = live.model(_chat, text_api="chat")
    damaged = _item(f"airelays-summary.{content}")
    body = {"model": model, "input": [{"role": "user", "content": "x"}, damaged]}
    for path in ("/v1/responses", "/v1/responses/compact"):
        answer = server.post(live.token(), body, path=path)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "input[1].encrypted_content"
        assert "damaged" in answer.json()["error"]["message"]
    answer = server.post(live.token(), {"items": [damaged]}, path="/v1/conversations")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "items[0].encrypted_content"
    assert not live.upstream.count(model)


def test_what_replaces_a_conversation_is_neither_longer_nor_cut(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, completion("word " * 2_000))

    model = live.model(script, text_api="chat", price={"input": 1, "output": 1})
    token = live.token()
    for body, path in (({"input": TALK}, "/v1/responses/compact"), (TRIGGERED, "/v1/responses")):
        answer = server.post(token, {"model": model, **body}, path=path)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "compaction_incomplete", answer.text
        assert "longer" in answer.json()["error"]["message"] and live.record(answer).cost > 0
    long = [{"role": "user", "content": "words " * 3_000}]
    assert server.post(token, {"model": model, "input": long}, path="/v1/responses/compact").status_code == 200


@pytest.mark.parametrize("content", ["", "  ", "\u200b", None, 5, "airelays-summary."])
def test_an_empty_compaction_of_an_upstream_is_none(live: Portal, server: Server, content: object) -> None:
    async def script(call: Call) -> None:
        if call.path.endswith("/compact"):
            made = {"id": "resp_c", "object": "response.compaction", "created_at": 1, "usage": USED}
            await call.reply(200, {**made, "output": [TALK[0], _item(content)]})
        else:
            await call.reply(200, response(1, "They like tea."))

    model, token = live.model(script), live.token()
    answer = server.post(token, {"model": model, "input": TALK}, path="/v1/responses/compact")
    assert answer.status_code == 502
    (item,) = server.post(token, {"model": model, **TRIGGERED}, path="/v1/responses").json()["output"]
    assert item["encrypted_content"] not in {content, ""}, "the model itself writes the summary"


def test_a_trigger_in_the_background_is_refused(live: Portal, server: Server) -> None:
    model = live.model(_chat, text_api="chat")
    body = {"model": model, "input": TRIGGERED["input"], "background": True}
    answer = server.post(live.token(), body, path="/v1/responses")
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "background"


# -- more room -------------------------------------------------------------------------------------------------------


def _limit(call: Call) -> int:
    found = call.json.get("max_output_tokens") or call.json.get("max_completion_tokens") or call.json["max_tokens"]
    assert isinstance(found, int)
    return found


async def _thinks_long(call: Call) -> None:
    """A model that uses 20,000 tokens, most of them thinking."""
    enough = _limit(call) >= 20_000
    used = {"prompt_tokens": 100, "completion_tokens": 20_000 if enough else _limit(call), "total_tokens": 0}
    used["total_tokens"] = used["prompt_tokens"] + used["completion_tokens"]
    answer = completion("They like tea." if enough else "")
    answer["choices"][0]["finish_reason"] = "stop" if enough else "length"
    await call.reply(200, {**answer, "usage": used})


def _records(user: int) -> list[tuple[str, int, int]]:
    from relay.models import UsageRecord

    found = UsageRecord.objects.filter(user_id=user).order_by("output_tokens")
    return [(one.end_reason, one.output_tokens, one.cost) for one in found]


@pytest.mark.parametrize(("body", "path"), [({"input": TALK}, "/v1/responses/compact"), (TRIGGERED, "/v1/responses")])
def test_a_summary_that_was_cut_is_asked_for_again_with_more_room_and_both_are_charged(
    live: Portal, server: Server, body: dict[str, Any], path: str
) -> None:
    model = live.model(_thinks_long, text_api="chat", price={"input": 1, "output": 1})
    user = live.user(balance=10**12)
    answer = server.post(live.token(user), {"model": model, **body}, path=path)
    assert answer.status_code == 200, answer.text
    assert [item["type"] for item in answer.json()["output"]][-1] == "compaction"
    first, second = 8_292_000, 20_100_000
    assert _records(user.pk) == [("truncated", 8192, first), ("completed", 20_000, second)]
    assert live.record(answer).output_tokens == 20_000 and settled(user).balance == 10**12 - first - second


def test_a_summary_that_is_cut_again_is_an_error(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        answer = completion("They")
        answer["choices"][0]["finish_reason"] = "length"
        await call.reply(200, answer)

    model = live.model(script, text_api="chat", price={"input": 1, "output": 1})
    answer = server.post(live.token(), {"model": model, "input": TALK}, path="/v1/responses/compact")
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "compaction_incomplete"
    assert live.upstream.count(model) == 2
    assert answer.headers.get_list("x-relay-attempts") == ["2"]


@pytest.mark.parametrize(
    ("balance", "limits", "longest", "why"),
    [
        (9 * 10**6, {}, None, "money"),
        (10**12, {"max_rpm": 1}, None, "limits"),
        (10**12, {}, 8_000, "writes no longer ones"),
    ],
    ids=["wallet", "limit", "model"],
)
def test_no_more_room_is_given_than_wallet_limits_and_model_have(
    live: Portal, server: Server, balance: int, limits: dict[str, int], longest: int | None, why: str
) -> None:
    from relay.models import Token
    from relay.models.token import digest_of

    model = live.model(_thinks_long, text_api="chat", price={"input": 1, "output": 1})
    if longest is not None:
        from relay.models import Model

        Model.objects.filter(name=model).update(max_output_tokens=longest)
    user = live.user(balance=balance)
    token = live.token(user)
    row = Token.objects.get(digest=digest_of(token))
    for name, value in limits.items():
        setattr(row, name, value)
    row.save()
    server.catch_up()
    answer = server.post(token, {"model": model, "input": TALK}, path="/v1/responses/compact")
    assert answer.status_code == 400 and why in answer.json()["error"]["message"], answer.text
    assert _records(user.pk) == [("truncated", 8192, 8_292_000)] and live.upstream.count(model) == 1


def test_an_upstream_that_refuses_more_room_is_no_error_of_the_client(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if _limit(call) > 16_384:
            message = "max_tokens is too large: 32768. This model supports at most 16384 completion tokens."
            await call.error(400, message, "invalid_value")
        else:
            await _thinks_long(call)

    model = live.model(script, text_api="chat", price={"input": 1, "output": 1})
    user = live.user(balance=10**12)
    answer = server.post(live.token(user), {"model": model, "input": TALK}, path="/v1/responses/compact")
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "compaction_incomplete"
    assert "the upstream refused a longer one" in answer.json()["error"]["message"]
    assert _records(user.pk) == [("truncated", 0, 0), ("truncated", 8192, 8_292_000)]
