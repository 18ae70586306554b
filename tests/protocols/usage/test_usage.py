"""Whether a usage report can be true, and what is charged when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from relay.gateway.charging.believed import LARGEST_INPUT, LONGEST_ANSWER, Expected, believed
from relay.protocols.anthropic_messages.usage import parse_messages_usage
from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.gemini.usage import parse_gemini_usage
from relay.protocols.passthrough.requests import least_input
from relay.protocols.responses.request import parse_responses_request
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.usage import RAW_LIMIT, Delivered, ReasoningCount, Usage, newer

_WORDS: Final = 500  # bytes of text: 125 tokens by the estimate
_PROMPT: Final = 20


@dataclass(frozen=True)
class Case:
    name: str
    reported: dict[str, Any]
    charged: Usage
    true: bool = True
    text: float | None = 125.0  # estimated tokens that were delivered; None: neither text nor audio
    limit: int | None = None
    longest: int | None = None
    reasoning: ReasoningCount = "inside"
    finished: bool = True
    opaque: bool = False  # something was delivered that cannot be counted
    most_input: int | None = None  # what the request can hold; None: something may add to it
    own: float | None = None  # estimated tokens of the request's own text; None: not known
    known: int | None = None  # estimate of an output without a limit


def chat(into: int, out: int, total: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": into,
        "completion_tokens": out,
        "total_tokens": into + out if total is None else total,
    } | more


def reasons(tokens: int) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens}}


def cached(tokens: object) -> dict[str, Any]:
    return {"prompt_tokens_details": {"cached_tokens": tokens}}


ESTIMATE: Final = Usage(_PROMPT, output=125)
CASES: Final = [
    Case("plain truth", chat(13, 100), Usage(13, output=100)),
    Case("text that is denser than the estimate", chat(13, 40), Usage(13, output=40)),
    Case("characters that are a token each", chat(13, 480), Usage(13, output=480), limit=100),
    Case("hidden reasoning that is not listed", chat(13, 30_000), Usage(13, output=30_000)),
    Case(
        "no text at all, all of it reasoning",
        chat(13, 100) | reasons(100),
        Usage(13, output=100, reasoning=100),
        text=0,
    ),
    Case("an empty answer", chat(13, 0), Usage(13), text=0),
    Case("embeddings: no output", {"prompt_tokens": 8, "total_tokens": 8}, Usage(8), text=None),
    Case("a few tokens above the limit", chat(13, 18), Usage(13, output=18), text=4, limit=16),
    Case(
        "reasoning that the limit does not bound",
        chat(13, 900) | reasons(890),
        Usage(13, output=900, reasoning=890),
        text=8,
        limit=16,
    ),
    Case("all zero with text (new-api #1630, one-api #1391)", chat(0, 0), ESTIMATE, False),
    Case("all zero without an answer in text", chat(0, 0), Usage(_PROMPT), False, text=None),
    Case("no counts that are numbers", {"prompt_tokens": "13", "completion_tokens": True}, ESTIMATE, False),
    Case("text with zero output", chat(13, 0), Usage(13, output=125), False),
    Case("one character with zero output", chat(13, 0), Usage(13, output=1), False, text=0.25),
    Case("output with zero input", chat(0, 100), Usage(_PROMPT, output=100), False),
    Case("one token for a long text", chat(13, 1), Usage(13, output=125), False),
    Case("an old count of a stream that broke off", chat(13, 20), Usage(13, output=125), False, finished=False),
    Case("output far above limit and text", chat(13, 1_000_000), Usage(13, output=125), False, limit=100),
    Case("the same with a limit of one", chat(13, 2000), Usage(13, output=1), False, text=1, limit=1),
    Case("output above what any model makes", chat(13, 10**9), Usage(13, output=125), False),
    Case("output above what this model makes", chat(13, 9000), Usage(13, output=125), False, longest=8192),
    Case("the same as reasoning", chat(13, 10**9) | reasons(10**9), Usage(13, output=125), False, limit=100),
    Case("input above what any model reads", chat(10**12, 100), Usage(_PROMPT, output=100), False),
    Case("far above, where nothing was counted", chat(13, 10**9), Usage(13), False, text=None),
    Case(
        "reasoning inside, a total that adds it once more (llmgateway #3486)",
        chat(64, 135, 277) | reasons(78),
        Usage(64, output=135, reasoning=78),
    ),
    Case(
        "the same at xAI, where it is beside",
        chat(64, 135, 277) | reasons(78),
        Usage(64, output=213, reasoning=78),
        reasoning="beside",
    ),
    Case(
        "xAI without a total: nothing says that it is beside",
        {"prompt_tokens": 64, "completion_tokens": 135} | reasons(78),
        Usage(64, output=135, reasoning=78),
        reasoning="beside",
    ),
    Case(
        "more reasoning than output can only be beside, if the total says so",
        chat(32, 9, 241) | reasons(200),
        Usage(32, output=209, reasoning=200),
        text=9,
    ),
    Case(
        "more reasoning than output can only be beside it",
        chat(32, 9) | reasons(200),
        Usage(32, output=209, reasoning=200),
        False,
        text=9,
    ),
    Case(
        "thoughts in Gemini's total alone",
        chat(10, 120, 830),
        Usage(10, output=820, reasoning=700),
        reasoning="unlisted",
    ),
    Case("the same elsewhere: a total that jumps", chat(10, 120, 830), Usage(10, output=120), False),
    Case("a total that is too small is only wrong", chat(13, 100, 7), Usage(13, output=100)),
    Case(
        "cached tokens beside the prompt (Bedrock's totals)",
        chat(100, 50, 1050) | cached(900),
        Usage(1000, cached_input=900, output=50),
    ),
    Case(
        "cache reads and writes beside the prompt",
        chat(100, 50, 1250) | {"prompt_tokens_details": {"cached_tokens": 900, "cache_write_tokens": 200}},
        Usage(1200, cached_input=900, cache_write=200, output=50),
    ),
    Case(
        "more cached tokens than prompt can only be beside it, as Anthropic counts (new-api #5003)",
        chat(56_322, 87) | cached(72_960),
        Usage(129_282, cached_input=72_960, output=87),
        False,
        text=None,
    ),
    Case(
        "more audio than output",
        chat(100, 50) | {"completion_tokens_details": {"audio_tokens": 51}},
        Usage(100, output=101, audio_output=51),
        False,
    ),
    *(
        Case(f"a count that is {nonsense}", chat(13, 0) | {"completion_tokens": nonsense}, Usage(13, output=125), False)
        for nonsense in (-1000, "100", True, [5], {"a": 5}, 10**30, 1e300, 2**53 - 2)
    ),
    *(
        Case(
            f"a prompt that is {nonsense}",
            chat(0, 125) | {"prompt_tokens": nonsense},
            Usage(_PROMPT, output=125),
            False,
        )
        for nonsense in (-1000, "100", True, [5], {"a": 5}, 10**30, 1e300, 2**53 - 2)
    ),
    *(
        Case(f"cached tokens that are {nonsense}", chat(13, 125) | cached(nonsense), Usage(13, output=125), False)
        for nonsense in (-1, "9", True, 10**30)
    ),
    Case(
        "a limit that hidden reasoning may have used", chat(13, 5000), Usage(13, output=100), False, text=1, limit=100
    ),
    Case("images above the limit", chat(13, 5160), Usage(13, output=5160), False, text=1, limit=1000, opaque=True),
    Case("images within the limit", chat(13, 900), Usage(13, output=900), text=1, limit=1000, opaque=True),
    Case(
        "images beyond what the model makes",
        chat(13, 9000),
        Usage(13, output=1000),
        False,
        text=1,
        limit=1000,
        longest=8192,
        opaque=True,
    ),
    Case("the same without a limit", chat(13, 9000), Usage(13, output=8192), False, text=1, longest=8192, opaque=True),
    Case("images beyond all models", chat(13, 10**9), Usage(13, output=1), False, text=1, opaque=True),
    Case("images and more text than reported", chat(13, 1), Usage(13, output=125), False, opaque=True),
    Case(
        "a limit above what the model makes", chat(13, 9000), Usage(13, output=9000), text=1, limit=16_000, longest=8192
    ),
    Case(
        "rejected tokens of a prediction",
        chat(13, 5000) | {"completion_tokens_details": {"rejected_prediction_tokens": 4990}},
        Usage(13, output=5000),
        text=2,
        limit=100,
    ),
    Case(
        "more rejected tokens than output",
        chat(13, 100) | {"completion_tokens_details": {"rejected_prediction_tokens": 101}},
        Usage(13, output=100),
        False,
    ),
    Case("input beyond the request", chat(5_000_000, 100), Usage(_PROMPT, output=100), False, most_input=33_000),
    Case("input that a template explains", chat(20_000, 100), Usage(20_000, output=100), most_input=33_000),
    Case("input that a file may explain", chat(5_000_000, 100), Usage(5_000_000, output=100)),
    Case("that a search has found", chat(50_000, 100), Usage(50_000, output=100), most_input=33_000, opaque=True),
    Case("a prompt of which next to nothing is reported", chat(20, 100), Usage(4512, output=100), False, own=5000),
    Case("so little that a context window may have cut it", chat(512, 100), Usage(512, output=100), own=100_000),
    Case("a prompt of long tokens", chat(300, 100), Usage(300, output=100), own=4800),
    Case(
        "a prompt of files, or with thoughts that a template leaves out", chat(20, 100), Usage(20, output=100), own=300
    ),
    Case("embeddings of a word", chat(30_000_000, 0), Usage(_PROMPT), False, text=None, most_input=1100, known=0),
    Case("embeddings with an output", chat(13, 5000), Usage(13), False, text=None, known=0),
    Case("images far above their estimate", chat(13, 10**6), Usage(13, output=8000), False, text=None, known=8000),
    Case("images within it", chat(13, 6208), Usage(13, output=6208), text=None, known=8000),
    Case("a transcript far above its length", chat(13, 9000), Usage(13, output=300), False, known=300),
    Case(
        "speech in events far above its text", chat(13, 9000), Usage(13, output=9), False, text=0, known=9, opaque=True
    ),
    *(
        Case(
            f"details that are {nothing}",
            chat(100, 20) | dict.fromkeys(("prompt_tokens_details", "completion_tokens_details"), json.loads(nothing)),
            Usage(100, output=20),
        )
        for nothing in ("[]", "null", '"none"', "0", "true", "{}")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_charged(case: Case) -> None:
    raw = json.dumps(case.reported).encode()
    usage = parse_chat_usage(raw)
    assert usage is not None
    text = case.text
    delivered = (
        None
        if text is None
        else Delivered(int(text * 80), lambda: text, finished=case.finished, opaque=lambda: case.opaque)
    )
    expected = Expected(
        _PROMPT if case.own is None else round(case.own * 0.9) + 12,
        case.limit,
        case.longest,
        reasoning=case.reasoning,
        most_input=lambda: case.most_input,
        least_input=None if case.own is None else lambda enough: case.own or 0.0,
        output=case.known,
    )
    assert believed(usage, delivered, expected) == (case.charged, case.true)
    assert usage.report.raw == raw


WORDS: Final = "word " * 400  # 500 tokens by the estimate


@pytest.mark.parametrize(
    ("request_", "least"),
    [
        ({"messages": [{"role": "user", "content": WORDS}]}, 500),
        ({"messages": [{"role": "tool", "content": [{"type": "text", "text": WORDS}, {"type": "image_url"}]}]}, 500),
        ({"messages": [{"role": "assistant", "content": WORDS}, {"role": "user", "content": None}]}, 0),
        ({"messages": [{"role": "user", "content": WORDS}], "transforms": ["middle-out"]}, 0),
        ({"input": WORDS, "instructions": WORDS}, 1000),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": WORDS}]}]}, 500),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": WORDS}]}, 500),
        ({"input": [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": WORDS}]}]}, 0),
        ({"input": [{"role": "assistant", "content": WORDS}]}, 0),
        ({"input": WORDS, "previous_response_id": "resp_1"}, 500),
        ({"input": WORDS, "truncation": "auto"}, 0),
        ({"input": WORDS, "truncation": "disabled"}, 500),
        ({"input": WORDS, "max_context": 100}, 0),
        ({"prompt": [WORDS, WORDS]}, 1000),
        ({"prompt": [1, 2, 3]}, 0),
    ],
)
def test_what_a_request_tells_the_model_for_certain(request_: dict[str, Any], least: float) -> None:
    body = json.dumps({"model": "m", **request_}).encode()
    if "messages" in request_:
        found = parse_chat_request(body).least_input(10_000)
    elif "input" in request_:
        found = parse_responses_request(body).least_input(10_000)
    else:
        found = least_input(body, 10_000)
    assert found == pytest.approx(least, abs=1)


def test_seconds_say_nothing_where_only_tokens_have_a_price() -> None:
    usage, delivered = Usage(milliseconds=9000), Delivered(600, lambda: 125.0)
    by_the_second = Expected(_PROMPT, input_priced=False, output_priced=False)
    assert believed(usage, delivered, by_the_second) == (usage, True)
    estimate = Usage(_PROMPT, output=125, milliseconds=9000)
    assert believed(usage, delivered, Expected(_PROMPT, by_units=False)) == (estimate, False)


def test_what_a_model_may_read_bounds_its_input() -> None:
    usage = Usage(3_000_000, output=1)
    assert believed(usage, None, Expected(_PROMPT, window=200_000))[1]
    assert not believed(usage, None, Expected(_PROMPT, window=100_000))[1], "not sixteen times its window"
    assert believed(usage, None, Expected(1_000_000, window=100_000))[1], "a prompt that is estimated as long"


def test_text_is_not_counted_where_the_report_is_as_usual() -> None:
    """Counting costs more than the rest of a stream's record."""

    def count() -> float:
        raise AssertionError("counted")

    usage = Usage(13, output=100)
    assert believed(usage, Delivered(30_000, count), Expected(_PROMPT, 200)) == (usage, True)


def test_answers_by_the_second_or_by_the_character_have_no_tokens() -> None:
    for usage in (Usage(milliseconds=3000), Usage(characters=9), Usage(images=1)):
        expected = Expected(_PROMPT, input_priced=False, output_priced=False)
        assert believed(usage, Delivered(20, lambda: 2.0), expected) == (usage, True)


def test_audio_is_estimated_as_audio() -> None:
    found, true = believed(Usage(13), Delivered(10**6, lambda: 30.2, lambda: 25.0), Expected(_PROMPT))
    assert (found, true) == (Usage(13, output=31, audio_output=25), False)


# -- counters of a stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reports", "last", "contradictory"),
    [
        ([Usage(9, output=3), Usage(9, output=7)], Usage(9, output=7), False),
        ([Usage(9, output=1), Usage(0, output=7)], Usage(9, output=7), False),  # said once, at the beginning
        ([Usage(9, output=7), Usage()], Usage(9, output=7), False),
        ([Usage(9, output=7), Usage(9, output=3)], Usage(9, output=7), True),
        ([Usage(9, output=7), None], Usage(9, output=7), False),
        ([None, Usage(9, output=7)], Usage(9, output=7), False),
        ([Usage(5, cached_input=5), Usage(5, cache_write=5)], Usage(5, cached_input=5), False),
    ],
)
def test_counters_of_a_stream_only_grow(reports: list[Usage | None], last: Usage, contradictory: bool) -> None:
    found = newer(*reports)
    assert found == last and found.report.contradictory is contradictory


def test_a_stream_whose_counters_go_back_keeps_the_largest_and_is_marked() -> None:
    stream = ChatStream()
    for out in (5, 40, 12):
        chunk = {"choices": [{"index": None, "delta": {"content": "word " * 20}}], "usage": chat(9, out)}
        stream.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert stream.usage == Usage(9, output=40)
    assert believed(stream.usage, None, Expected(9))[1] is False


# -- dialects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "reported", "usage"),
    [
        (  # DashScope, explicit cache
            parse_chat_usage,
            chat(1500, 9)
            | {
                "prompt_tokens_details": {
                    "cached_tokens": 400,
                    "cache_creation_input_tokens": 1000,
                    "cache_creation": {"ephemeral_5m_input_tokens": 1000},
                }
            },
            Usage(1500, cached_input=400, cache_write=1000, output=9),
        ),
        (  # the same, by lifetime alone
            parse_chat_usage,
            chat(1500, 9) | {"prompt_tokens_details": {"cache_creation": {"ephemeral_5m_input_tokens": 1000}}},
            Usage(1500, cache_write=1000, output=9),
        ),
        (  # a relay in front of Anthropic
            parse_chat_usage,
            chat(1500, 9)
            | {
                "prompt_tokens_details": {
                    "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600}
                }
            },
            Usage(1500, cache_write=1000, cache_write_1h=600, output=9),
        ),
        (  # more for an hour than was written
            parse_messages_usage,
            {
                "input_tokens": 21,
                "output_tokens": 3,
                "cache_creation_input_tokens": 10,
                "cache_creation": {"ephemeral_1h_input_tokens": 200},
            },
            Usage(31, cache_write=10, cache_write_1h=10, output=3),
        ),
        (  # new-api
            parse_chat_usage,
            chat(1500, 9) | {"prompt_tokens_details": {"cached_tokens": 400, "cached_creation_tokens": 1000}},
            Usage(1500, cached_input=400, cache_write=1000, output=9),
        ),
        (  # relays that write Anthropic's member at the top
            parse_chat_usage,
            chat(1500, 9) | {"cache_creation_input_tokens": 1000},
            Usage(1500, cache_write=1000, output=9),
        ),
        (  # Perplexity's deep research: reasoning is billed beside the completion
            parse_chat_usage,
            chat(33, 7163, 7196)
            | {
                "reasoning_tokens": 73_997,
                "citation_tokens": 20_016,
                "num_search_queries": 18,
                "cost": {"total_cost": 1},
            },
            Usage(33, output=81_160, reasoning=73_997, searches=18),
        ),
        (parse_chat_usage, chat(33, 100) | {"reasoning_tokens": 40}, Usage(33, output=100, reasoning=40)),
        (  # OpenAI, cache writes by lifetime
            parse_responses_usage,
            {
                "input_tokens": 3000,
                "output_tokens": 9,
                "input_tokens_details": {"cache_write_tokens_details": {"ttl_30m": 1000, "ttl_12h": 500}},
            },
            Usage(3000, cache_write=1500, output=9),
        ),
        (
            parse_responses_usage,
            {"input_tokens": 9, "output_tokens": 7, "input_tokens_details": [], "output_tokens_details": "none"},
            Usage(9, output=7),
        ),
        (  # Anthropic, cache writes for an hour, thinking
            parse_messages_usage,
            {
                "input_tokens": 21,
                "output_tokens": 393,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
                "output_tokens_details": {"thinking_tokens": 300},
            },
            Usage(321, cache_write=300, cache_write_1h=200, output=393, reasoning=300),
        ),
        (  # Anthropic, a summary that was made before the answer
            parse_messages_usage,
            {
                "input_tokens": 21,
                "output_tokens": 3,
                "cache_read_input_tokens": 5,
                "iterations": [
                    {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500, "cache_creation": None},
                    {"type": "compaction", "input_tokens": 1, "cache_read_input_tokens": 7, "output_tokens": 2},
                    {"type": "message", "input_tokens": 21, "output_tokens": 3, "cache_read_input_tokens": 5},
                ],
            },
            Usage(180_034, cached_input=12, output=3505),
        ),
        (  # the summary alone
            parse_messages_usage,
            {
                "input_tokens": 0,
                "output_tokens": 0,
                "iterations": [{"type": "compaction", "input_tokens": 900, "output_tokens": 70}],
            },
            Usage(900, output=70),
        ),
        (  # Gemini, blocked after thinking
            parse_gemini_usage,
            {"totalTokenCount": 710, "thoughtsTokenCount": 700},
            Usage(10, output=700, reasoning=700),
        ),
        (
            parse_gemini_usage,
            {"promptTokenCount": 10, "thoughtsTokenCount": 700, "totalTokenCount": 710, "promptTokensDetails": None},
            Usage(10, output=700, reasoning=700),
        ),
    ],
)
def test_dialects(parse: Callable[[bytes], Usage | None], reported: dict[str, Any], usage: Usage) -> None:
    found = parse(json.dumps(reported).encode())
    assert found == usage and not found.report.contradictory and not found.report.beside


def test_a_large_usage_object_is_kept_in_part() -> None:
    found = parse_chat_usage(json.dumps(chat(9, 7) | {"more": "x" * 10_000}).encode())
    assert found == Usage(9, output=7) and len(found.report.raw) == RAW_LIMIT


# -- whatever is reported ----------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(0, 5000), st.integers(-9, 2**70), st.floats(), st.none(), st.text(max_size=2), st.booleans()
)
DETAILS = st.one_of(
    st.none(),
    st.lists(NUMBERS, max_size=2),
    st.dictionaries(
        st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens", "image_tokens"]),
        NUMBERS,
    ),
)
_NAMES = [
    *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "reasoning_tokens"),
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount", "cachedContentTokenCount"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "cached_tokens"),
]
REPORTS = st.builds(
    lambda counts, into, out: {
        **counts,
        **{f"{name}_tokens_details": into for name in ("prompt", "input")},
        **{f"{name}_tokens_details": out for name in ("completion", "output")},
    },
    st.dictionaries(st.sampled_from(_NAMES), NUMBERS),
    DETAILS,
    DETAILS,
)
EXPECTED = st.builds(
    Expected,
    prompt=st.integers(0, 10**6),
    output_limit=st.none() | st.integers(0, 10**5),
    longest=st.none() | st.integers(1, 10**6),
    window=st.none() | st.integers(1, 10**7),
    reasoning=st.sampled_from(["inside", "beside", "unlisted"]),
)


@given(REPORTS, st.floats(0, 10**6), st.booleans(), EXPECTED)
def test_no_report_charges_more_than_is_plausible(
    reported: dict[str, Any], text: float, finished: bool, expected: Expected
) -> None:
    delivered = Delivered(int(text * 80), lambda: text, lambda: text / 2, finished)
    for parse in (parse_chat_usage, parse_responses_usage, parse_messages_usage, parse_gemini_usage):
        usage = parse(json.dumps(reported).encode())
        if usage is None:
            continue
        found, true = believed(usage, delivered, expected)
        assert min(found.input, found.output, found.reasoning, found.cached_input, found.cache_write) >= 0
        assert found.cached_input + found.cache_write <= found.input
        assert max(found.audio_input, found.image_input) <= found.input
        assert max(found.reasoning, found.audio_output) <= found.output
        assert (
            found.output <= max(expected.longest or LONGEST_ANSWER, 1.1 * (expected.output_limit or 0), 4 * text) + 66
        )
        assert found.input <= max(16 * (expected.window or 0), LARGEST_INPUT, 4 * expected.prompt)
        assert found.output > 0 or not text, "text is never free"
        if true:
            assert replace(usage, report=found.report).input == found.input


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (b'{"prompt_tokens":10,"completion_tokens":5}', Usage(input=10, output=5)),
        (
            b'{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":4}',
            Usage(input=10, cached_input=4, output=5),
        ),
        (b'{"prompt_tokens":10,"completion_tokens":5,"cached_tokens":99}', Usage(109, cached_input=99, output=5)),
        (b'{"prompt_tokens":-5,"completion_tokens":1e300}', Usage()),
        (b'{"prompt_tokens":"7","completion_tokens":true}', Usage()),
        (
            b'{"prompt_tokens":7,"prompt_tokens_details":null,"completion_tokens":1,"extra":{}}',
            Usage(input=7, output=1),
        ),
        (b'{"total_tokens":7}', Usage()),
        (b"null", None),
        (b"[]", None),
        (b'{"prompt_tokens":', None),
    ],
)
def test_usage_of_vendors_and_nonsense(raw: bytes, usage: Usage | None) -> None:
    assert parse_chat_usage(raw) == usage
