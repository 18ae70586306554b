"""People who have signed in with ChatGPT, and their requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.server import Server


@dataclass
class Person:
    """Somebody who has signed in, with a token of the portal."""

    user: Any
    account: Any
    token: str


SignIn = Callable[..., Person]


def respond(portal: Server, token: str, **body: Any) -> Any:
    return portal.post(token, {"model": "gpt-5.5", "input": "Hi", **body}, "/v1/responses")


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def settings_for(server: ChatGPT) -> dict[str, str]:
    return {
        "AIRELAYS_ISSUER_BASE_URL": server.url,
        "AIRELAYS_UPSTREAM_BASE_URL": server.url,
        "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1",
    }
