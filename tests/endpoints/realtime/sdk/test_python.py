"""What OpenAI's Python SDK can do with realtime sessions: at the scripted upstream itself, and through the portal."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import websockets
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI
from openai.types.beta.realtime import RealtimeServerEvent as OlderEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from tests.support.asserts import until
from tests.support.peers.conversing import CLOSE, EVERYTHING, TRANSCRIPT, converse
from tests.support.peers.every_event import every_event
from tests.support.peers.realtime import ANSWER
from tests.support.peers.spoken import Realtime

AUDIO = base64.b64encode(bytes(4800)).decode()  # a tenth of a second
LEFT_OUT = "rate_limits.updated"  # of the portal's account; the client of these tests has none
WAYS = pytest.mark.parametrize("way", ["directly", "through the portal"])


class Sdk:
    """The SDK at the upstream or at the portal, at a model that converses."""

    def __init__(self, spoken: Realtime, way: str) -> None:
        self.spoken, self.direct = spoken, way == "directly"
        self.model = spoken.model(converse)
        self.up = spoken.upstream_name(self.model)
        self.token = "sk-upstream" if self.direct else spoken.live.token()
        self.base = spoken.upstream.base_url if self.direct else f"{spoken.server.url}/v1"
        if self.direct:
            self.model = self.up
        spoken.server.catch_up()

    @property
    def got(self) -> list[Any]:
        """All events that the upstream has got."""
        return [event for call in self.spoken.upstream.calls[self.up] for event in call.got]

    @asynccontextmanager
    async def client(self, token: str = "") -> AsyncIterator[AsyncOpenAI]:
        # Without an address of websockets, its older realtime client speaks TLS to every server.
        sockets = self.base.replace("http", "ws", 1)
        async with AsyncOpenAI(
            api_key=token or self.token, base_url=self.base, websocket_base_url=sockets, max_retries=0
        ) as made:
            yield made


@pytest.fixture
def sdk(spoken: Realtime) -> Sdk:
    return Sdk(spoken, "through the portal")


def run(work: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(300):
            await work

    asyncio.run(limited())


async def event_of(connection: Any, kind: str) -> Any:
    """The next event of a type."""
    while (event := await connection.recv()).type != kind:
        pass
    return event


@pytest.mark.parametrize("older", [False, True])
def test_the_events_are_those_of_the_sdk(older: bool) -> None:
    types: TypeAdapter[Any] = TypeAdapter(OlderEvent if older else RealtimeServerEvent)
    events = every_event(older)
    for event in events:
        types.validate_python(event)
    assert len(events) > (30 if older else 40) and events[-1]["type"] == "response.done"


def expected(direct: bool) -> list[dict[str, Any]]:
    return [event for event in every_event() if direct or event["type"] != LEFT_OUT]


@WAYS
def test_every_event_comes_as_it_was_sent(spoken: Realtime, way: str) -> None:
    sdk = Sdk(spoken, way)

    async def work() -> None:
        async with sdk.client() as client, client.realtime.connect(model=sdk.model) as connection:
            await event_of(connection, "session.created")
            await connection.response.create(response={"metadata": EVERYTHING})
            found = []
            async for event in connection:
                found.append(event.to_dict())
                if event.type == "response.done":
                    break
        assert found == expected(sdk.direct)

    run(work())


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
def test_every_event_comes_to_handlers_and_to_clients_without_async(sdk: Sdk) -> None:
    heard: list[str] = []
    with (
        OpenAI(api_key=sdk.token, base_url=sdk.base, max_retries=0) as client,
        client.realtime.connect(model=sdk.model) as connection,
    ):

        def on_event(event: Any) -> None:
            heard.append(event.type)
            if event.type == "session.created":
                connection.response.create(response={"metadata": EVERYTHING})
            if event.type == "response.done":
                connection.close()

        connection.on("event", on_event)
        connection.on("error", lambda event: heard.append(f"handled {event.type}"))
        connection.dispatch_events()
    said = ["session.created", *(event["type"] for event in expected(False))]
    assert [kind for kind in heard if kind != "handled error"] == said and "handled error" in heard


@WAYS
@pytest.mark.parametrize("older", [False, True])
def test_every_event_of_a_client_arrives_as_it_was_sent(spoken: Realtime, way: str, older: bool) -> None:
    sdk = Sdk(spoken, way)
    item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
    tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    settings: Any = {"instructions": "Be brief.", "tools": [tool], "tool_choice": "auto"}
    settings |= {"modalities": ["text"]} if older else {"type": "realtime", "output_modalities": ["text"]}

    async def work() -> None:
        async with sdk.client() as client:
            api: Any = client.beta.realtime if older else client.realtime
            async with api.connect(model=sdk.model) as connection:
                await connection.session.update(session=settings, event_id="a")
                await connection.input_audio_buffer.append(audio=AUDIO, event_id="b")
                await connection.input_audio_buffer.commit(event_id="c")
                await connection.conversation.item.create(item=item, previous_item_id="root", event_id="d")
                await connection.conversation.item.retrieve(item_id="item_1", event_id="e")
                await connection.conversation.item.truncate(
                    item_id="item_1", content_index=0, audio_end_ms=10, event_id="f"
                )
                await connection.conversation.item.delete(item_id="item_1", event_id="g")
                await connection.response.create(response={"instructions": "Now."}, event_id="h")
                await event_of(connection, "response.done")
                await connection.response.cancel(response_id="resp_none", event_id="i")
                error = (await event_of(connection, "error")).error
                assert (error.code, error.event_id) == ("response_cancel_not_active", "i")
                await connection.output_audio_buffer.clear(event_id="j")
                await connection.input_audio_buffer.clear(event_id="k")
                await event_of(connection, "input_audio_buffer.cleared")

    run(work())
    got = sdk.got
    assert [event["event_id"] for event in got] == list("abcdefghijk")
    assert got[0]["session"] == settings and got[3]["item"] == item and got[3]["previous_item_id"] == "root"
    assert got[1]["audio"] == AUDIO and got[5]["audio_end_ms"] == 10 and got[7]["response"] == {"instructions": "Now."}


def test_an_event_that_the_portal_refuses_is_named_by_its_id(sdk: Sdk) -> None:
    async def work() -> None:
        async with sdk.client() as client, client.realtime.connect(model=sdk.model) as connection:
            ids = []
            for name in ("first", "second"):
                session: Any = {"type": "realtime", "model": "gpt-other"}
                await connection.session.update(session=session, event_id=name)
                refused = await event_of(connection, "error")
                assert (refused.error.code, refused.error.param) == ("model_not_allowed", "session.model")
                assert refused.error.event_id == name
                ids.append(refused.event_id)
            assert len(set(ids)) == 2, "each event has an id of its own"
            await connection.response.create()
            await event_of(connection, "response.done")

    run(work())


@WAYS
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "the session has ended"), (1011, "server error"), (4000, "session_expired")]
)
def test_the_close_of_an_upstream_is_seen(spoken: Realtime, way: str, code: int, reason: str) -> None:
    sdk = Sdk(spoken, way)

    async def work() -> None:
        async with sdk.client() as client, client.realtime.connect(model=sdk.model) as connection:
            await event_of(connection, "session.created")
            await connection.conversation.item.delete(item_id=f"{CLOSE} {code} {reason}")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await event_of(connection, "conversation.item.deleted")
            assert closed.value.rcvd is not None and closed.value.rcvd.code == code

    run(work())


@WAYS
def test_a_session_goes_on_in_a_new_one_after_a_restart(spoken: Realtime, way: str) -> None:
    sdk = Sdk(spoken, way)
    asked: list[int] = []

    def again(event: Any) -> None:
        asked.append(event.close_code)

    async def work() -> None:
        async with (
            sdk.client() as client,
            client.realtime.connect(model=sdk.model, on_reconnecting=again, initial_delay=0.01) as connection,
        ):
            kinds = []
            async for event in connection:
                kinds.append(event.type)
                if kinds == ["session.created"]:
                    await connection.conversation.item.delete(item_id=f"{CLOSE} 1012 restart")
                elif event.type == "session.created":
                    await connection.response.create()
                elif event.type == "response.done":
                    break
            assert asked == [1012] and kinds.count("session.created") == 2

    run(work())


@pytest.mark.parametrize(("model", "token", "status"), [("none", "", 404), ("", "sk-wrong", 401)])
def test_a_refused_handshake_has_the_status_of_a_refused_request(sdk: Sdk, model: str, token: str, status: int) -> None:
    async def work() -> None:
        async with sdk.client(token) as client:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await client.realtime.connect(model=model or sdk.model).enter()
            assert refused.value.response.status_code == status

    run(work())


def test_a_client_secret_opens_the_session_that_it_was_made_for(sdk: Sdk) -> None:
    async def work() -> None:
        async with sdk.client() as client:
            made = await client.realtime.client_secrets.create(
                session={"type": "realtime", "model": sdk.model, "instructions": "Be brief."},
                expires_after={"anchor": "created_at", "seconds": 60},
            )
            assert made.session.type == "realtime" and made.value.startswith("ek_") and made.expires_at > 1_700_000_000
            settings: Any = {"model": sdk.model, "instructions": "Be brief."}
            older = await client.beta.realtime.sessions.create(**settings)
            assert older.client_secret.value.startswith("ek_") and older.instructions == "Be brief."
        for secret in (made.value, older.client_secret.value):
            async with sdk.client(secret) as client, client.realtime.connect(model=sdk.model) as connection:
                await event_of(connection, "session.updated")
            with pytest.raises(openai.AuthenticationError):
                async with sdk.client(secret) as client:
                    await client.models.list()

    run(work())
    assert [event["session"]["instructions"] for event in sdk.got] == ["Be brief."] * 2


@pytest.mark.parametrize("by", ["secret", "older secret", "first event"])
def test_a_transcription_session(sdk: Sdk, by: str) -> None:
    session: Any = {"type": "transcription", "audio": {"input": {"transcription": {"model": sdk.model}}}}

    async def work() -> None:
        secret = ""
        async with sdk.client() as client:
            if by == "secret":
                made = await client.realtime.client_secrets.create(session=session)
                assert made.session.type == "transcription"
                secret = made.value
            elif by == "older secret":
                older = await client.beta.realtime.transcription_sessions.create(
                    input_audio_transcription={"model": sdk.model}  # type: ignore[arg-type]
                )
                secret = older.client_secret.value
        async with (
            sdk.client(secret) as client,
            client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
        ):
            if by == "first event":
                await connection.session.update(session=session)
            await connection.input_audio_buffer.append(audio=AUDIO)
            await connection.input_audio_buffer.commit()
            pieces = await event_of(connection, "conversation.item.input_audio_transcription.delta")
            whole = await event_of(connection, "conversation.item.input_audio_transcription.completed")
            assert pieces.delta == "hello" and whole.transcript == TRANSCRIPT and whole.usage.input_tokens == 3

    run(work())
    record = sdk.spoken.records(sdk.model)[0]
    assert (record.input_tokens, record.output_tokens) == (3, 2)


@WAYS
def test_a_call_is_made_joined_and_hung_up(spoken: Realtime, way: str) -> None:
    sdk = Sdk(spoken, way)

    async def work() -> None:
        async with sdk.client() as client:
            calls = client.realtime.calls
            made = await calls.create(sdp="v=0\r\n", session={"type": "realtime", "model": sdk.model})
            assert made.text == ANSWER
            call_id = made.response.headers["location"].rpartition("/")[2]
            async with client.realtime.connect(call_id=call_id) as connection:
                await connection.response.create()
                await event_of(connection, "response.done")
            await calls.hangup(call_id)
            with pytest.raises(openai.NotFoundError):  # as soon as it is over
                while True:
                    await calls.hangup(call_id)

    run(work())
    call = until(lambda: next(iter(spoken.upstream.of(sdk.up)), None))
    assert call.over


def test_what_is_not_served_is_told_so(sdk: Sdk) -> None:
    async def work() -> None:
        async with sdk.client() as client:
            calls = client.realtime.calls
            for asked in (
                calls.accept("rtc_x", type="realtime"),
                calls.reject("rtc_x"),
                calls.refer("rtc_x", target_uri="tel:+1"),
                client.realtime.translations.client_secrets.create(session={"model": sdk.model}),
            ):
                with pytest.raises(openai.NotFoundError) as refused:
                    await asked
                assert refused.value.code in {"not_implemented", "unknown_url"}
            with pytest.raises(websockets.InvalidStatus) as closed:
                await client.realtime.translations.connect(model=sdk.model).enter()
            assert 400 <= closed.value.response.status_code < 500

    run(work())


def test_azures_client_opens_a_session(sdk: Sdk) -> None:
    async def work() -> None:
        azure = AsyncAzureOpenAI(
            api_key=sdk.token,
            azure_endpoint=sdk.spoken.server.url,
            websocket_base_url=f"{sdk.spoken.server.url}/openai".replace("http", "ws", 1),
            api_version="2025-04-01-preview",
            max_retries=0,
        )
        async with azure as client, client.realtime.connect(model=sdk.model) as connection:
            await connection.response.create()
            await event_of(connection, "response.done")

    run(work())
