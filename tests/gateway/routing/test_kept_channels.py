"""Requests that rather fail than leave the channel with their cache, or than be converted, on every path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.models import Model, UsageRecord
from tests.support.asserts import check, until
from tests.support.portal import Portal, ask
from tests.support.server import Server, serving
from tests.support.upstream import Call, Upstream, completion, failing

pytestmark = pytest.mark.shared
LARGE = "Request too large for this model: limit 1, requested 2."  # which cools nothing down
Post = Callable[[Server, str, str, str], httpx.Response]


class Moody:
    """An upstream that answers, or refuses while `error` is set."""

    def __init__(self) -> None:
        self.error: tuple[int, str] | None = None

    async def script(self, call: Call) -> None:
        if self.error is not None:
            await call.error(self.error[0], self.error[1], "mock", {"retry-after": "7"} if self.error[0] == 503 else {})
        else:
            await call.reply(200, completion())


def setting(model: str, **values: Any) -> None:
    row = Model.objects.get(name=model)
    for name, value in values.items():
        setattr(row, name, value)
    row.save()


def chat(server: Server, token: str, model: str, talk: str) -> httpx.Response:
    return server.post(token, ask(model, prompt_cache_key=talk))


def streamed(server: Server, token: str, model: str, talk: str) -> httpx.Response:
    return server.post(token, ask(model, user=talk, stream=True))


def responses(server: Server, token: str, model: str, talk: str) -> httpx.Response:
    return server.post(token, {"model": model, "input": "Hi", "prompt_cache_key": talk}, "/v1/responses")


def messages(server: Server, token: str, model: str, talk: str) -> httpx.Response:
    body = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}]}
    return server.post(token, {**body, "metadata": {"user_id": talk}}, "/v1/messages")


PATHS: dict[str, Post] = {"chat": chat, "stream": streamed, "responses": responses, "messages": messages}


@pytest.fixture
def moody(live: Portal, second: Upstream) -> tuple[Moody, str, Any, Any]:
    """A model that rather fails than leaves its cache, on a channel with moods, and on another one that is well."""
    mood = Moody()
    first, spare = live.channel(priority=5, text_api="chat"), live.channel(second.base_url, text_api="chat")
    model = live.model(mood.script, channels=[first, spare])
    setting(model, keeps_cache=True)
    return mood, model, first, spare


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "said", "wait"), [((503, "Overloaded."), "(overloaded)", "7"), ((429, LARGE), "answer now,", "5")]
)
def test_a_conversation_rather_fails_than_leaves_its_warm_channel(
    live: Portal,
    server: Server,
    moody: tuple[Moody, str, Any, Any],
    path: str,
    error: tuple[int, str],
    said: str,
    wait: str,
) -> None:
    mood, model, first, spare = moody
    token, post = live.token(), PATHS[path]
    assert post(server, token, model, "talk").headers["x-relay-channel"] == str(first.pk)
    mood.error = error
    response = post(server, token, model, "talk")
    type_ = "api_error" if path == "messages" else "server_error"
    message = check(response, 503, type_, "warm_channel_unavailable")
    assert said in message and "begin a new conversation" in message and model in message
    assert response.headers["retry-after"] == wait and response.headers.get("x-should-retry") != "false"
    record = live.record(response)
    assert (record.end_reason, record.error_code, record.channel_id) == (
        "no_channel",
        "warm_channel_unavailable",
        first.pk,
    )
    assert post(server, token, model, "another talk").headers["x-relay-channel"] == str(spare.pk), "nothing is cached"


def test_it_stays_where_it_is_cached_when_a_better_channel_comes_back_and_without_the_setting_it_does_not(
    live: Portal, server: Server, moody: tuple[Moody, str, Any, Any]
) -> None:
    mood, model, first, spare = moody
    token = live.token()
    mood.error = (429, LARGE)
    away = chat(server, token, model, "talk")
    assert away.headers["x-relay-channel"] == str(spare.pk)
    log = live.record(away).attempt_log[-1]
    assert log["instead_of"] == [first.pk, first.keys.get().pk] and log["because"] == "too_large"
    mood.error = None
    assert chat(server, token, model, "talk").headers["x-relay-channel"] == str(spare.pk)
    setting(model, keeps_cache=False)
    back = chat(server, token, model, "talk")
    assert back.headers["x-relay-channel"] == str(first.pk)
    turns = UsageRecord.objects.filter(conversation=live.record(back).conversation)
    assert turns.count() == 3 and live.record(back).conversation is not None


def test_what_people_took_away_is_left(live: Portal, server: Server, moody: tuple[Moody, str, Any, Any]) -> None:
    _mood, model, first, spare = moody
    token = live.token()
    assert chat(server, token, model, "talk").headers["x-relay-channel"] == str(first.pk)
    first.enabled = False
    first.save()
    assert chat(server, token, model, "talk").headers["x-relay-channel"] == str(spare.pk)


def test_a_key_out_of_service_is_waited_for_while_its_cache_is_warm(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, completion())

    model, token = live.model(script, keys=("sk-one-0123456789abcd", "sk-two-0123456789abcd")), live.token()
    setting(model, keeps_cache=True)
    record = live.record(chat(server, token, model, "talk"))
    key = record.api_key
    key.auto_disabled = "billing"
    key.save()
    response = chat(server, token, model, "talk")
    check(response, 503, "server_error", "warm_channel_unavailable")
    assert response.headers["retry-after"] == "5"
    UsageRecord.objects.filter(conversation=record.conversation).delete()
    assert chat(server, live.token(), model, "talk").status_code == 200, "another user's conversation"


def test_a_worker_that_had_no_turn_of_it_reads_where_it_is_warm(
    live: Portal, server: Server, moody: tuple[Moody, str, Any, Any], tmp_path: Path
) -> None:
    mood, model, first, _spare = moody
    token = live.token()
    record = live.record(chat(server, token, model, "talk"))
    assert record.channel_id == first.pk
    mood.error = (429, LARGE)
    with serving(tmp_path / "log") as fresh:
        check(chat(fresh, token, model, "talk"), 503, "server_error", "warm_channel_unavailable")
        UsageRecord.objects.filter(pk=record.pk).update(started_at=record.started_at.replace(year=2020))
        assert chat(fresh, token, model, "talk").status_code == 200, "cold by then"


def test_errors_of_the_request_itself_are_passed_on(
    live: Portal, server: Server, moody: tuple[Moody, str, Any, Any]
) -> None:
    mood, model, _first, _spare = moody
    token = live.token()
    chat(server, token, model, "talk")
    mood.error = (400, "Your messages are wrong.")
    assert "messages are wrong" in check(chat(server, token, model, "talk"), 400, "mock_error", "mock")


@pytest.mark.parametrize("path", ["chat", "stream", "responses"])
def test_a_model_may_rather_fail_than_convert(live: Portal, server: Server, path: str) -> None:
    claude = live.channel(provider="anthropic")
    model, token = live.model(failing(500), channels=[claude]), live.token()
    setting(model, native_only=True)
    response = PATHS[path](server, token, model, "talk")
    message = check(response, 503, "server_error", "conversion_refused")
    assert "Use the API of the model's vendor" in message and response.headers["x-should-retry"] == "false"
    assert not [call for call in live.upstream.calls if call.model == model], "no channel was asked"


def test_messages_and_contents_are_not_converted_either(live: Portal, server: Server) -> None:
    model, token = live.model(failing(500), text_api="chat"), live.token()
    setting(model, native_only=True)
    check(messages(server, token, model, "talk"), 503, "api_error", "conversion_refused")
    body = {"contents": [{"parts": [{"text": "Hi"}]}]}
    response = server.post(token, body, f"/v1beta/models/{model}:generateContent")
    check(response, 503, "server_error", "conversion_refused")
    check(
        server.post(token, body, f"/v1beta/models/{model}:streamGenerateContent"),
        503,
        "server_error",
        "conversion_refused",
    )


def test_a_channel_of_the_same_api_serves_and_when_it_fails_no_other_converts(
    live: Portal, server: Server, second: Upstream
) -> None:
    mood = Moody()
    first = live.channel(priority=5, text_api="chat")
    spare = live.channel(second.base_url, provider="anthropic")
    model, token = live.model(mood.script, channels=[first, spare]), live.token()
    setting(model, native_only=True)
    assert chat(server, token, model, "talk").headers["x-relay-channel"] == str(first.pk)
    mood.error = (503, "Overloaded.")
    response = chat(server, token, model, "talk")
    message = check(response, 503, "server_error", "conversion_refused")
    assert "can answer now" in message and response.headers["retry-after"] == "7"


def test_an_api_that_an_upstream_turns_out_to_lack_is_not_replaced_by_a_conversion(
    live: Portal, server: Server
) -> None:
    async def script(call: Call) -> None:
        await (call.reply(404, b"404 page not found") if "responses" in call.path else call.reply(200, completion()))

    model, token = live.model(script, text_api="both"), live.token()
    assert responses(server, token, model, "talk").status_code == 200
    setting(model, native_only=True)
    check(responses(server, token, model, "talk"), 503, "server_error", "conversion_refused")


def test_in_the_background_and_in_batches_as_everywhere(live: Portal, server: Server) -> None:
    model, token = live.model(failing(500), channels=[live.channel(provider="anthropic")]), live.token()
    setting(model, native_only=True)
    begun = server.post(token, {"model": model, "input": "Hi", "background": True}, "/v1/responses").json()

    def ended() -> Any:
        found = server.get(token, f"/v1/responses/{begun['id']}").json()
        return found if found["status"] not in {"queued", "in_progress"} else None

    assert until(ended)["error"]["code"] == "conversion_refused"
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": ask(model)}
    form = {"file": ("b.jsonl", json.dumps(line).encode())}
    file = server.request("POST", token, "/v1/files", files=form, data={"purpose": "batch"}).json()
    job = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = server.post(token, job, "/v1/batches").json()

    def done() -> Any:
        found = server.get(token, f"/v1/batches/{batch['id']}").json()
        return found if found["status"] == "completed" else None

    errors = server.get(token, f"/v1/files/{until(done)['error_file_id']}/content").json()
    assert errors["response"]["body"]["error"]["code"] == "conversion_refused"
