"""Reasoning that only the account can read that made it: where it goes, and what happens elsewhere."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.endpoints.text.responses_upstream import response
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared
LEFT_OUT = "input[reasoning.encrypted_content]"
# What upstreams say of another account's: openai/codex #8145, sub2api #4535, and Google's of a thought signature.
UNREADABLE = {
    "OpenAI": (
        {
            "message": "The encrypted content gAAA...DQ== could not be verified. Reason: Encrypted content could not "
            "be decrypted or parsed.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_encrypted_content",
        }
    ),
    "xAI": {
        "code": "invalid-argument",
        "message": "Could not decrypt the provided encrypted_content. Ensure the value is the unmodified "
        "encrypted_content from a previous response.",
    },
    "Google": {"code": 400, "message": "Unable to submit request because Thought signature is not valid.."},
}


class Accounts:
    """An upstream with two accounts, told apart by their keys, that read only what they have made themselves."""

    def __init__(self, words: str = "OpenAI") -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []  # the account, and the request
        self.down: set[str] = set()
        self.words, self.number = words, 0

    def sealed(self) -> list[list[str]]:
        """The encrypted contents of each request."""
        return [
            [item["encrypted_content"] for item in body["input"] if "encrypted_content" in item]
            for _, body in self.asked
            if isinstance(body["input"], list)
        ]

    async def __call__(self, call: Call) -> None:
        account, body = call.headers["authorization"][-1], call.json
        if account in self.down:
            await call.error(503, "overloaded", "overloaded")
            return
        self.asked.append((account, body))
        items = body["input"] if isinstance(body["input"], list) else []
        if any(item.get("encrypted_content", account)[0] != account for item in items):
            await call.reply(400, {"error": UNREADABLE[self.words]})
            return
        self.number += 1
        answer = response(self.number, f"answer {self.number}")
        reasoning = {"id": f"rs_{self.number}", "type": "reasoning", "summary": []}
        answer["output"].insert(0, {**reasoning, "encrypted_content": f"{account}{self.number}"})
        if not body.get("stream"):
            await call.reply(200, answer)
            return
        await call.open_stream()
        await call.event({"type": "response.created", "response": {**answer, "output": []}})
        for index, item in enumerate(answer["output"]):
            await call.event({"type": "response.output_item.done", "output_index": index, "item": item})
        await call.event({"type": "response.completed", "response": answer})
        await call.end()


@pytest.fixture(params=["channels", "keys"])
def accounts(request: pytest.FixtureRequest, live: Portal, server: Server) -> tuple[str, Accounts]:
    """A model on two accounts: two channels, or two keys of one."""
    upstream = Accounts()
    keys = ("sk-account-0123456789-A", "sk-account-0123456789-B")
    channels = (
        [live.channel(keys=(key,), priority=5 - number) for number, key in enumerate(keys)]
        if request.param == "channels"
        else [live.channel(keys=keys)]
    )
    model = live.model(upstream, channels=channels)
    server.catch_up()
    return model, upstream


def ask(sdk: OpenAI, model: str, items: Any, stream: bool = False, **more: Any) -> tuple[Any, Any]:
    """The response and the headers of its answer."""
    raw = sdk.responses.with_raw_response
    if not stream:
        answer = raw.create(model=model, input=items, store=False, include=["reasoning.encrypted_content"], **more)
        return answer.parse(), answer.headers
    streamed = raw.create(model=model, input=items, store=False, stream=True, **more)
    made = [event.response for event in streamed.parse() if event.type == "response.completed"]
    return made[0], streamed.headers


def replayed(made: Any) -> list[Any]:
    return [item.model_dump(exclude_none=True) for item in made.output]


def other(account: str) -> str:
    return "B" if account == "A" else "A"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stateless_conversation_stays_with_the_account_that_reads_its_reasoning(
    sdk: OpenAI, accounts: tuple[str, Accounts], stream: bool
) -> None:
    model, upstream = accounts
    history: list[Any] = [{"role": "user", "content": "one"}]
    for number in range(1, 5):
        made, headers = ask(sdk, model, history, stream)
        assert "x-airelays-ignored-parameters" not in headers
        history += [*replayed(made), {"role": "user", "content": f"turn {number}"}]
    assert len({account for account, _ in upstream.asked}) == 1 and len(upstream.sealed()[-1]) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_another_account_is_not_shown_it(sdk: OpenAI, accounts: tuple[str, Accounts], stream: bool) -> None:
    model, upstream = accounts
    first, _ = ask(sdk, model, [{"role": "user", "content": "one"}], stream)
    maker = upstream.asked[0][0]
    upstream.down.add(maker)
    history = [{"role": "user", "content": "one"}, *replayed(first), {"role": "user", "content": "two"}]
    second, headers = ask(sdk, model, history, stream)
    assert headers["x-airelays-ignored-parameters"] == LEFT_OUT
    account, body = upstream.asked[-1]
    assert account == other(maker) and upstream.sealed()[-1] == []
    assert [item["role"] for item in body["input"]] == ["user", "assistant", "user"]
    assert len(upstream.asked) == 2  # and not asked with it first
    # Both accounts have made some of it now: the newest decides.
    upstream.down.clear()
    _, headers = ask(sdk, model, [*history, *replayed(second), {"role": "user", "content": "three"}], stream)
    assert upstream.asked[-1][0] == account and upstream.sealed()[-1] == [f"{account}2"]
    assert headers["x-airelays-ignored-parameters"] == LEFT_OUT


@pytest.mark.parametrize("words", UNREADABLE)
@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_of_an_unknown_maker_is_left_out_when_it_cannot_be_read(
    sdk: OpenAI, accounts: tuple[str, Accounts], words: str, stream: bool
) -> None:
    # As after a restart, or when the conversation began elsewhere.
    model, upstream = accounts
    upstream.words = words
    sealed = {"type": "reasoning", "id": "rs_9", "summary": [], "encrypted_content": "Celsewhere"}
    message = {"type": "message", "id": "msg_9", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    history = [{"role": "user", "content": "one"}, sealed, message, {"role": "user", "content": "two"}]
    made, headers = ask(sdk, model, history, stream)
    assert made.output_text == "answer 1" and headers["x-airelays-ignored-parameters"] == LEFT_OUT
    assert upstream.sealed() == [["Celsewhere"], []] and headers["x-relay-attempts"] == "1"
    assert len({account for account, _ in upstream.asked}) == 1
    assert not any("id" in item for item in upstream.asked[-1][1]["input"])


def test_an_upstream_that_refuses_without_it_as_well_is_asked_twice(sdk: OpenAI, live: Portal, server: Server) -> None:
    asked = []

    async def script(call: Call) -> None:
        asked.append(call.json)
        await call.reply(400, {"error": UNREADABLE["OpenAI"]})

    model = live.model(script)
    server.catch_up()
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "Celsewhere"}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, model, [{"role": "user", "content": "one"}, sealed])
    assert caught.value.code == "invalid_encrypted_content" and len(asked) == 2


def test_what_a_kept_response_was_thinking_goes_to_its_account_only(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Accounts()
    keys = ("sk-account-0123456789-A", "sk-account-0123456789-B")
    model = live.model(upstream, channels=[live.channel(keys=(key,), provider="vllm", text_api="both") for key in keys])
    server.catch_up()
    first = sdk.responses.create(model=model, input="one")
    maker = upstream.asked[0][0]
    second = sdk.responses.with_raw_response.create(model=model, input="two", previous_response_id=first.id)
    assert upstream.asked[1][0] == maker and upstream.sealed() == [[f"{maker}1"]]
    assert "x-airelays-ignored-parameters" not in second.headers
    upstream.down.add(maker)
    third = sdk.responses.with_raw_response.create(model=model, input="three", previous_response_id=second.parse().id)
    assert upstream.asked[-1][0] == other(maker) and upstream.sealed()[-1] == []
    assert third.headers["x-airelays-ignored-parameters"] == LEFT_OUT and third.parse().output_text == "answer 3"


def test_a_compaction_of_another_account_is_left_out_aloud(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Accounts()
    model = live.model(upstream)
    server.catch_up()
    history = [
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "Celsewhere"},
        {"role": "user", "content": "go on"},
    ]
    made, headers = ask(sdk, model, history)
    assert made.output_text == "answer 1" and headers["x-airelays-ignored-parameters"] == "input[compaction]"
