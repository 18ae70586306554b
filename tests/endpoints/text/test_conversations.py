"""/v1/conversations."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.endpoints.text.responses_upstream import response
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared


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


def test_conversations_are_managed(sdk: OpenAI) -> None:
    talk = sdk.conversations.create(metadata={"a": "1"})
    assert sdk.conversations.retrieve(talk.id).metadata == {"a": "1"}
    assert sdk.conversations.update(talk.id, metadata={"b": "2"}).metadata == {"b": "2"}
    added = sdk.conversations.items.create(
        talk.id,
        items=[
            {"role": "user", "content": "x"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "y"}]},
        ],
    )
    first = added.data[0].id
    assert first is not None and sdk.conversations.items.retrieve(first, conversation_id=talk.id).id == first
    sdk.conversations.items.delete(first, conversation_id=talk.id)
    assert len(list(sdk.conversations.items.list(talk.id))) == 1
    assert sdk.conversations.delete(talk.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.conversations.retrieve(talk.id)


def test_an_items_id_can_be_used_once(sdk: OpenAI) -> None:
    item: Any = {"type": "message", "id": "msg_once", "role": "user", "content": "x"}
    with pytest.raises(openai.BadRequestError, match="already"):
        sdk.conversations.create(items=[item, item])
    talk = sdk.conversations.create(items=[item])
    with pytest.raises(openai.BadRequestError, match="already"):
        sdk.conversations.items.create(talk.id, items=[item])
    assert len(list(sdk.conversations.items.list(talk.id))) == 1


@pytest.mark.parametrize("given", ["", "..", ".", "a/b", "x" * 10_000, None, "same id twice", "msg ä", "?", "%2e%2e"])
def test_no_upstream_names_what_is_kept(sdk: OpenAI, live: Portal, server: Server, given: str | None) -> None:
    made = response(700, "ok")

    async def script(call: Call) -> None:
        await call.reply(200, {**made, "output": [{**made["output"][0], "id": given}] * 2})

    model = live.model(script, text_api="responses")
    server.catch_up()
    talk = sdk.conversations.create()
    for _ in range(2):
        sdk.responses.create(model=model, input="x", conversation=talk.id)
    items = list(sdk.conversations.items.list(talk.id))
    assert len({item.id for item in items}) == 6
    for item in items:
        assert item.id and sdk.conversations.items.retrieve(item.id, conversation_id=talk.id).id == item.id
