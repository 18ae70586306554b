"""Why a prompt did not come from a cache, in words, as far as it can be known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relay.providers.vendor import PromptCache
from relay.providers.vendors import VENDORS
from relay.usage import rollup
from relay.usage.caches.misses import Surroundings, cache_of, verdict
from tests.support.portal import People
from tests.usage.conversations.turns import TURN, before, channel, turn

CLAUDE, OPENAI = VENDORS["anthropic"].prompt_cache, VENDORS["openai"].prompt_cache


@pytest.mark.parametrize(
    ("code", "now", "then", "facts", "words"),
    [
        ("hit", {"cached": 8000}, before(), CLAUDE, "80 % of the prompt came from the cache."),
        ("hit", {"cached": 8000}, None, CLAUDE, "80 %"),
        ("partly", {"cached": 2000}, before(), CLAUDE, "had 8,000 tokens there"),
        ("partly", {"cached": 2000}, before(channel=5, key=50), CLAUDE, "another upstream"),
        ("partly", {"cached": 2000}, before(key=11), CLAUDE, "another key"),
        ("partly", {"cached": 2000}, before(upstream_model="gpt-5"), OPENAI, "another model"),
        ("unreported", {"source": "estimated"}, before(), CLAUDE, "reported no usage"),
        ("short", {"input": 900, "upstream_model": "claude-sonnet-4-5"}, before(), CLAUDE, "from 1,024 on"),
        ("short", {"input": 4000, "upstream_model": "claude-haiku-4-5"}, before(), CLAUDE, "from 4,096 on"),
        ("unmarked", {}, before(), CLAUDE, "cache_control"),
        ("nameless", {"written": 9000, "conversation": None}, None, CLAUDE, "names no conversation"),
        ("first", {"written": 9000}, None, CLAUDE, "first turn"),
        ("channel", {}, before(channel=5, key=50), OPENAI, "another upstream"),
        ("key", {}, before(key=11), OPENAI, "another key"),
        ("model", {}, before(upstream_model="gpt-5"), OPENAI, "another model"),
        ("expired", {"written": 9000}, before(at=TURN.at - 400, written=8000), CLAUDE, "7 minutes after"),
        ("unknown", {"written": 9000}, before(at=TURN.at - 400, written=8000, written_1h=8000), CLAUDE, "Unknown."),
        ("expired", {"written": 9000}, before(at=TURN.at - 4000, written_1h=8000, written=8000), CLAUDE, "60 minutes"),
        ("expired", {"written": 9000}, before(at=TURN.at - 4000), CLAUDE, "60 minutes at most"),
        ("expired", {}, before(at=TURN.at - 900), OPENAI, "longer only at times"),
        ("expired", {}, before(at=TURN.at - 90_000), OPENAI, "24 hours at most"),
        ("unknown", {}, before(), OPENAI, "Unknown."),
        ("unknown", {}, before(at=TURN.at - 90_000), PromptCache(), "Unknown."),
    ],
)
def test_what_is_said(code: str, now: dict[str, Any], then: Any, facts: PromptCache, words: str) -> None:
    found = verdict(replace(TURN, **now), then, Surroundings(facts))
    assert (found.code, words in found.text) == (code, True), found.text


def test_a_channel_that_never_reports_cached_tokens_is_said_to_be_silent() -> None:
    found = verdict(TURN, before(cached=0), Surroundings(OPENAI, silent=True))
    assert found.code == "silent" and "in 30 days" in found.text


def test_facts_of_a_vendor_hold_at_its_own_address_alone() -> None:
    vendor = VENDORS["openai"]
    assert vendor.cache_at("https://api.openai.com/v1").least == 1024
    assert vendor.cache_at("https://gpu.example.com/v1") == PromptCache()
    assert VENDORS["azure"].cache_at("https://mine.openai.azure.com/openai/v1").least == 1024, "every customer's own"
    assert VENDORS["gemini"].prompt_cache.least_for("gemini-2.5-pro") == 2048


def test_staff_read_which_channel_was_left_and_why_and_users_do_not(alone: None, people: People) -> None:
    (main, (key,)), (_spare, (other,)) = channel("Main"), channel("Spare", priority=-1)
    first = turn(people.owner, key, 60, cache_write_tokens=8000)
    log = [{"channel": main.pk, "key": key.pk, "ms": 1, "outcome": "rate"}]
    log.append({"channel": other.channel_id, "key": other.pk, "ms": 5, "outcome": "ok"})
    second = turn(people.owner, other, attempt_log=log, cache_write_tokens=9000)
    rollup.catch_up()
    said = cache_of(second, staff=True)
    assert said is not None and said.code == "channel"
    assert "“Main”" in said.text and "the request had failed there" in said.text
    own = cache_of(second)
    assert own is not None and own.code == "channel" and "Main" not in own.text and "failed" not in own.text
    assert (opening := cache_of(first)) is not None and opening.code == "first"


def test_only_prompts_of_text_are_spoken_of(alone: None, people: People) -> None:
    _main, (key,) = channel("Main")
    assert cache_of(turn(people.owner, key, endpoint="embeddings")) is None
    assert cache_of(turn(people.owner, key, input_tokens=0)) is None
