"""Every question that users of AIRelays 0.x asked has its answer, and every sentence of an answer its test."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from tests.portal import faq

QUESTIONS = (
    "Does the AIRelays relay use my OpenAI platform API key?",
    "Will earlier AIRelay local state still work?",
    "Is the AIRelays project affiliated with OpenAI?",
    "What API key do I give my client?",
    "Can I still get JSON from the CLI?",
    "Why did /v1/models return 401 and then 429?",
    "Is the relay token the same as the ChatGPT login?",
    "Where are files stored?",
    "Can I disable relay auth?",
    "Is AIRelays meant for shared or multi-user use?",
    "Does AIRelays support Anthropic or Gemini today?",
    "Why do some OpenAI parameters disappear?",
    "Why do token-limit parameters return 422?",
    "How do file inputs work on /v1/responses?",
)


@pytest.fixture(scope="module")
def shown() -> dict[str, list[str]]:
    for module in pkgutil.iter_modules(faq.__path__):
        importlib.import_module(f"{faq.__name__}.{module.name}")
    return faq.SHOWN


def test_every_question_is_answered() -> None:
    assert tuple(faq.answers()) == QUESTIONS


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_sentence_is_shown_by_a_test(question: str, shown: dict[str, list[str]]) -> None:
    missing = [sentence for sentence in faq.answers()[question] if sentence not in shown]
    assert not missing


def test_no_test_shows_a_sentence_that_is_not_there(shown: dict[str, list[str]]) -> None:
    there = {sentence for sentences in faq.answers().values() for sentence in sentences}
    assert not {sentence: tests for sentence, tests in shown.items() if sentence not in there}
