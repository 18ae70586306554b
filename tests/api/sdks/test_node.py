"""The SDKs of Anthropic and Google for Node, at upstreams of every API that the portal knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.sdks.upstreams import HELLO, KINDS, PARIS, Said, at
from tests.support.node.runner import needs_node, run_cases
from tests.support.peers import gemini, messages
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

pytestmark = [needs_node, pytest.mark.timeout(1800)]

ANTHROPIC = (
    "a message and a stream",
    "a loop of tools",
    "the runner of tools",
    "thoughts come back",
    "an answer of a shape",
    "an image and a document",
    "tokens are counted",
    "it asks again after a failure",
    "it is not let sleep for hours",
)
GOOGLE = (
    "an answer and a stream",
    "a loop of tools",
    "an answer of a shape",
    "an image",
    "a chat",
    "tokens are counted",
    "it asks again after a failure",
)
AT_LAST = ("models are listed", "errors have the shape of the API")


def names(*cases: str) -> list[str]:
    return [f"{up}: {case}" for up in KINDS for case in cases]


def obliging(up: str) -> Any:
    """An upstream that does what the user's words say."""
    failed: list[str] = []

    async def script(call: Call) -> None:
        asked = json.dumps(call.json)
        if "Wait for hours." in asked and up == "gemini":
            info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7200s"}
            await gemini.refuse(call, 429, "RESOURCE_EXHAUSTED", "Not now.", info)
        elif "Wait for hours." in asked and up == "anthropic":
            await messages.refuse(call, 429, "rate_limit_error", "Not now.", {"retry-after": "7200"})
        elif "Wait for hours." in asked:
            await call.error(429, "Not now.", "rate_limit_exceeded", {"retry-after": "7200"})
        elif "Fail once." in asked and len(failed) % 2 == 0:
            failed.append(asked)
            await call.error(503, "Not now.")
        else:
            if "Fail once." in asked:
                failed.append("mended")
            await KINDS[up].answer(call, _said(asked))

    return script


def _said(asked: str) -> Said:
    if "dry in Paris" in asked:
        return Said("It is dry.")
    if "Where does it rain?" in asked:
        return Said("Let me see.", "They ask for rain.", (PARIS,))
    return Said('{"city": "Paris"}') if "Shape it." in asked else HELLO


async def _vectors(call: Call) -> None:
    data = [{"object": "embedding", "index": index, "embedding": [0.5, 0.25]} for index in range(2)]
    await call.reply(200, {"object": "list", "data": data, "model": "up", "usage": {"prompt_tokens": 2}})


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, str]]:
    """What the scripts have found, once they have run."""
    return {}


def _run(found: dict[str, dict[str, str]], script: str, live: Portal, server: Server) -> dict[str, str]:
    if script not in found:
        found[script] = {}  # it is run once, whatever becomes of it
        models = {up: at(live, server, up, obliging(up)).model for up in KINDS}
        vectors = {"gemini": live.model(gemini.saying(), provider="gemini"), "openai": live.model(_vectors)}
        token = live.token()
        server.catch_up()
        variables = {"BASE": server.url, "KEY": token, "MODELS": json.dumps(models), "VECTORS": json.dumps(vectors)}
        found[script] = run_cases(script, **variables)
    return found[script]


@pytest.mark.parametrize("case", [*names(*ANTHROPIC), *AT_LAST])
def test_anthropics(live: Portal, server: Server, found: dict[str, dict[str, str]], case: str) -> None:
    cases = _run(found, "anthropic.mjs", live, server)
    assert cases.get(case, "the script has ended before") == "" and list(cases) == [*names(*ANTHROPIC), *AT_LAST]


@pytest.mark.parametrize("case", [*names(*GOOGLE), "gemini: embeddings", "openai: embeddings", *AT_LAST])
def test_googles(live: Portal, server: Server, found: dict[str, dict[str, str]], case: str) -> None:
    cases = _run(found, "google.mjs", live, server)
    assert cases.get(case, "the script has ended before") == ""
    assert list(cases) == [*names(*GOOGLE), "gemini: embeddings", "openai: embeddings", *AT_LAST]
