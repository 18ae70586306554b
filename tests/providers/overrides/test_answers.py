"""How long and how many answers an overridden request asks for, and what it is kept to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from relay.providers.overrides.answers import answer_count, answer_limit, hold_answers, thinking_of


def both(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a request, undecoded and decoded."""
    return [{name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}, dict(body)]


@pytest.mark.parametrize(
    ("body", "limit", "count", "thinking"),
    [
        ({}, None, 1, None),
        ({"max_tokens": 5}, 5, 1, None),
        ({"max_tokens": 5, "max_completion_tokens": 9, "n": 3}, 9, 3, None),
        ({"max_tokens": 5, "num_predict": -1}, None, 1, None),
        ({"max_tokens": None, "max_output_tokens": 7}, 7, 1, None),
        ({"max_tokens": "5"}, None, 1, None),
        ({"max_tokens": 0}, 0, 1, None),
        ({"generationConfig": {"maxOutputTokens": 8, "candidateCount": 2}}, 8, 2, None),
        ({"generation_config": {"max_output_tokens": 8, "candidate_count": 2}}, 8, 2, None),
        ({"options": {"num_predict": 6, "num_ctx": 9}}, 6, 1, None),
        ({"options": {"num_predict": -1}}, None, 1, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, None, 1, 100),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 50}}}, None, 1, 50),
    ],
)
def test_what_is_asked_for(body: dict[str, Any], limit: int | None, count: int, thinking: int | None) -> None:
    for members in both(body):
        assert (answer_limit(members), answer_count(members), thinking_of(members)) == (limit, count, thinking)


@pytest.mark.parametrize(
    ("body", "held", "named"),
    [
        ({"max_tokens": 5, "n": 1}, {"max_tokens": 5, "n": 1}, True),
        ({"max_tokens": 50, "n": 5}, {"max_tokens": 10, "n": 2}, True),
        ({"max_new_tokens": -1}, {"max_new_tokens": 10}, True),
        ({"max_tokens": None}, {"max_tokens": 10}, False),
        ({"x": 1}, {"x": 1}, False),
        ({"options": {"num_predict": -2, "seed": 1}}, {"options": {"num_predict": 10, "seed": 1}}, True),
        (
            {"generationConfig": {"maxOutputTokens": 50, "candidateCount": 8, "topK": 1}},
            {"generationConfig": {"maxOutputTokens": 10, "candidateCount": 2, "topK": 1}},
            True,
        ),
    ],
)
def test_answers_are_held_to_what_is_paid_for(body: dict[str, Any], held: dict[str, Any], named: bool) -> None:
    for members in both(body):
        assert hold_answers(members, 10, 2) is named
        found = {
            name: msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
            for name, value in members.items()
        }
        assert found == held


def test_without_a_limit_only_the_number_is_held() -> None:
    body: dict[str, object] = {"max_tokens": 50, "n": 5}
    assert hold_answers(body, None, 2) and body == {"max_tokens": 50, "n": 2}
