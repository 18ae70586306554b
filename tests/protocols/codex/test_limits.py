"""The headers from which Codex takes what limits an account."""

from __future__ import annotations

import pytest

from relay.protocols.codex.limits import BudgetWindow, is_codex, limit_headers

USD = 1_000_000_000


def shown(*windows: BudgetWindow, left: int | None = None) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in limit_headers(windows, left)}


def test_a_budget_is_a_window() -> None:
    assert shown(BudgetWindow("day", 8 * USD, 3 * USD, 1_800_000_000)) == {
        "x-codex-primary-used-percent": "37.5",
        "x-codex-primary-window-minutes": "1440",
        "x-codex-primary-reset-at": "1800000000",
    }


def test_of_three_the_two_fullest_are_told_the_shorter_first() -> None:
    found = shown(
        BudgetWindow("month", 100 * USD, 90 * USD, 3),
        BudgetWindow("day", 10 * USD, 0, 1),
        BudgetWindow("week", 2, 1, 2),
    )
    assert (found["x-codex-primary-window-minutes"], found["x-codex-secondary-window-minutes"]) == ("10080", "43200")
    assert (found["x-codex-primary-used-percent"], found["x-codex-secondary-used-percent"]) == ("50.0", "90.0")


@pytest.mark.parametrize(
    ("limit", "used", "percent"), [(0, 0, "100.0"), (USD, 3 * USD, "100.0"), (USD, -1, "0.0"), (3, 1, "33.3")]
)
def test_a_share_is_never_beyond_its_bounds(limit: int, used: int, percent: str) -> None:
    assert shown(BudgetWindow("day", limit, used, 1))["x-codex-primary-used-percent"] == percent


@pytest.mark.parametrize(("left", "has", "balance"), [(12_340_000_000, "true", "12.34"), (0, "false", "0")])
def test_money_is_told_as_credits(left: int, has: str, balance: str) -> None:
    assert shown(left=left) == {
        "x-codex-credits-has-credits": has,
        "x-codex-credits-unlimited": "false",
        "x-codex-credits-balance": balance,
    }


def test_without_limits_nothing_is_told() -> None:
    assert shown() == {}


@pytest.mark.parametrize(
    ("headers", "codex"),
    [
        ({b"originator": b"codex_exec"}, True),
        ({b"originator": b"Codex Desktop"}, True),
        ({b"user-agent": b"codex_cli_rs/0.171.0 (Debian 12)"}, True),
        ({b"user-agent": b"OpenAI/Python 3.57"}, False),
        ({}, False),
    ],
)
def test_codex_is_known_by_its_headers(headers: dict[bytes, bytes], codex: bool) -> None:
    assert is_codex(headers) is codex
