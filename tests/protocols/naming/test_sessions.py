"""Ids of sessions and agents, and names of apps, as real clients send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from relay.protocols.fields import Fields
from relay.protocols.naming.client_apps import app_of
from relay.protocols.naming.sessions import LONGEST, NO_IDS, SessionIds, ids_in_body, ids_in_headers

_CLIENTS: Final[list[dict[str, Any]]] = json.loads((Path(__file__).parent / "clients.json").read_text())
_UUID: Final = "6d620e70-ceef-46dd-a12c-bdfa9cc3ec62"


def fields(body: object) -> Fields:
    found: Fields = msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])
    return found


def headers(**named: str) -> dict[bytes, bytes]:
    return {name.replace("_", "-").encode(): value.encode() for name, value in named.items()}


@pytest.mark.parametrize("case", _CLIENTS, ids=[case["client"] for case in _CLIENTS])
def test_a_real_client_names_its_session_and_agent(case: dict[str, Any]) -> None:
    sent = {name.encode(): value.encode() for name, value in case["headers"].items()}
    found = ids_in_headers(sent).over(ids_in_body(fields(case["body"])))
    assert list(found) == case["ids"] and app_of(sent) == case["app"]


def test_requests_without_ids_cost_no_object() -> None:
    assert ids_in_headers(headers(user_agent="curl/8", accept="*/*")) is NO_IDS
    assert ids_in_body(fields({"model": "m", "messages": []})) is NO_IDS


@pytest.mark.parametrize(
    "body",
    [
        {"session_id": 7},
        {"session_id": ["a"]},
        {"session_id": ""},
        {"session_id": "  "},
        {"session_id": None},
        {"session_id": "a" * (LONGEST + 1)},
        {"metadata": []},
        {"metadata": "session"},
        {"metadata": {"session_id": {"a": 1}, "user_id": 5}},
        {"metadata": {"user_id": '{"session_id":'}},
        {"metadata": {"user_id": '{"session_id":[1]}'}},
        {"metadata": {"user_id": "{" * 5000}},
        {"metadata": {"user_id": "x_session_not-a-uuid"}},
        {"client_metadata": [1]},
        {"client_metadata": {"session_id": 1, "thread_id": None}},
        {"prompt_cache_key": 5},
        {"prompt_cache_key": _UUID + "-and-more"},
    ],
    ids=str,
)
def test_what_is_no_id_names_no_session(body: dict[str, Any]) -> None:
    assert ids_in_body(fields(body)) == NO_IDS


def test_an_id_that_is_not_usable_does_not_hide_another() -> None:
    assert ids_in_body(fields({"metadata": {"session_id": 5, "user_id": f"a_session_{_UUID}"}})).session == _UUID
    assert ids_in_body(fields({"session_id": {}, "metadata": {"sessionId": "s"}})).session == "s"
    assert ids_in_body(fields({"client_metadata": {}, "prompt_cache_key": _UUID})).session == _UUID
    assert ids_in_headers(headers(session_id="x" * 300, x_session_id=" s ")).session == "s"
    assert ids_in_headers(headers(x_session_id="", x_session_affinity="s")).session == "s"


def test_what_agents_name_goes_before_what_any_app_may_send() -> None:
    found = ids_in_headers(headers(x_session_id="any", x_claude_code_session_id="claude", session_id="codex"))
    assert found.session == "claude"
    assert ids_in_headers(headers(x_session_id="any", session_id="codex")).session == "codex"


def test_headers_go_before_the_body_and_keep_their_agent() -> None:
    in_header = ids_in_headers(headers(x_claude_code_agent_id="a", x_claude_code_parent_agent_id="p"))
    assert in_header == SessionIds("", "a", "p")
    assert in_header.over(SessionIds("s")) == SessionIds("s", "a", "p")
    assert SessionIds("h").over(SessionIds("b", "x")) == SessionIds("h")


def test_a_child_session_is_an_agent_of_its_parents() -> None:
    assert ids_in_headers(headers(x_session_id="child", x_parent_session_id="main")) == SessionIds("main", "child")
    assert ids_in_headers(headers(x_session_id="main", x_parent_session_id="main")) == SessionIds("main")


@pytest.mark.parametrize(
    ("agent", "app"),
    [
        (b"", ""),
        (b"   ", ""),
        (b"\xff\xfe", ""),
        (b"42/1", ""),
        (b"curl/8.14.1", "curl"),
        (b"Python/3.11 aiohttp/3.13.2", "aiohttp"),
        (b"python-requests/2.32", "python-requests"),
        (b"MyApp 2 (contact: me@example.org)", "myapp"),
        (b"<script>alert(1)</script>", ""),
        (b"a" * 4000, "a" * 32),
        (b"opencode/1.18.33 ai-sdk/provider-utils/4.0 runtime/bun/1.3", "opencode"),
        (b"ai/6.0.326 ai-sdk/openai/3.0 runtime/node.js/24", "ai-sdk"),
        (b"Mozilla/5.0 (X11; Linux x86_64) Chrome/142", "browser"),
        (b"Codex Desktop/0.150.0 (Mac OS)", "codex"),
    ],
    ids=str,
)
def test_an_app_is_named_by_its_user_agent(agent: bytes, app: str) -> None:
    assert app_of({b"user-agent": agent}) == app
