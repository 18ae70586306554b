"""Sessions of coding agents, connected with `manage.py connect` and recorded, played again at every upstream.

Each is a task for a person at the agent's own screen: files are read and written, the shell is used, a sub-agent works,
the conversation is compacted, and goes on. `python -m bench.agents.run` drives and records them.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import httpx
import pytest

from tests.support.agents.answers import Heard, heard, identities
from tests.support.agents.model import (
    CACHED,
    CHAT,
    GEMINI,
    MESSAGES,
    RESPONSES,
    WRITTEN,
    Said,
    ScriptedModel,
    sealed_in,
    tool_names,
)
from tests.support.agents.recordings import Exchange, Recording, filled, read
from tests.support.money import PRICE
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server

pytestmark = pytest.mark.shared

AGENTS = ("claude", "codex", "gemini", "opencode")
# By protocol of the upstream: the channel's options, and what it calls the model.
UPSTREAMS: dict[str, tuple[dict[str, Any], str]] = {
    CHAT: ({"text_api": "chat"}, "gpt-oss-120b"),
    RESPONSES: ({"text_api": "responses"}, "gpt-5.5"),
    MESSAGES: ({"provider": "anthropic"}, "claude-opus-4-8"),
    GEMINI: ({"provider": "gemini"}, "gemini-3-pro-preview"),
}
# What an upstream of another API cannot be told, by agent and upstream: a header of the answer says it.
IGNORED: dict[tuple[str, str], set[str]] = {
    ("claude", CHAT): {"context_management"},
    ("claude", RESPONSES): {"context_management"},
    ("claude", GEMINI): {
        "context_management",
        "metadata.user_id",
        *(f"tools[].input_schema.{key}" for key in ("exclusiveMinimum", "maxLength", "pattern", "propertyNames")),
    },
    ("codex", CHAT): {"tools[web_search]"},
    ("codex", MESSAGES): {"tools[web_search]", "prompt_cache_key"},
    ("codex", GEMINI): {
        "tools[web_search]",
        "prompt_cache_key",
        *(f"text.format.schema.{key}" for key in ("maxLength", "minLength")),
    },
    ("gemini", CHAT): {"generationConfig.topK"},
    ("gemini", RESPONSES): {"generationConfig.topK"},
    ("opencode", RESPONSES): {"messages[].reasoning_content"},
    ("opencode", GEMINI): {"tools[].function.parameters.exclusiveMinimum"},
    ("gemini", MESSAGES): {f"generationConfig.{name}" for name in ("temperature", "topK", "topP")},
}
# They send back what they were shown of a thought, and nothing sealed: chat completions have no member for it.
WITHOUT_SEALED = {"opencode"}
LAST_CALL = "complete_task"  # of a sub-agent of Gemini CLI: its conversation ends with it


@cache
def recording(agent: str) -> Recording:
    return read(agent)


class Replay:
    """One session of an agent, with the answers that it gets now."""

    def __init__(self, live: Portal, server: Server, agent: str, spoken: str) -> None:
        self.live, self.server = live, server
        self.said = Said()
        self.script = ScriptedModel(lambda call: self.said)
        options, name = UPSTREAMS[spoken]
        known = {"max_output_tokens": 32_000, "price": PRICE, **options}
        self.model = live.model(self.script, upstream_name=f"{name}-{agent}", **known)
        self.token = live.token()
        self.names = {"model": self.model, "token": self.token}
        self.ignored: set[str] = set()
        server.catch_up()

    def play(self, number: int, one: Exchange) -> httpx.Response:
        self.said = Said(one.said.text, filled(one.said.calls, self.names), one.said.thought)
        answer = httpx.request(
            one.method,
            self.server.url + filled(one.path, self.names),
            json=filled(one.body, self.names),
            headers=filled(dict(one.headers), self.names),
            timeout=60,
            trust_env=False,
            verify=NO_CERTIFICATES,
        )
        assert answer.status_code == 200, (number, self.script.wrong, answer.text)
        self.ignored |= set(filter(None, answer.headers.get("x-airelays-ignored-parameters", "").split(",")))
        self.names |= {f"{number} {name}": value for name, value in identities(answer.text).items()}
        return answer


def asks_the_model(one: Exchange) -> bool:
    path = one.path.partition("?")[0]
    return one.method == "POST" and not path.endswith(("count_tokens", "countTokens"))


@pytest.mark.parametrize(("agent", "spoken"), [(one, spoken) for one in AGENTS for spoken in recording(one).sessions])
def test_a_session_goes_through_every_upstream(live: Portal, server: Server, agent: str, spoken: str) -> None:
    replay = Replay(live, server, agent, spoken)
    script = replay.script
    for number, one in enumerate(recording(agent).exchanges(spoken)):
        before, needed = len(script.asked), len(script.needed)
        answer = replay.play(number, one)
        if not asks_the_model(one):
            continue
        (asked,) = script.asked[before:]
        said = replay.said
        if any(name == LAST_CALL for name, _ in said.calls):
            del script.needed[needed:]
        got = heard(one.path, answer.text)
        assert got == Heard(said.text, script.thoughts[-1], said.calls), (number, got)
        assert len(tool_names(asked)) >= len(tool_names(one.body or {})), "every tool of the agent is offered"
        record = live.record(answer)
        counted = (record.input_tokens, record.cached_input_tokens, record.output_tokens)
        prompt = script.prompts[-1]
        assert counted == (prompt, CACHED, WRITTEN), (number, counted)
        cost = CACHED * PRICE["cached_input"] + (prompt - CACHED) * PRICE["input"] + WRITTEN * PRICE["output"]
        assert record.cost == cost * 1000 and record.usage_source == "reported"
    assert not script.wrong
    returned = {sealed for body in script.asked for sealed in sealed_in(body)}
    assert agent in WITHOUT_SEALED or set(script.needed) <= returned
    assert replay.ignored == IGNORED.get((agent, spoken), set()), sorted(replay.ignored)


@pytest.mark.parametrize("agent", AGENTS)
def test_a_recording_is_of_the_whole_task(agent: str) -> None:
    """At every upstream: calls of several tools at once, a sub-agent, a compaction, and a turn behind it."""
    assert set(recording(agent).sessions) == set(UPSTREAMS)
    for spoken in recording(agent).sessions:
        session = recording(agent).exchanges(spoken)
        texts = [json.dumps(one.body) for one in session]
        said = [one.said for one in session if asks_the_model(one)]
        assert any(len(one.calls) > 1 for one in said) and any("colour is blue" in one.text for one in said)
        assert any("[[SUB]]" in text and "[[ONE]]" not in text for text in texts)
        made = next(number for number, one in enumerate(session) if "Noted so far" in one.said.text)
        assert any("Noted so far" in text and "[[TWO]]" in text for text in texts[made + 1 :])
