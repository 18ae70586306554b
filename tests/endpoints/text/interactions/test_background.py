"""Interactions in the background: followed to their end, charged once, cancelled, deleted, and what becomes of them
when something ends before they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.text.interactions.places import COST, PATH, create, model_at, upstream_of
from tests.support.asserts import check, until
from tests.support.money import books_balance, settled
from tests.support.peers.interactions import HELLO, THOUGHT
from tests.support.portal import Portal
from tests.support.server import Server, serving

pytestmark = pytest.mark.shared

PLENTY = 10**10  # nano-USD
NEVER = 10**6  # polls


def ended(server: Server, token: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = until(
        lambda: (now := server.get(token, f"{PATH}/{name}").json())["status"] != "in_progress" and now
    )
    return found


def test_it_is_followed_to_its_end_and_charged_once(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        agent, user = model_at(live, upstream), live.user(balance=PLENTY)
        token, peer.polls_needed = live.token(user), 3
        answer = create(server, token, {"agent": agent, "input": "Find out.", "background": True})
        begun = answer.json()
        assert begun["status"] == "in_progress" and begun["agent"] == agent and begun["id"].startswith("int_")
        seen = until(lambda: (now := server.get(token, f"{PATH}/{begun['id']}").json())["steps"] and now)
        assert seen["steps"][0] == THOUGHT  # how far it has come
        found = ended(server, token, begun["id"])
        assert found["steps"] == [THOUGHT, HELLO] and found["status"] == "completed" and found["id"] == begun["id"]
        record = live.record(answer)
        assert record.cost == COST and record.end_reason == "completed" and len(peer.asked) == 1
        settled(user)
        books_balance()
        # It can be gone on from, and cannot be cancelled any more.
        body = {"agent": agent, "input": "And?", "previous_interaction_id": begun["id"]}
        assert create(server, token, body).status_code == 200
        check(
            server.request("POST", token, f"{PATH}/{begun['id']}/cancel"), 400, "invalid_request_error",
            "failed_precondition", "id",
        )  # fmt: skip


def test_what_the_upstream_refuses_is_an_error_at_once(live: Portal, server: Server) -> None:
    from relay.models import RefusedRequest, StoredResponse

    with upstream_of() as (peer, upstream):
        model, user = model_at(live, upstream), live.user()
        body = {"model": model, "input": "Hi.", "background": True, "unheard_of": 1}
        answer = create(server, live.token(user), body)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "parameter_unknown"
        assert not StoredResponse.objects.filter(user=user).exists()
        record = live.record(answer)
        assert record.cost == 0 and record.end_reason == "client_error"
        assert not RefusedRequest.objects.filter(request_id=record.request_id).exists() and len(peer.asked) == 1


def test_another_channel_begins_it(live: Portal, server: Server) -> None:
    async def failing(call: Any) -> None:
        await call.reply(503, {"error": {"code": "unavailable", "message": "The model is overloaded."}})

    with upstream_of() as (_, one), upstream_of() as (second, two):
        one.peer = failing  # type: ignore[assignment]
        token = live.token()
        begun = create(server, token, {"model": model_at(live, one, two), "input": "Hi.", "background": True}).json()
        assert ended(server, token, begun["id"])["status"] == "completed" and len(second.asked) == 1


def test_one_that_fails_says_so_and_is_charged_for_its_usage(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        token = live.token(user := live.user(balance=PLENTY))
        peer.ends = {
            "status": "failed",
            "errors": [{"code": "internal", "message": "A tool at http://10.0.0.7 broke."}],
        }
        answer = create(server, token, {"model": model_at(live, upstream), "input": "Hi.", "background": True})
        found = ended(server, token, answer.json()["id"])
        assert found["status"] == "failed" and "10.0.0.7" not in str(found) and found["errors"][0]["code"] == "internal"
        record = live.record(answer)
        assert record.cost == COST and record.end_reason == "upstream_error"
        settled(user)


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_cancelling_ends_it_at_the_upstream(live: Portal, server: Server, how: str) -> None:
    with upstream_of() as (peer, upstream):
        token = live.token(user := live.user(balance=PLENTY))
        peer.polls_needed = NEVER
        answer = create(server, token, {"model": model_at(live, upstream), "input": "Hi.", "background": True})
        name = answer.json()["id"]
        if how == "delete":
            assert server.request("DELETE", token, f"{PATH}/{name}").json() == {}
            check(server.get(token, f"{PATH}/{name}"), 404, "invalid_request_error", "not_found", "id")
        else:
            assert server.request("POST", token, f"{PATH}/{name}/cancel").json()["status"] == "cancelled"
            assert server.request("POST", token, f"{PATH}/{name}/cancel").json()["status"] == "cancelled"  # once more
        record = live.record(answer)
        assert record.cost == COST and peer.cancelled  # what was made is charged
        assert how == "cancel" or until(lambda: peer.deleted)
        settled(user)
        books_balance()
        if how == "cancel":
            kept = until(lambda: (now := server.get(token, f"{PATH}/{name}").json()).get("usage") and now)
            assert kept["status"] == "cancelled"
            text = server.get(token, f"{PATH}/{name}?stream=true").text
            assert '"status":"cancelled"' in text and text.endswith("event: done\ndata: [DONE]\n\n")


def test_an_upstream_that_does_not_answer_for_a_while_is_asked_again(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        token = live.token()
        peer.polls_needed = NEVER
        name = create(server, token, {"model": model_at(live, upstream), "input": "Hi.", "background": True}).json()[
            "id"
        ]

        async def away(call: Any) -> None:
            await call.reply(500, {"error": {"code": "internal", "message": "x"}})

        asked = len(upstream.calls)
        upstream.peer = away  # type: ignore[assignment]
        until(lambda: len(upstream.calls) > asked + 1)
        peer.polls_needed, upstream.peer = 0, peer
        assert ended(server, token, name)["status"] == "completed"


def test_an_upstream_that_knows_it_no_more_ends_it(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        token = live.token()
        peer.polls_needed = NEVER
        answer = create(server, token, {"model": model_at(live, upstream), "input": "Hi.", "background": True})
        peer.kept.clear()
        found = ended(server, token, answer.json()["id"])
        assert found["status"] == "failed" and found["errors"][0]["message"].startswith("The connection")
        assert live.record(answer).end_reason == "truncated"


def test_its_room_and_its_time_are_limited(live: Portal, tmp_path: Path) -> None:
    with (
        upstream_of() as (peer, upstream),
        serving(
            tmp_path / "log", env={"AIRELAYS_RESPONSE_KEEP_DAYS": "0", "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
        ) as none,
    ):
        model, token = model_at(live, upstream), live.token()
        check(
            create(none, token, {"model": model, "input": "Hi.", "background": True}), 422, "invalid_request_error",
            "unsupported_parameter", "background",
        )  # fmt: skip
        made = create(none, token, {"model": model, "input": "Hi."})
        assert made.status_code == 200 and peer.asked[-1]["store"] is False and not peer.kept
        assert none.get(token, f"{PATH}/{made.json()['id']}").status_code == 404


def test_one_whose_worker_is_killed_is_ended_at_the_upstream_and_charged(
    live: Portal, server: Server, tmp_path: Path
) -> None:
    from relay.models import StoredResponse, Token
    from relay.storage.responses import cancel_response
    from relay.tokens.lifecycle import revoke_token

    with upstream_of() as (peer, upstream):
        users = [live.user(balance=PLENTY) for _ in range(3)]
        token, second, third = map(live.token, users)
        peer.polls_needed = NEVER
        model = model_at(live, upstream)
        with serving(tmp_path / "log", env={"AIRELAYS_FEED_POLL_SECONDS": "0.05"}) as other:
            body = {"model": model, "input": "Hi.", "background": True}
            running, cancelled, done, revoked = (create(other, one, body) for one in (token, token, second, third))
            # It is cancelled on any worker, and its state read on any.
            assert server.get(token, f"{PATH}/{running.json()['id']}").json()["status"] == "in_progress"
            name = cancelled.json()["id"]
            cancel_response(StoredResponse.objects.get(response_id=name).pk)  # as a worker whose notice comes too late
            other.kill()
            assert server.request("POST", token, f"{PATH}/{name}/cancel").json()["status"] == "cancelled"
        theirs = list(peer.kept)[2]
        peer.kept[theirs].status = "completed"  # it ends by itself before anybody asks
        revoke_token(Token.objects.get(user=users[2]), actor=None)
        found = ended(server, token, running.json()["id"])
        assert found["status"] == "failed" and "stopped" in found["errors"][0]["message"]
        assert found["steps"] and found["id"] == running.json()["id"]
        ended_well = ended(server, second, done.json()["id"])
        assert ended_well["status"] == "completed" and ended_well["steps"] == [THOUGHT, HELLO]
        for answer, reason in (
            (running, "shutdown"), (cancelled, "shutdown"), (done, "completed"), (revoked, "shutdown"),
        ):  # fmt: skip
            record = live.record(answer)
            assert (record.end_reason, record.cost, record.usage_source) == (reason, COST, "reported")
        assert len(peer.cancelled) == 3 and theirs not in peer.cancelled
        assert server.get(token, f"{PATH}/{name}").json()["status"] == "cancelled"
        assert server.request("DELETE", token, f"{PATH}/{name}").json() == {}  # nobody follows it any more
        assert all(settled(user) for user in users)
        books_balance()


def test_one_whose_worker_is_killed_and_whose_upstream_does_not_answer_is_charged_by_what_is_known(
    live: Portal, server: Server, tmp_path: Path
) -> None:
    from relay.models import Channel

    with upstream_of() as (peer, upstream):
        token = live.token(user := live.user(balance=PLENTY))
        peer.polls_needed = NEVER
        model = model_at(live, upstream)
        with serving(tmp_path / "log", env={"AIRELAYS_FEED_POLL_SECONDS": "0.05"}) as other:
            answer = create(other, token, {"model": model, "input": "Say much. " * 50, "background": True})
            until(lambda: server.get(token, f"{PATH}/{answer.json()['id']}").json()["steps"])
            Channel.objects.get(served__model__name=model).keys.all().delete()
            server.catch_up()  # before it may find that the other worker is gone
            other.kill()
        assert ended(server, token, answer.json()["id"])["status"] == "failed"
        record = live.record(answer)
        assert (record.end_reason, record.usage_source) == ("shutdown", "estimated") and not peer.cancelled
        assert record.input_tokens > 100 and record.cost == record.input_tokens * 1000 + record.output_tokens * 8000
        settled(user)
        books_balance()


def test_one_that_the_portal_stops_is_cancelled_at_the_upstream(live: Portal, tmp_path: Path) -> None:
    with upstream_of() as (peer, upstream):
        token = live.token()
        peer.polls_needed = NEVER
        environ = {"AIRELAYS_FEED_POLL_SECONDS": "0.05", "AIRELAYS_SHUTDOWN_SECONDS": "1"}
        with serving(tmp_path / "log", env=environ) as other:
            answer = create(other, token, {"model": model_at(live, upstream), "input": "Hi.", "background": True})
        assert live.record(answer).end_reason == "shutdown" and peer.cancelled
