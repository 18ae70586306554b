"""Interactions that are kept: whose they are, where they go on, and what is neither."""

from __future__ import annotations

from typing import Any

import pytest

from tests.endpoints.text.interactions.places import PATH, create, model_at, streamed, upstream_of
from tests.support.asserts import check, until
from tests.support.peers.interactions import HELLO, THOUGHT
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared


def test_it_is_its_owners_alone(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        model, owner = model_at(live, upstream), live.user()
        others = {"other": live.token(), "staff": live.token(live.user(is_staff=True, is_superuser=True))}
        token, twin = live.token(owner), live.token(owner)
        made = create(server, token, {"model": model, "input": "Hi."}).json()["id"]
        for other in others.values():
            for method, path in (("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel")):
                check(
                    server.request(method, other, f"{PATH}/{made}{path}"), 404, "invalid_request_error",
                    "not_found", "id",
                )  # fmt: skip
            body = {"model": model, "input": "Hi.", "previous_interaction_id": made}
            check(
                create(server, other, body), 404, "invalid_request_error", "previous_interaction_not_found",
                "previous_interaction_id",
            )  # fmt: skip
        assert len(peer.asked) == 1 and not peer.deleted
        # It belongs to the user, not to the token.
        assert server.get(twin, f"{PATH}/{made}").json()["steps"] == [THOUGHT, HELLO]
        assert server.request("DELETE", twin, f"{PATH}/{made}").json() == {}
        check(server.get(token, f"{PATH}/{made}"), 404, "invalid_request_error", "not_found", "id")
        assert until(lambda: peer.deleted) and not peer.kept


def test_it_is_no_response_and_a_response_is_no_interaction(live: Portal, server: Server) -> None:
    with upstream_of() as (_, upstream):
        model, chat, token = model_at(live, upstream), live.model(text_api="chat"), live.token()
        made = create(server, token, {"model": model, "input": "Hi."}).json()["id"]
        response = server.post(token, {"model": chat, "input": "Hi."}, path="/v1/responses").json()["id"]
        for path in (f"/v1/responses/{made}", f"/v1/responses/{made}/input_items", f"{PATH}/{response}"):
            assert server.get(token, path).status_code == 404, path
        assert server.request("DELETE", token, f"/v1/responses/{made}").status_code == 404
        assert server.request("DELETE", token, f"{PATH}/{response}").status_code == 404
        body = {"model": chat, "input": "Hi.", "previous_response_id": made}
        assert server.post(token, body, path="/v1/responses").json()["error"]["code"] == "previous_response_not_found"
        body = {"model": model, "input": "Hi.", "previous_interaction_id": response}
        assert create(server, token, body).status_code == 404
        assert server.get(token, f"{PATH}/{made}").status_code == 200


def test_its_input_is_shown_when_it_is_asked_for(live: Portal, server: Server) -> None:
    with upstream_of() as (_, upstream):
        token, given = live.token(), [{"type": "user_input", "content": [{"type": "text", "text": "Hi."}]}]
        made = create(server, token, {"model": model_at(live, upstream), "input": given}).json()
        kept = server.get(token, f"{PATH}/{made['id']}").json()
        assert kept == made and "input" not in kept
        assert server.get(token, f"{PATH}/{made['id']}?include_input=true").json() == {**made, "input": given}


def test_it_goes_on_where_it_is_kept_and_nowhere_else(live: Portal, server: Server) -> None:
    """Two channels with two keys each: the first interaction is anywhere, those after it at the same key."""
    with upstream_of() as (first, one), upstream_of() as (second, two):
        keys = ("AIzaFirst-0123456789", "AIzaSecond-0123456789")
        model, token = model_at(live, one, two, keys=keys), live.token()
        made = create(server, token, {"model": model, "input": "Hi."}).json()["id"]
        for _ in range(6):
            answer = create(server, token, {"model": model, "input": "Go on.", "previous_interaction_id": made})
            assert answer.status_code == 200 and answer.json()["previous_interaction_id"] == made, answer.text
            made = answer.json()["id"]
        assert len(set(first.keys)) == 1 and len(first.keys) == 7 and not second.keys
        assert [body.get("previous_interaction_id") for body in first.asked] == [None, *list(first.kept)[:6]]


def test_one_whose_upstream_is_gone_is_told_so(live: Portal, server: Server) -> None:
    from relay.models import ApiKey, Channel

    with upstream_of() as (first, one), upstream_of() as (second, two):
        model, token = model_at(live, one, two), live.token()
        made = create(server, token, {"model": model, "input": "Hi."}).json()["id"]
        key = ApiKey.objects.get(channel=Channel.objects.get(base_url=one.base_url))
        key.delete()
        answer = create(server, token, {"model": model, "input": "Go on.", "previous_interaction_id": made})
        check(
            answer, 400, "invalid_request_error", "previous_interaction_not_kept", "previous_interaction_id"
        )  # fmt: skip
        assert len(first.asked) == 1 and not second.asked


def test_what_the_upstream_has_forgotten_is_told_with_the_clients_id(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        model, token = model_at(live, upstream), live.token()
        made = create(server, token, {"model": model, "input": "Hi."}).json()["id"]
        (theirs,) = peer.kept
        peer.kept.clear()
        answer = create(server, token, {"model": model, "input": "Go on.", "previous_interaction_id": made})
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
        assert made in answer.text and theirs not in answer.text


def test_what_is_not_to_be_kept_is_kept_nowhere(live: Portal, server: Server) -> None:
    from relay.models import StoredResponse

    with upstream_of() as (peer, upstream):
        model, token, user = model_at(live, upstream), None, live.user()
        token = live.token(user)
        made = create(server, token, {"model": model, "input": "Hi.", "store": False}).json()["id"]
        with streamed(server, token, {"model": model, "input": "Hi.", "store": False}) as (_, events):
            assert list(events)[-1]["event_type"] == "interaction.completed"
        assert not peer.kept and not StoredResponse.objects.filter(user=user).exists()
        assert server.get(token, f"{PATH}/{made}").status_code == 404


def test_one_that_is_deleted_while_it_is_streamed_is_not_kept(live: Portal, server: Server) -> None:
    import asyncio

    from relay.models import StoredResponse

    with upstream_of() as (peer, upstream):
        model, user = model_at(live, upstream), live.user()
        token, peer.pause = live.token(user), asyncio.Event()
        with streamed(server, token, {"model": model, "input": "Hi."}) as (_, events):
            made = next(events)["interaction"]["id"]
            assert server.request("DELETE", token, f"{PATH}/{made}").json() == {}
            upstream.set(peer.pause)
            assert list(events)[-1]["event_type"] == "interaction.completed"
        assert until(lambda: peer.deleted) and not StoredResponse.objects.filter(user=user).exists()


def test_an_environment_is_used_again_by_the_interaction_that_has_it(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        agent, token = model_at(live, upstream), live.token()
        peer.ends = {"status": "completed", "environment_id": "env_1"}
        body: dict[str, Any] = {"agent": agent, "input": "Hi.", "environment": {"type": "remote"}}
        made = create(server, token, body).json()
        assert made["environment_id"] == "env_1"
        check(
            create(server, token, {**body, "environment": "env_1"}), 400, "invalid_request_error", "invalid_value",
            "environment",
        )  # fmt: skip
        again = {**body, "environment": "env_1", "previous_interaction_id": made["id"]}
        assert create(server, token, again).status_code == 200 and peer.asked[-1]["environment"] == "env_1"
        check(
            create(server, token, {**again, "environment": "env_2"}), 400, "invalid_request_error", "invalid_value",
            "environment",
        )  # fmt: skip


def test_a_long_answer_goes_on_where_it_was_begun(live: Portal, server: Server) -> None:
    with upstream_of() as (first, one), upstream_of() as (second, two):
        model, token = model_at(live, one, two, keys=("AIzaFirst-0123456789", "AIzaSecond-0123456789")), live.token()
        first.ends = {"status": "requires_continuation", "continuation_token": "token-of-this-answer"}
        body = {"model": model, "input": "Write a book.", "store": False}
        found = create(server, token, body).json()
        assert found["status"] == "requires_continuation"
        for _ in range(6):
            create(server, token, {**body, "continuation_token": found["continuation_token"]})
        assert len(set(first.keys)) == 1 and len(first.keys) == 7 and not second.keys
