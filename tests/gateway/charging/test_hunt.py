"""What was paid is what the upstream counted, whatever the client does: leave at any byte, lie about limits, repeat.

Some hundred plans in the suite, always the same; `make hunt` tries ten thousand new ones (HUNT_RUNS).
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.support.load.honest import DIALECTS, OUTPUT_PRICE, THINKS_PER_SECOND, Hunt, Plan, shown
from tests.support.money import books_balance
from tests.support.portal import Portal

pytestmark = pytest.mark.shared
RUNS = int(os.environ.get("HUNT_RUNS", "200"))
CENTS = 20_000_000  # two, in nano-USD
_LIMITS = [None, None, 16, 5000, -1, 0, 10**12, "16", "all", True, 1.5]
PROMPTS = st.one_of(
    st.just("Say something."),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=300),
    st.integers(1, 3000).map(lambda size: " " * size),
    st.integers(1, 3000).map("x".__mul__),
    st.binary(max_size=2000).map(lambda data: data.hex()),
)
PLANS = st.builds(
    Plan,
    api=st.sampled_from(("chat", "chat", "responses", "completions")),
    stream=st.booleans() | st.just(True),
    dialect=st.sampled_from(DIALECTS),
    words=st.integers(1, 400),
    thought=st.sampled_from((0, 0, 500, 2000)),
    cached=st.sampled_from((0, 0, 100, 20_000)),
    prompt=PROMPTS,
    limit=st.sampled_from(_LIMITS),
    piece=st.sampled_from((0, 0, 1000, 97)),
    stalls=st.integers(0, 29).map(lambda number: number == 17),
    leaves=st.none() | st.integers(0, 300) | st.integers(0, 60_000),
    repeats=st.sampled_from((1, 1, 1, 2)),
    seed=st.integers(0, 2**16),
)


def test_what_is_paid_is_what_the_upstream_counted(live: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.gateway.watchdog.TICK", 0.02)
    hunt = Hunt(live)
    for dialect in DIALECTS:  # a worker that has seen what these models do
        for stream in (True, False):
            for _ in range(3):
                hunt.run(Plan(dialect=dialect, stream=stream, thought=2000, words=50))
    paid = counted = estimated_paid = estimated_counted = 0
    runs = left = estimated = 0

    @settings(
        max_examples=RUNS,
        deadline=None,
        database=None,
        derandomize=RUNS <= 1000,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @example(Plan(thought=2000, words=3, leaves=400))  # before the usage
    @example(Plan(api="completions", limit=-1, words=400, leaves=10_000))
    @example(Plan(dialect="anthropic", cached=20_000))
    @example(Plan(dialect="lies", words=300))
    @example(Plan(thought=500, stalls=True, leaves=0))
    @example(Plan(api="responses", thought=2000, leaves=1))
    @given(PLANS)
    def compare(plan: Plan) -> None:
        nonlocal paid, counted, estimated_paid, estimated_counted, runs, left, estimated
        if plan.stalls or plan.dialect == "lies":  # what comes from elsewhere than the request, only a report can tell
            plan = replace(plan, cached=0, thought=min(plan.thought, 500) if plan.dialect != "lies" else 0, repeats=1)
        cost, records = hunt.run(plan)
        charged = sum(record.cost - record.shortfall for record in records)
        assert len(records) == plan.repeats or plan.leaves == 0, shown(plan)
        silence = (
            sum(record.latency_ms for record in records) if plan.stalls else 0
        )  # in which a model may have thought
        slack = max(CENTS, cost // 100) + silence * THINKS_PER_SECOND // 1000 * OUTPUT_PRICE
        assert abs(charged - cost) <= slack, f"{charged} of {cost}: {shown(plan)}"
        paid, counted, runs = paid + charged, counted + cost, runs + 1
        left += any(record.end_reason == "client_gone" for record in records)
        if any(record.usage_source == "estimated" for record in records):
            estimated += 1
            if RUNS <= 1000:
                print(
                    charged, cost, [(r.input_tokens, r.output_tokens, r.latency_ms) for r in records], shown(plan)[:150]
                )
            estimated_paid, estimated_counted = estimated_paid + charged, estimated_counted + cost
        else:
            assert charged == cost, f"{charged} of {cost}: {shown(plan)}"

    try:
        compare()
    finally:
        hunt.close()
    figures = (
        f"{runs} runs, {left} left, {estimated} estimated: paid {paid / 1e9:.4f} of {counted / 1e9:.4f} USD, "
        f"{estimated_paid / 1e9:.4f} of {estimated_counted / 1e9:.4f} where it was estimated"
    )
    print(figures)
    assert left > runs // 10 and estimated > runs // 100, figures
    assert paid >= 0.99 * counted and estimated_paid >= 0.9 * estimated_counted, figures
    books_balance()
