"""Prices: pure. Costs in the tables are worked out by hand, in nano-USD."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.billing.prices import LARGEST_COST, ONE, Price, PriceList, affordable_output, ceiling, cost
from relay.gateway.charging.believed import Expected, believed
from relay.protocols.anthropic_messages.usage import parse_messages_usage
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.gemini.usage import parse_gemini_usage
from relay.protocols.usage import ReasoningCount, Usage

M = 1_000_000_000  # nano-USD in a USD: a price of 1 USD per 1M tokens


GPT = Price(input=5 * M // 2, cached_input=M // 4, output=15 * M)


CLAUDE = Price(input=3 * M, cached_input=3 * M // 10, cache_write=15 * M // 4, cache_write_1h=6 * M, output=15 * M)


GEMINI = Price(input=3 * M // 10, cached_input=3 * M // 100, audio_input=M, output=5 * M // 2)


AUDIO = Price(input=5 * M // 2, audio_input=40 * M, output=10 * M, audio_output=80 * M)


def _of_vendor(reasoning: ReasoningCount) -> Any:
    """Reads the usage of a vendor whose reasoning tokens are not part of the completion."""

    def read(raw: bytes) -> Usage | None:
        found = parse_chat_usage(raw)
        return believed(found, None, Expected(reasoning=reasoning))[0] if found is not None else None

    return read


# (vendor's parser, usage object as the vendor documents or sends it, price, cost by hand)
REAL: list[tuple[str, Any, dict[str, Any], Price, int]] = [
    # OpenAI: 2006 prompt tokens of which 1920 cached. 86 × 2500 + 1920 × 250 + 300 × 15000
    (
        "openai, cached prompt",
        parse_chat_usage,
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920},
        },
        GPT,
        86 * 2500 + 1920 * 250 + 300 * 15_000,
    ),
    # OpenAI reasoning is part of the completion: 1024 of 1101, at the price of output
    (
        "openai, reasoning",
        parse_chat_usage,
        {
            "prompt_tokens": 75,
            "completion_tokens": 1101,
            "total_tokens": 1176,
            "completion_tokens_details": {"reasoning_tokens": 1024},
        },
        GPT,
        75 * 2500 + 1101 * 15_000,
    ),
    # OpenAI audio: 100 of 120 prompt tokens and 200 of 250 completion tokens are audio
    (
        "openai, audio",
        parse_chat_usage,
        {
            "prompt_tokens": 120,
            "completion_tokens": 250,
            "prompt_tokens_details": {"audio_tokens": 100},
            "completion_tokens_details": {"audio_tokens": 200},
        },
        AUDIO,
        20 * 2500 + 100 * 40_000 + 50 * 10_000 + 200 * 80_000,
    ),
    # Anthropic: input_tokens leave out 188,086 read from and 2,048 written to the cache
    (
        "anthropic, cache read and write",
        parse_messages_usage,
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 2048,
            "cache_read_input_tokens": 188_086,
            "output_tokens": 393,
        },
        CLAUDE,
        21 * 3000 + 2048 * 3750 + 188_086 * 300 + 393 * 15_000,
    ),
    # Of 2,048 written to the cache, 1,000 for an hour, at twice the price of input
    (
        "anthropic, cache written for an hour",
        parse_messages_usage,
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 2048,
            "cache_read_input_tokens": 188_086,
            "cache_creation": {"ephemeral_5m_input_tokens": 1048, "ephemeral_1h_input_tokens": 1000},
            "output_tokens": 393,
        },
        CLAUDE,
        21 * 3000 + 1048 * 3750 + 1000 * 6000 + 188_086 * 300 + 393 * 15_000,
    ),
    (
        "anthropic, plain",
        parse_messages_usage,
        {"input_tokens": 2095, "output_tokens": 503},
        CLAUDE,
        2095 * 3000 + 503 * 15_000,
    ),
    # Gemini: thoughts are beside the candidates: 20 + 700 of output
    (
        "gemini, thoughts",
        parse_gemini_usage,
        {"promptTokenCount": 10, "candidatesTokenCount": 20, "thoughtsTokenCount": 700, "totalTokenCount": 730},
        GEMINI,
        10 * 300 + 720 * 2500,
    ),
    # Gemini: cached content is part of the prompt; 258 tokens of the prompt are audio
    (
        "gemini, cached and audio",
        parse_gemini_usage,
        {
            "promptTokenCount": 5258,
            "cachedContentTokenCount": 4000,
            "candidatesTokenCount": 100,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5000}, {"modality": "AUDIO", "tokenCount": 258}],
        },
        GEMINI,
        4000 * 30 + 258 * 1000 + 1000 * 300 + 100 * 2500,
    ),
    # Gemini's OpenAI dialect: thoughts only show in the total
    (
        "gemini, openai dialect",
        _of_vendor("unlisted"),
        {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 730},
        GEMINI,
        10 * 300 + 720 * 2500,
    ),
    # xAI: reasoning beside the completion
    (
        "xai",
        parse_chat_usage,
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 241,
            "completion_tokens_details": {"reasoning_tokens": 200},
        },
        GPT,
        32 * 2500 + 209 * 15_000,
    ),
    # DeepSeek: hits and misses of the cache at the top
    (
        "deepseek",
        parse_chat_usage,
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_cache_hit_tokens": 896,
            "prompt_cache_miss_tokens": 104,
        },
        GPT,
        104 * 2500 + 896 * 250 + 50 * 15_000,
    ),
    # Moonshot: cached_tokens at the top
    (
        "moonshot",
        parse_chat_usage,
        {"prompt_tokens": 500, "completion_tokens": 10, "total_tokens": 510, "cached_tokens": 256},
        GPT,
        244 * 2500 + 256 * 250 + 10 * 15_000,
    ),
]


@pytest.mark.parametrize(
    ("parse", "usage", "price", "expected"), [row[1:] for row in REAL], ids=[row[0] for row in REAL]
)
def test_real_usage_objects(parse: Any, usage: dict[str, Any], price: Price, expected: int) -> None:
    found = parse(json.dumps(usage).encode())
    assert found is not None and cost(price, found) == expected


def test_rounding_is_up_and_once() -> None:
    third = Price(input=1)  # a millionth of a nano-USD a token
    assert cost(third, Usage(input=1)) == 1
    assert cost(third, Usage(input=1_000_000)) == 1
    assert cost(third, Usage(input=1_000_001)) == 2
    assert cost(third, Usage()) == 0
    assert cost(Price(input=3), Usage(input=500_000), ONE // 2) == 1


numbers = st.integers(min_value=0, max_value=2**53)


@given(
    st.builds(
        Usage,
        input=numbers,
        cached_input=numbers,
        cached_audio_input=numbers,
        cache_write=numbers,
        cache_write_1h=numbers,
        output=numbers,
        reasoning=numbers,
        audio_input=numbers,
        audio_output=numbers,
        image_input=numbers,
    )
)
def test_no_usage_costs_less_than_nothing_or_more_than_its_ceiling(usage: Usage) -> None:
    for price in (GPT, CLAUDE, Price(input=7, reasoning=900, output=3)):
        found = cost(price, usage)
        assert 0 <= found <= ceiling(price, usage.input, usage.output, ONE)


counts = st.one_of(st.integers(), st.floats(), st.none(), st.booleans(), st.text(max_size=3))


MEMBERS = [
    *("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "input_tokens", "output_tokens"),
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cache_read_input_tokens"),
]


@given(st.dictionaries(st.sampled_from(MEMBERS), counts))
def test_absurd_usage_objects_are_no_credit(usage: dict[str, Any]) -> None:
    for parse in (parse_chat_usage, parse_messages_usage, parse_gemini_usage):
        found = parse(json.dumps(usage).encode())
        if found is not None:
            assert cost(GPT, found) >= 0
            assert (
                min(
                    found.input,
                    found.cached_input,
                    found.cache_write,
                    found.output,
                    found.reasoning,
                    found.audio_input,
                    found.audio_output,
                )
                >= 0
            )


def test_price_versions_and_tiers() -> None:
    old, base, long = (
        Price(id=1, since=100.0, input=1),
        Price(id=2, since=200.0, input=2),
        Price(id=3, since=200.0, above_tokens=272_000, input=4),
    )
    prices = PriceList.of([base, old, long])

    def at(now: float, tokens: int) -> int | None:
        found = prices.at(now, tokens)
        return found.id if found else None

    assert at(99, 10) is None
    assert at(150, 900_000) == 1
    assert (at(200, 0), at(200, 272_000), at(200, 272_001), at(10**9, 10**6)) == (2, 2, 3, 3)


def test_affordable_output() -> None:
    assert affordable_output(GPT, 15_000 * 10, ONE) == 10
    assert affordable_output(GPT, 15_000 * 10, ONE * 2) == 5
    assert affordable_output(GPT, 15_000 * 10, ONE, choices=2) == 5
    assert affordable_output(GPT, -5, ONE) == 0
    assert affordable_output(Price(), 0, ONE) == 2**31


def test_what_is_charged_by_the_unit_is_charged_whether_or_not_a_call_costs_something() -> None:
    units = Usage(images=2, milliseconds=1001, characters=3)
    for price, expected in (
        (Price(call=7), 7),
        (Price(image=100), 200),
        (Price(second=1000), 1001),
        (Price(second=1), 2),  # a second and a millisecond, rounded up
        (Price(character=5), 15),
        (Price(call=7, image=100, second=1000, character=5), 7 + 200 + 1001 + 15),
    ):
        assert cost(price, units) == ceiling(price, 0, 0, ONE, units) == expected
        assert ceiling(price, 0, 0, 2 * ONE, units) >= 2 * expected - 1


def test_a_ceiling_is_that_of_the_dearest_class_of_each_direction() -> None:
    for name in ("output", "reasoning", "audio_output"):
        assert ceiling(Price(**{"output": M, name: 9 * M}), 0, 10, ONE) == 90_000
    for name in ("input", "cache_write", "cache_write_1h", "audio_input", "image_input"):
        assert ceiling(Price(**{"input": M, name: 9 * M}), 10, 0, ONE) == 90_000


def test_what_is_written_for_an_hour_costs_what_is_written_where_it_has_no_price_of_its_own() -> None:
    usage = Usage(10, cache_write=8, cache_write_1h=5)
    for price, expected in (
        (Price(input=M, cache_write=2 * M, cache_write_1h=4 * M), 2 + 3 * 2 + 5 * 4),
        (Price(input=M, cache_write=2 * M), 2 + 8 * 2),
        (Price(input=M, cache_write_1h=4 * M), 2 + 3 + 5 * 4),
        (Price(input=M, cache_write=2 * M, cache_write_1h=0), 2 + 3 * 2),
        (Price(input=M), 10),
    ):
        assert cost(price, usage) == expected * 1000


def test_no_request_costs_more_than_can_be_written() -> None:
    dear = Price(input=10**18, output=10**18, second=10**18)
    assert cost(dear, Usage(input=2**33, milliseconds=2**53), 10**9) == LARGEST_COST < 2**63
    assert ceiling(dear, 2**33, 2**33, 10**9) == LARGEST_COST


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        # gpt-realtime-mini: text 0.60, cached 0.06; audio 10, cached 0.30 (OpenAI's price list, November 2026)
        ({"input": 600, "cached_input": 60, "audio_input": 10_000, "cached_audio_input": 300}, 60 * 100 + 300 * 1000),
        ({"input": 600, "cached_input": 60, "audio_input": 10_000}, 60 * 1100),
        ({"input": 600, "audio_input": 10_000}, 600 * 100 + 10_000 * 1000),
        ({"input": 600}, 600 * 1100),
        ({"input": 600, "cached_input": 60, "audio_input": 10_000, "cached_audio_input": 0}, 60 * 100),
    ],
)
def test_cached_audio_has_its_own_price_or_that_of_what_it_is_a_part_of(price: dict[str, int], expected: int) -> None:
    found = Price(**{name: amount * M for name, amount in price.items()})
    fresh = 400 * price["input"] + 200 * price.get("audio_input", price["input"])
    usage = Usage(1700, cached_input=1100, cached_audio_input=1000, audio_input=200)
    assert cost(found, usage) == (expected + fresh) * M // 10**6
    more = Usage(1700, cached_input=1100, cached_audio_input=10**9, audio_input=200)  # no more than was cached
    assert cost(found, more) <= ceiling(found, 1700, 0, ONE)


def test_cached_audio_is_read_from_what_vendors_report() -> None:
    chat = {
        "prompt_tokens": 1700,
        "completion_tokens": 1,
        "prompt_tokens_details": {
            "cached_tokens": 1100,
            "audio_tokens": 1200,
            "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 1000},
        },
    }
    gemini = {
        "promptTokenCount": 1700,
        "candidatesTokenCount": 1,
        "cachedContentTokenCount": 1100,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1200}, {"modality": "TEXT", "tokenCount": 500}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 1000}, {"modality": "TEXT", "tokenCount": 100}],
    }
    expected = Usage(1700, cached_input=1100, cached_audio_input=1000, audio_input=200, output=1)
    assert parse_chat_usage(json.dumps(chat).encode()) == expected
    assert parse_gemini_usage(json.dumps(gemini).encode()) == expected
