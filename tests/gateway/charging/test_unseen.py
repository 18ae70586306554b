"""What is estimated of output that was not shown, by time and what other answers have told."""

from __future__ import annotations

import pytest

from relay.gateway.charging import unseen
from relay.gateway.charging.unseen import UnseenTokens


def test_nothing_is_known_of_a_model_that_is_not_said_to_reason() -> None:
    assert UnseenTokens().of_stream(1, "m", 10, reasons=False) == 0
    assert UnseenTokens().of_stream(1, "m", 10, reasons=True) == UnseenTokens().of_plain(1, "m", 10) == 600


def test_rates_are_learnt_per_channel_and_model() -> None:
    tokens = UnseenTokens()
    for _ in range(50):
        tokens.learn_stream(1, "m", hidden=1000, seconds=10)
        tokens.learn_plain(1, "m", output=300, seconds=10)
    assert tokens.of_stream(1, "m", 5, reasons=False) == pytest.approx(500)
    assert tokens.of_plain(1, "m", 5) == pytest.approx(150)
    assert tokens.of_stream(2, "m", 5, reasons=False) == tokens.of_stream(1, "n", 5, reasons=False) == 0


def test_answers_without_thought_teach_only_where_some_had_it() -> None:
    tokens = UnseenTokens()
    tokens.learn_stream(1, "m", hidden=0, seconds=1)
    tokens.learn_stream(1, "m", hidden=-5, seconds=1)
    assert tokens.of_stream(1, "m", 10, reasons=True) == 600, "nothing has been learnt yet"
    tokens.learn_stream(1, "m", hidden=100, seconds=1)
    before = tokens.of_stream(1, "m", 10, reasons=True)
    tokens.learn_stream(1, "m", hidden=0, seconds=1)
    assert before == pytest.approx(1000) and 0 < tokens.of_stream(1, "m", 10, reasons=True) < before


def test_an_answer_in_no_time_makes_no_rate_without_end_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = UnseenTokens()
    tokens.learn_plain(1, "m", output=10, seconds=0)
    assert tokens.of_plain(1, "m", 1) == pytest.approx(500)
    monkeypatch.setattr(unseen, "_MOST", 3)
    for model in "abcde":
        tokens.learn_plain(1, model, output=1, seconds=1)
    assert tokens.of_plain(1, "m", 1) == 60, "the oldest is forgotten"
    assert tokens.of_plain(1, "e", 1) == pytest.approx(1)
