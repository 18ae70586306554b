"""Stored and background responses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.endpoints.text.responses_upstream import Upstream, response
from tests.support.asserts import until
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared


def test_kept_listed_and_deleted(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    made = sdk.responses.create(
        model=model,
        input=[
            {"role": "user", "content": "one"},
            {"role": "user", "content": [{"type": "input_text", "text": "two"}]},
        ],
    )
    assert sdk.responses.retrieve(made.id).output_text == made.output_text
    items: list[Any] = list(sdk.responses.input_items.list(made.id, order="asc", limit=1))
    assert [item.content[0].text for item in items] == ["one", "two"] and all(item.id for item in items)
    assert [event.type for event in sdk.responses.retrieve(made.id, stream=True, starting_after=1)][
        -1
    ] == "response.completed"
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    until(lambda: upstream.made == upstream.deleted)


def test_what_shall_not_be_kept_is_not(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    made = sdk.responses.create(model=native[0], input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model=native[0], input="x", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"


def test_nobody_else_sees_or_uses_what_is_kept(
    sdk: OpenAI, live: Portal, server: Server, native: tuple[str, Upstream]
) -> None:
    model, _ = native
    made, talk = (
        sdk.responses.create(model=model, input="secret"),
        sdk.conversations.create(items=[{"role": "user", "content": "secret"}]),
    )
    for stranger in (live.token(), live.token(live.user(is_staff=True, is_superuser=True))):
        for method, path in [
            ("GET", f"responses/{made.id}"),
            ("GET", f"responses/{made.id}/input_items"),
            ("DELETE", f"responses/{made.id}"),
            ("POST", f"responses/{made.id}/cancel"),
            ("GET", f"conversations/{talk.id}"),
            ("GET", f"conversations/{talk.id}/items"),
            ("DELETE", f"conversations/{talk.id}"),
        ]:
            assert server.request(method, stranger, f"/v1/{path}").status_code == 404, path
        assert (
            server.post(
                stranger, {"model": model, "input": "x", "previous_response_id": made.id}, path="/v1/responses"
            ).status_code
            == 400
        )
        assert (
            server.post(
                stranger, {"model": model, "input": "x", "conversation": talk.id}, path="/v1/responses"
            ).status_code
            == 400
        )
    other_token = live.token(_user_of(sdk.api_key))
    assert (
        server.get(other_token, f"/v1/responses/{made.id}").status_code == 200
    )  # it belongs to the user, not to the token


def _user_of(secret: str) -> Any:
    from relay.models import Token
    from relay.models.token import digest_of

    return Token.objects.get(digest=digest_of(secret)).user


@pytest.mark.parametrize("stream", [False, True])
def test_upstreams_may_give_all_responses_one_id(live: Portal, server: Server, stream: bool) -> None:
    async def script(call: Call) -> None:
        answer = response(77, f"for {call.json['input']}")
        if not stream:
            await call.reply(200, answer)
            return
        await call.open_stream()
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        for number, event in enumerate(
            [
                {"type": "response.created", "response": begun},
                {"type": "response.in_progress", "response": begun},
                {"type": "response.output_item.done", "output_index": 0, "item": answer["output"][0]},
                {"type": "response.completed", "response": answer},
            ]
        ):
            await call.event({**event, "sequence_number": number})
        await call.end()

    model, alice, bob = live.model(script), live.token(), live.token()
    kept = []
    for token, name in ((alice, "alice"), (bob, "bob"), (alice, "alice again")):
        asked = {"model": model, "input": name, "stream": stream}
        answer = server.post(token, asked, path="/v1/responses")
        assert answer.status_code == 200
        if stream:
            events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
            ids = {event["response"]["id"] for event in events if "response" in event}
            assert len(ids) == 1 and len(events) == 4
            kept.append((token, ids.pop(), name))
        else:
            kept.append((token, answer.json()["id"], name))
    assert len({response_id for _, response_id, _ in kept}) == 3
    for token, response_id, name in kept:
        shown = server.get(token, f"/v1/responses/{response_id}").json()
        assert shown["id"] == response_id and shown["output"][0]["content"][0]["text"] == f"for {name}"
        assert server.get(bob if token == alice else alice, f"/v1/responses/{response_id}").status_code == 404
        assert server.get(token, f"/v1/responses/resp_{77:032x}").status_code == 404


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
    stored_responses.delete_expired(clock.now())
    assert not StoredResponse.objects.filter(pk=row.pk).exists()


def wait_for(sdk: OpenAI, response_id: str) -> Any:
    return until(
        lambda: (found := sdk.responses.retrieve(response_id)).status not in {"queued", "in_progress"} and found
    )


def test_made_in_the_background_and_gone_on_from(sdk: OpenAI, live: Portal, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    made = sdk.responses.create(model=model, input="slow", background=True)
    assert made.status == "queued" and made.background is True
    done = wait_for(sdk, made.id)
    assert live.record(made._request_id).endpoint == "responses", "found by the id that its client was told"
    assert (
        done.id == made.id and done.status == "completed" and done.output_text == "answer 1" and done.background is True
    )
    assert "background" not in upstream.asked[0] and upstream.asked[0]["store"] is False
    assert sdk.responses.create(model=model, input="next", previous_response_id=made.id).output_text == "answer 2"
    assert len(upstream.asked[1]["input"]) == 3


def test_a_background_response_can_be_cancelled(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.closed_event()

    model = live.model(script)
    server.catch_up()
    made = sdk.responses.create(model=model, input="x", background=True)
    until(lambda: live.upstream.count(model))
    assert sdk.responses.cancel(made.id).status == "cancelled"
    live.upstream.wait_closed(model)
    assert wait_for(sdk, made.id).status == "cancelled"


def test_a_background_response_that_fails_says_why(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.error(400, "too long", "context_length_exceeded")

    model = live.model(script)
    server.catch_up()
    found = wait_for(sdk, sdk.responses.create(model=model, input="x", background=True).id)
    assert found.status == "failed" and found.error.message == "too long"


@pytest.mark.parametrize("background", [False, True])
def test_an_answer_is_kept_though_its_conversation_was_deleted_meanwhile(
    sdk: OpenAI, live: Portal, server: Server, background: bool
) -> None:
    talk = sdk.conversations.create(items=[{"role": "user", "content": "I am Ann."}])

    async def script(call: Call) -> None:
        await asyncio.to_thread(sdk.conversations.delete, talk.id)
        await call.reply(200, completion("kept"))

    model = live.model(script, text_api="chat", price={"input": 1, "output": 1})
    server.catch_up()
    made = sdk.responses.create(model=model, input="x", conversation=talk.id, background=background)
    done = wait_for(sdk, made.id)
    assert done.status == "completed" and done.output_text == "kept"
    assert live.record(made._request_id).end_reason == "completed"


def test_a_response_deleted_while_it_is_made_stays_deleted(sdk: OpenAI, live: Portal, server: Server) -> None:
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        await gate.wait()
        await call.reply(200, completion("late"))

    model = live.model(script, text_api="chat")
    server.catch_up()
    made = sdk.responses.create(model=model, input="x", background=True)
    until(lambda: live.upstream.count(model))
    sdk.responses.delete(made.id)
    live.upstream.set(gate)
    assert live.record(made._request_id).end_reason == "completed"
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)


@pytest.mark.parametrize("meanwhile", ["token revoked", "previous deleted", "no room"])
def test_a_background_response_ends_whatever_else_changes(
    sdk: OpenAI, live: Portal, server: Server, meanwhile: str
) -> None:
    from relay.models import Token, Upload
    from relay.models.token import digest_of
    from relay.models.upload import UploadState
    from relay.storage import files
    from relay.tokens.lifecycle import revoke_token

    gate = asyncio.Event()

    async def script(call: Call) -> None:
        if "again" in str(call.json):
            await gate.wait()
        await call.reply(200, completion("made"))

    model = live.model(script, text_api="chat")
    owner = Token.objects.get(digest=digest_of(sdk.api_key)).user
    secret = live.token(owner)
    server.catch_up()
    full = None
    with OpenAI(base_url=server.url + "/v1", api_key=secret, max_retries=0, timeout=30) as other:
        first = other.responses.create(model=model, input="x")
        made = other.responses.create(model=model, input="again", previous_response_id=first.id, background=True)
    until(lambda: live.upstream.count(model) == 2)
    if meanwhile == "token revoked":
        revoke_token(Token.objects.get(digest=digest_of(secret)), actor=None)
        server.catch_up()
    elif meanwhile == "previous deleted":
        sdk.responses.delete(first.id)
    else:
        full = files.reserve_upload(owner.pk, 0, "nobody")
        Upload.objects.filter(pk=full.pk).update(state=UploadState.PART, size=files.storage_limits().user)
    live.upstream.set(gate)
    done = wait_for(sdk, made.id)
    if full is not None:
        files.remove(Upload.objects.get(pk=full.pk))
    assert done.status == "completed" and done.output_text == "made"
    assert live.record(made._request_id).user == owner


def test_turns_of_one_conversation_that_run_together_lose_no_item(sdk: OpenAI, live: Portal, server: Server) -> None:
    gate, answer = asyncio.Event(), response(1, "same")

    async def script(call: Call) -> None:
        await gate.wait()
        await call.reply(200, {**answer, "output": [{**answer["output"][0], "id": "msg_0"}]})

    model = live.model(script, text_api="responses")
    server.catch_up()
    talk = sdk.conversations.create()
    made = [sdk.responses.create(model=model, input="x", conversation=talk.id, background=True) for _ in range(2)]
    until(lambda: live.upstream.count(model) == 2)
    live.upstream.set(gate)
    assert [wait_for(sdk, one.id).status for one in made] == ["completed"] * 2
    items = list(sdk.conversations.items.list(talk.id))
    assert len(items) == 4 and len({item.id for item in items}) == 4


def test_a_background_response_whose_worker_was_killed_has_failed(
    sdk: OpenAI, live: Portal, native: tuple[str, Upstream]
) -> None:
    from relay.models import StoredResponse

    made = sdk.responses.create(model=native[0], input="x")
    StoredResponse.objects.filter(response_id=made.id).update(
        status="in_progress",
        owner=_dead_owner(),
        body='{"id":"x","status":"in_progress","background":true,"output":[]}',
    )
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
