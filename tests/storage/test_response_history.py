"""Conversations of stored responses: whole, in few queries, and without growth."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries

from portal.lib import clock
from relay.models import Conversation, ConversationItem, StoredResponse
from relay.storage import response_history
from relay.storage.response_history import HistoryTooLong, read_history
from relay.storage.responses import find_turn
from tests.support.portal import People


def said(text: str) -> dict[str, Any]:
    return {"id": f"msg_{text}", "type": "message", "role": "user", "content": text}


def keep(user: Any, name: str, previous: str = "", **more: Any) -> StoredResponse:
    now = clock.now()
    columns: dict[str, Any] = {
        "response_id": name,
        "status": "completed",
        "model": "m",
        "previous_id": previous,
        "input": json.dumps([said(f"in {name}")]),
        "output": json.dumps([said(f"out {name}")]),
        "body": "{}",
        "created_at": now,
        "expires_at": now + timedelta(days=30),
        **more,
    }
    return StoredResponse.objects.create(user=user, **columns)


def texts(history: response_history.History) -> list[Any]:
    return [item["content"] for item in history.items]


def test_a_thousand_turns_are_read_in_two_queries(
    people: People, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    now = clock.now()
    StoredResponse.objects.bulk_create(
        StoredResponse(
            user=people.owner,
            response_id=f"resp_{number}",
            previous_id=f"resp_{number - 1}" if number else "",
            input=json.dumps([said(f"in {number}")]),
            output=json.dumps([said(f"out {number}")]),
            created_at=now,
            expires_at=now + timedelta(days=1),
        )
        for number in range(1000)
    )
    with django_assert_max_num_queries(2 if connection.vendor == "sqlite" else 3):
        assert find_turn(people.owner.pk, "resp_999") is not None
        history = read_history(people.owner.pk, "resp_999")
    assert texts(history) == [f"{way} {number}" for number in range(1000) for way in ("in", "out")]
    assert history.whole


def test_branches_have_their_own_past(people: People) -> None:
    for name, previous in [("a", ""), ("b", "a"), ("c", "b"), ("b2", "a"), ("c2", "b2")]:
        keep(people.owner, name, previous)
    keep(people.other, "b2", "a")
    assert texts(read_history(people.owner.pk, "c2")) == ["in a", "out a", "in b2", "out b2", "in c2", "out c2"]
    assert texts(read_history(people.owner.pk, "c")) == ["in a", "out a", "in b", "out b", "in c", "out c"]
    assert texts(read_history(people.other.pk, "b2")) == ["in b2", "out b2"]


@pytest.mark.parametrize("gone", ["deleted", "expired"])
def test_a_conversation_whose_beginning_is_gone_says_so(people: People, gone: str) -> None:
    first = keep(people.owner, "a")
    keep(people.owner, "b", "a")
    keep(people.owner, "c", "b")
    if gone == "deleted":
        first.delete()
    else:
        StoredResponse.objects.filter(pk=first.pk).update(expires_at=clock.now() - timedelta(seconds=1))
    history = read_history(people.owner.pk, "c")
    assert not history.whole and texts(history) == ["in b", "out b", "in c", "out c"]


def test_rows_of_version_0_2_are_read_from_their_bodies_and_end_where_ids_repeat(people: People) -> None:
    body = json.dumps({"output": [said("out old")]})
    keep(people.owner, "resp_0", "resp_0", output=None, body=body)
    keep(people.owner, "resp_1", "resp_0", output=None, body=body)
    history = read_history(people.owner.pk, "resp_1")
    assert texts(history) == ["in resp_0", "out old", "in resp_1", "out old"] and not history.whole


@pytest.mark.parametrize(("limit", "value"), [("MAX_TURNS", 3), ("MAX_CHARACTERS", 300)])
def test_a_conversation_that_is_too_long_is_not_read_in_part(
    people: People, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    for number in range(5):
        keep(people.owner, f"r{number}", f"r{number - 1}" if number else "")
    assert len(read_history(people.owner.pk, "r4").items) == 10
    monkeypatch.setattr(response_history, limit, value)
    with pytest.raises(HistoryTooLong):
        read_history(people.owner.pk, "r4")


def test_a_turn_of_a_conversation_brings_what_came_before_it_there(people: People) -> None:
    talk = Conversation.objects.create(
        user=people.owner, conversation_id="conv_1", created_at=clock.now(), expires_at=clock.now() + timedelta(days=1)
    )
    for text in ("first", "in a", "out a", "in z", "out z"):
        ConversationItem.objects.create(conversation=talk, item_id=f"msg_{text}", body=json.dumps(said(text)))
    keep(people.owner, "a", conversation_id="conv_1")
    keep(people.owner, "b", "a")
    history = read_history(people.owner.pk, "b")
    assert history.whole and texts(history) == ["first", "in a", "out a", "in b", "out b"]


def test_who_made_what_only_its_maker_can_read(people: People) -> None:
    sealed = json.dumps([{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}])
    keep(people.owner, "a", channel_id=7, api_key_id=9, output=sealed)
    keep(people.owner, "b", "a", channel_id=8, output=sealed.replace("gAAA", "gBBB"))
    assert read_history(people.owner.pk, "b").makers == {"gAAA": (7, 9), "gBBB": (8, 0)}


@pytest.mark.parametrize(
    ("columns", "known_as"),
    [
        ({"upstream_keeps": True, "upstream_id": "resp_of_the_upstream"}, "resp_of_the_upstream"),
        ({"upstream_keeps": True}, "resp_of_version_0_2"),
        ({"upstream_keeps": False, "upstream_id": "resp_of_the_upstream"}, ""),
        ({"upstream_keeps": True, "upstream_id": "resp_0"}, ""),  # it may be anybody's
    ],
)
def test_by_which_id_an_upstream_knows_a_response(people: People, columns: dict[str, Any], known_as: str) -> None:
    keep(people.owner, "resp_of_version_0_2", **columns)
    found = find_turn(people.owner.pk, "resp_of_version_0_2")
    assert found is not None and found.upstream_id == known_as


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"input_tokens": 40, "output_tokens": 2}, 42),
        ({"input_tokens": -5, "output_tokens": 2}, 2),
        ({"input_tokens": "many"}, 0),
        (None, 0),
    ],
)
def test_the_tokens_of_a_conversation_are_those_reported(people: People, usage: Any, tokens: int) -> None:
    keep(people.owner, "a", body=json.dumps({"usage": usage}))
    found = find_turn(people.owner.pk, "a")
    assert found is not None and found.tokens == tokens
