"""Google's SDK and the Interactions API: at the mock, which it reads as the real one, and through the portal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google import genai

from tests.api.gemini.clients import sdk_at
from tests.support.asserts import until
from tests.support.peers.interactions import CALL, HELLO, THOUGHT, USAGE, InteractionsUpstream, Peer
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.filterwarnings("ignore:Interactions:UserWarning")

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
Make = Callable[..., tuple[Any, str, Peer]]


@pytest.fixture(params=["direct", "portal"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(place: str, live: Portal, server: Server) -> Iterator[Make]:
    """The SDK at the mock itself or at the portal, the name of a model or agent, and the mock."""
    opened: list[Any] = []

    def made(*turns: list[dict[str, Any]], agent: bool = False, version: str = "v1beta") -> tuple[Any, str, Peer]:
        peer = Peer(*turns)
        upstream = InteractionsUpstream(peer)
        opened.append(upstream)
        name = live.model(
            channels=[live.channel(upstream.base_url, provider="gemini")], price={"input": 1, "output": 8}
        )
        server.catch_up()
        url = server.url if place == "portal" else upstream.base_url.removesuffix("/v1")
        client: genai.Client = sdk_at(url, live.token(), version)
        opened.append(client)
        return client.interactions, name, peer

    yield made
    for one in opened:
        one.stop() if isinstance(one, InteractionsUpstream) else one.close()


def text_of(interaction: Any) -> str:
    return "".join(
        content.text for step in interaction.steps or () if step.type == "model_output" for content in step.content
    )


def heard(events: list[Any]) -> str:
    deltas = [event.delta for event in events if event.event_type == "step.delta"]
    return "".join(delta.text for delta in deltas if delta.type == "text")


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_create(make: Make, place: str, version: str) -> None:
    sdk, model, peer = make(version=version)
    found = sdk.create(model=model, input="Say hello.", generation_config={"max_output_tokens": 100})
    assert found.status == "completed" and text_of(found) == found.output_text == "Hello there."
    assert found.steps[0].signature and found.steps[0].summary[0].text == "They greet me."
    assert found.usage.total_thought_tokens == USAGE["total_thought_tokens"]
    assert found.id.startswith("int_" if place == "portal" else "v1_")
    assert peer.asked[-1]["input"] == "Say hello." and peer.asked[-1]["generation_config"]["max_output_tokens"] == 100


def test_stream(make: Make, place: str) -> None:
    sdk, model, _ = make()
    events = list(sdk.create(model=model, input="Say hello.", stream=True))
    kinds = [event.event_type for event in events]
    assert kinds[0] == "interaction.created" and kinds[-1] == "interaction.completed" and "step.stop" in kinds
    assert heard(events) == "Hello there." and events[-1].interaction.usage.total_input_tokens == 9
    assert len({events[0].interaction.id, events[-1].interaction.id}) == 1
    kept = sdk.get(events[0].interaction.id)
    assert text_of(kept) == "Hello there." and kept.status == "completed"
    # The same events once more, and those behind one of them.
    again = list(sdk.get(events[0].interaction.id, stream=True))
    assert [event.event_type for event in again] == kinds and heard(again) == "Hello there."
    middle = len(events) // 2
    rest = list(sdk.get(events[0].interaction.id, stream=True, last_event_id=events[middle].event_id))
    assert [event.event_id for event in rest] == [event.event_id for event in events[middle + 1 :]]


def test_background(make: Make, place: str) -> None:
    sdk, agent, peer = make([THOUGHT, HELLO])
    asked: Any = {"agent": agent, "input": "Find out.", "background": True, "agent_config": {"type": "deep-research"}}
    begun = sdk.create(**asked, extra_headers={"Api-Revision": "2026-05-20"})
    assert begun.status == "in_progress" and not begun.steps
    found = until(lambda: (now := sdk.get(begun.id)).status != "in_progress" and now)
    assert found.status == "completed" and text_of(found) == "Hello there." and found.usage.total_tokens == 23
    assert found.agent == agent and found.id == begun.id
    assert peer.asked[-1]["background"] is True and peer.asked[-1]["agent"] == agent
    assert place == "direct" or set(peer.revisions) == {"2026-05-20"}  # also where the portal asks by itself


def test_background_as_a_stream(make: Make, place: str) -> None:
    sdk, agent, _ = make([THOUGHT, HELLO])
    events = list(sdk.create(agent=agent, input="Find out.", background=True, stream=True))
    assert heard(events) == "Hello there." and events[-1].interaction.status == "completed"
    rest = list(sdk.get(events[0].interaction.id, stream=True, last_event_id=events[-2].event_id))
    assert [event.event_type for event in rest] == ["interaction.completed"]


def test_cancel_and_delete(make: Make, place: str) -> None:
    sdk, model, peer = make()
    peer.polls_needed = 10_000
    begun = sdk.create(model=model, input="Think long.", background=True)
    assert sdk.cancel(begun.id).status == "cancelled"
    assert until(lambda: peer.cancelled)
    assert sdk.get(begun.id).status == "cancelled"
    sdk.delete(begun.id)
    with pytest.raises(Exception, match="404") as caught:
        sdk.get(begun.id)
    assert caught.value.status_code == 404 and caught.value.body["error"]["code"] == "not_found"  # type: ignore[attr-defined]
    assert until(lambda: peer.deleted)


def test_a_loop_of_tools_that_goes_on_from_the_interaction_before(make: Make, place: str) -> None:
    sdk, model, peer = make([THOUGHT, CALL], [HELLO])
    first = sdk.create(model=model, input="Will it rain in Paris?", tools=[WEATHER])
    assert first.status == "requires_action"
    (call,) = [step for step in first.steps if step.type == "function_call"]
    assert call.arguments == {"city": "Paris"}
    result = {"type": "function_result", "call_id": call.id, "name": call.name, "result": {"rain": False}}
    last = sdk.create(model=model, input=[result], tools=[WEATHER], previous_interaction_id=first.id)
    assert text_of(last) == "Hello there." and last.previous_interaction_id == first.id
    assert peer.asked[-1]["input"] == [result] and peer.asked[-1]["previous_interaction_id"] in peer.kept


def test_a_streamed_call_is_kept_whole(make: Make, place: str) -> None:
    sdk, model, _ = make([THOUGHT, CALL])
    events = list(sdk.create(model=model, input="Will it rain in Paris?", tools=[WEATHER], stream=True))
    pieces = [event.delta.arguments for event in events if getattr(event, "delta", None) is not None
              and event.delta.type == "arguments_delta"]  # fmt: skip
    assert "".join(pieces) == '{"city": "Paris"}' and events[-1].interaction.status == "requires_action"
    (call,) = [step for step in sdk.get(events[0].interaction.id).steps if step.type == "function_call"]
    assert call.arguments == {"city": "Paris"} and call.name == "weather"


def test_the_conversation_in_one_piece(make: Make, place: str) -> None:
    sdk, model, peer = make()
    first = sdk.create(model=model, input="Say hello.", store=False)
    turns = [
        {"type": "user_input", "content": [{"type": "text", "text": "Say hello."}]},
        *[step.model_dump(exclude_none=True) for step in first.steps],
        {"type": "user_input", "content": [{"type": "text", "text": "Again."}]},
    ]
    assert text_of(sdk.create(model=model, input=turns, store=False)) == "Hello there."
    assert [step["type"] for step in peer.asked[-1]["input"]] == ["user_input", "thought", "model_output", "user_input"]
    assert peer.asked[-1]["store"] is False and peer.kept == {}
    with pytest.raises(Exception, match="404"):
        sdk.get(first.id)


def test_errors(make: Make, place: str) -> None:
    sdk, model, _ = make()
    with pytest.raises(Exception, match="400") as caught:
        sdk.create(model=model, input="x", extra_body={"unheard_of": 1})
    assert caught.value.status_code == 400 and caught.value.body["error"]["code"] == "parameter_unknown"  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="404") as caught:
        sdk.create(model=model, input="x", previous_interaction_id="v1_of_somebody_else_entirely")
    assert caught.value.body["error"]["code"] == "not_found"  # type: ignore[attr-defined]
