"""The official SDK against the relay: it must not notice that one is in between."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import USAGE, Call, chunk

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client(server: Server, live: Portal) -> Iterator[openai.OpenAI]:
    token = live.token()
    server.catch_up()
    with openai.OpenAI(base_url=server.v1, api_key=token, max_retries=0, timeout=20) as made:
        yield made


def test_models(client: openai.OpenAI, live: Portal, server: Server) -> None:
    model = live.model()
    server.catch_up()
    assert model in [entry.id for entry in client.models.list()]
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")


def test_chat_and_streams(client: openai.OpenAI, live: Portal, server: Server) -> None:
    model = live.model()
    server.catch_up()
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    assert (
        answer.choices[0].message.content == "Hello there."
        and answer.usage
        and answer.usage.total_tokens == USAGE["total_tokens"]
    )
    assert answer._request_id and answer._request_id.startswith("req_")
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in chunks) == "Hello there."
    assert all(part.choices for part in chunks), "no usage chunk for those who did not ask"
    chunks = list(
        client.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert not chunks[-1].choices and chunks[-1].usage and chunks[-1].usage.total_tokens == 16
    with client.chat.completions.stream(model=model, messages=MESSAGES) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == "Hello there."


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (409, openai.InternalServerError),
        (413, openai.APIStatusError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (401, openai.InternalServerError),
    ],
)
def test_exception_classes(
    client: openai.OpenAI, live: Portal, server: Server, status: int, expected: type[openai.APIStatusError]
) -> None:
    async def script(call: Call) -> None:
        await call.error(status)

    model = live.model(script)
    server.catch_up()
    with pytest.raises(expected) as caught:
        client.chat.completions.create(model=model, messages=MESSAGES)
    assert (
        caught.value.request_id
        and isinstance(caught.value.body, dict)
        and set(caught.value.body) == {"message", "type", "param", "code"}
    )


def test_own_errors_raise_the_right_classes(client: openai.OpenAI, live: Portal, server: Server) -> None:
    closed = live.model(is_open=False)
    server.catch_up()
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model=closed, messages=MESSAGES)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="none", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=closed, messages=[])
    client.models.list()  # resets the count of bad tokens


def test_failed_streams_raise(client: openai.OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        call.cut()

    model = live.model(script)
    server.catch_up()
    with pytest.raises(openai.APIError, match=r"cut|broke"):
        list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True))


def test_breaking_out_of_a_stream_closes_the_upstream(client: openai.OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        import asyncio

        await call.open_stream()
        while True:
            await call.event(chunk("x"))
            await asyncio.sleep(0.05)

    model = live.model(script)
    server.catch_up()
    stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    for number, _ in enumerate(stream):
        if number == 3:
            break
    stream.close()
    live.upstream.wait_closed(model)


def test_retry_after_one_failure_succeeds(live: Portal, server: Server) -> None:
    failed: list[int] = []

    async def script(call: Call) -> None:
        if not failed:
            failed.append(1)
            await call.error(429, "slow down", "rate_limit_exceeded", {"retry-after-ms": "50"})
            return
        from tests.support.upstream import hello

        await hello(call)

    model, token = live.model(script), live.token()
    server.catch_up()
    with openai.OpenAI(base_url=server.v1, api_key=token, max_retries=2) as client:
        raw = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES)
    assert raw.retries_taken == 1
