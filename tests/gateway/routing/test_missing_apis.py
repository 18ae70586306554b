"""Which APIs an upstream is believed to lack, and what proves it."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from relay.errors import UpstreamFailed
from relay.gateway.routing.missing_apis import MissingApis
from relay.gateway.snapshot.views import Route
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass
from relay.providers.subject import says_missing
from tests.gateway.routing.routes import channel

API = "chat.completions"


def error(message: str, **more: object) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, b"404 page not found"),  # Go's servers
        (404, b"<html>nginx</html>"),
        (404, b'{"detail":"Not Found"}'),  # FastAPI
        (404, b'{"timestamp":"x","status":404,"error":"Not Found","path":"/v1/x"}'),  # Spring
        (404, error("Invalid URL (POST /v1/x)", type="invalid_request_error", param=None, code=None)),  # OpenAI
        (404, error("Unknown request URL: POST /openai/v1/x. Please check the URL", code="unknown_url")),  # Groq
        (404, error("File Not Found", type="not_found_error", code=404)),  # llama.cpp
        (404, error("Not Found", type="Not Found", param=None, code=404)),  # vLLM
        (404, error("Resource not found", code="404")),  # Azure
        (405, b'{"detail":"Method Not Allowed"}'),
        (501, error("not implemented", type="server_error")),
        (307, b""),  # FastAPI, which wants a slash at the end
        (302, error("Sign in")),  # of a proxy
        (401, b"<html>Sign in</html>"),
    ],
)
def test_what_servers_say_of_paths_that_they_do_not_know(status: int, body: bytes) -> None:
    assert says_missing(status, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, error("Item with id 'rs_68af' not found. Items are not persisted when `store` is set to false.")),
        (404, error("Vector store with id ['vs_bad'] not found.", param="tools")),
        (404, error("Voice 'bad' not found")),
        (404, error("Response not found")),
        (404, error("Item with id 'Invalid URL (POST' not found.", param="input")),
        (404, b'{"detail":"Item rs_1 not found"}'),
        (404, error("", type="not_found_error")),
        (400, error("Invalid URL (POST /v1/x)")),
        (403, b""),
        (401, error("Incorrect API key provided: sk-x.", code="invalid_api_key")),
        (304, b""),
        (500, b""),
    ],
)
def test_what_is_about_a_part_of_the_request_is_not_about_the_path(status: int, body: bytes) -> None:
    assert not says_missing(status, body)


class Upstream(httpx.AsyncBaseTransport):
    """Answers a probe."""

    def __init__(self, status: int, body: bytes = b"") -> None:
        self.status, self.body = status, body
        self.asked: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(await request.aread())
        if not self.status:
            raise httpx.ConnectError("gone")
        return httpx.Response(self.status, content=self.body)


def suspect(apis: MissingApis, route: Route, user: int = 1, status: int = 404) -> None:
    error = UpstreamFailed("failed")
    apis.suspected(
        route.channel,
        route.channel.keys[0],
        user,
        Failure(FailureClass.NO_API, error, status, "HTTP 404: Not Found", api=API),
    )


async def probe(apis: MissingApis, route: Route, upstream: Upstream) -> None:
    for place, (view, key) in apis.take_unproven().items():
        await apis.probe(upstream, view, key, place[1])


def serves(apis: MissingApis, route: Route, later: float = 0.0) -> bool:
    return apis.serves(route.channel, API, time.time() + later)


def test_the_requests_of_one_user_prove_nothing_and_those_of_a_second_do() -> None:
    apis, route = MissingApis(), channel(1)
    for _ in range(20):
        suspect(apis, route)
    assert serves(apis, route) and not apis.changed
    suspect(apis, route, user=2)
    assert not serves(apis, route) and apis.changed == {(1, API)}
    assert serves(apis, channel(2)) and serves(apis, route, later=601), "for minutes"
    moved = channel(1)
    moved.channel.urls[API] = httpx.URL("https://other.example.com")  # type: ignore[index]  # a dict
    assert serves(apis, moved), "it was about another address"


@pytest.mark.parametrize("status", [307, 302, 401])
def test_an_api_that_is_kept_from_us_is_asked_for_again_within_a_minute(status: int) -> None:
    apis, route = MissingApis(), channel(1)
    for _ in range(20):
        suspect(apis, route, status=status)
    assert serves(apis, route)
    suspect(apis, route, user=2, status=status)
    assert not serves(apis, route) and serves(apis, route, later=61)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_of_a_probe_proves_it(status: int) -> None:
    apis, route = MissingApis(), channel(1)
    suspect(apis, route, status=status)
    await probe(apis, route, Upstream(status))
    assert not serves(apis, route)


async def test_a_probe_of_our_own_proves_it() -> None:
    apis, route, upstream = MissingApis(), channel(1), Upstream(404, b'{"detail":"Not Found"}')
    for _ in range(20):
        suspect(apis, route)
    await probe(apis, route, upstream)
    assert upstream.asked == [b"{}"] and not serves(apis, route)
    lesson = apis.get((1, API))
    assert lesson is not None and lesson.proof == "asked by the portal itself: HTTP 404"


@pytest.mark.parametrize("status", [200, 400, 404, 415, 422])
async def test_a_probe_that_finds_the_api_stands_against_any_number_of_users(status: int) -> None:
    apis, route = MissingApis(), channel(1)
    suspect(apis, route)
    await probe(apis, route, Upstream(status, error("you must provide a model parameter")))
    for user in range(2, 20):
        suspect(apis, route, user)
    assert serves(apis, route) and not apis.unproven, "and it is not asked again at once"
    apis, route = MissingApis(), channel(1)
    suspect(apis, route)
    suspect(apis, route, 2)
    await probe(apis, route, Upstream(status, error("you must provide a model parameter")))
    assert serves(apis, route) and (1, API) in apis.changed, "it has the last word"


@pytest.mark.parametrize("status", [0, 401, 403, 429, 500, 503])
async def test_a_probe_without_an_answer_leaves_it_open(status: int) -> None:
    apis, route = MissingApis(), channel(1)
    suspect(apis, route)
    await probe(apis, route, Upstream(status))
    assert serves(apis, route)
    suspect(apis, route, 2)
    assert not serves(apis, route)


def test_what_is_no_longer_believed_is_forgotten_and_the_others_are_told() -> None:
    apis, route = MissingApis(), channel(1)
    suspect(apis, route)
    suspect(apis, route, 2)
    apis.changed.clear()
    apis.forget(time.time() + 500)
    assert not serves(apis, route)
    apis.forget(time.time() + 601)
    assert serves(apis, route) and apis.changed == {(1, API)} and apis.get((1, API)) is None


def test_the_word_of_another_worker_holds_for_the_address_of_now() -> None:
    apis, route = MissingApis(), channel(1)
    apis.take_over((1, API), time.time() + 60, "x")
    assert not serves(apis, route) and serves(apis, route, later=61)
    apis.drop((1, API))
    assert serves(apis, route)
