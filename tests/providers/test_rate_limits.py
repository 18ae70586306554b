"""Limits that a request exceeds by its size: whether smaller ones would be served, and how long they have to wait."""

from __future__ import annotations

import json

import pytest

from relay.gateway.routing.circuit_breaker import CircuitBreaker, is_proof
from relay.providers.classify import Failure, classify
from relay.providers.failures import FailureClass as C

GROQ = (
    "Rate limit reached for model `llama-3.3-70b-versatile` in organization `org_01` service tier `on_demand` on "
    "tokens per day (TPD): Limit 100000, Used {used}, Requested {requested}. Please try again in 2h24m0s. Need more "
    "tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
)
OPENAI = (
    "Rate limit reached for gpt-5.2 in organization org-x on {what}: Limit {limit}, Used {used}, Requested "
    "{requested}. Please try again in 10s. Visit https://platform.openai.com/account/rate-limits to learn more."
)


def refused(message: str, provider: str = "openai", code: str = "rate_limit_exceeded", **headers: str) -> Failure:
    error = {"message": message, "type": "tokens", "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(429, named, json.dumps({"error": error}).encode(), provider)


def tpm(limit: object, used: object, requested: object) -> str:
    return OPENAI.format(what="tokens per min (TPM)", limit=limit, used=used, requested=requested)


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (GROQ.format(used=60000, requested=50000), 0),
        (GROQ.format(used=0, requested="~99999"), 1),  # it would have fitted: something else is wrong
        (tpm(30000, 10000, 25000), 0),
        (tpm("30,000", "10,000", "25,000"), 0),
        (tpm(30000, 29000, 25000), 0),  # room for one of 1,000 tokens
        (tpm(30000, 29500, 1000), 1),  # small itself
        (tpm(30000, 29500, 10500), 0.05),  # of the 10,000 that it lacks, a small one lacks 500
        (tpm(30000, 32000, 1000), 1),
        (tpm(30000, 32000, 8000), 0.3),
        (tpm(2000, 1900, 500), 0.25),  # a small one has the tenth part of a small limit
        (OPENAI.format(what="requests per min (RPM)", limit=3, used=3, requested=1), 1),
        (OPENAI.format(what="images per minute", limit=5, used=3, requested=4), 0),
        (OPENAI.format(what="images per minute", limit=5, used=5, requested=4), 0.25),
        ("Rate limit reached for gpt-4 on tokens per min. Limit: 40000 / min. Current: 35000 / min.", 0),
        ("Rate limit reached for gpt-4 on tokens per min. Limit: 40000 / min. Current: 40010 / min.", 1),
        ("Rate limit reached. Please try again in 20s.", 1),
        (
            "The system is currently experiencing high demand and cannot process your request. Your request exceeds "
            "the maximum usage size allowed during peak load. Please retry after 20 seconds.",
            0,
        ),
    ],
)
def test_the_part_of_a_wait_that_small_requests_share(message: str, part: float) -> None:
    failure = refused(message, retry_after="8640")
    assert failure.kind is C.RATE
    assert failure.shared_part == pytest.approx(part)
    assert is_proof(failure) is bool(part)
    assert failure.error.retry_after == 8640  # the request itself has to wait


def test_a_wait_for_a_large_request_cools_nothing_down_for_others() -> None:
    breaker, place = CircuitBreaker(), (1, 2, 3)
    for user in (1, 2, 1, 2):
        breaker.failed(place, user, refused(tpm(30000, 10000, 25000), retry_after="8640"), 0.0, 10.0)
    assert breaker.blocked(place, 10.0) is None
    assert not breaker.changed


def test_others_wait_as_long_as_a_small_request_would() -> None:
    breaker, place = CircuitBreaker(), (1, 2, 3)
    breaker.failed(place, 1, refused(tpm(30000, 29500, 10500), retry_after="1000"), 0.0, 10.0)
    found = breaker.blocked(place, 10.0)
    assert found is not None
    assert found.until == pytest.approx(60.0)


def test_the_user_of_large_requests_is_sent_elsewhere_while_there_is_one() -> None:
    own, place = CircuitBreaker(own=True), (1, 2, 3)
    for _ in range(12):
        own.failed(place, 1, refused(tpm(30000, 10000, 25000), retry_after="8640"), 0.0, 10.0)
    assert own.blocked(place, 11.0) is not None
    assert own.blocked(place, 11.0, last_resort=True) is None


@pytest.mark.parametrize(("left", "part"), [("24000", 0), ("0", 1), ("", 1), ("none", 1)])
def test_headers_say_what_is_left_of_a_limit_that_a_request_would_exceed(left: str, part: float) -> None:
    message = (
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: x). For "
        "details, refer to: https://docs.claude.com/en/api/rate-limits."
    )
    failure = refused(message, "anthropic", "rate_limit_error", anthropic_ratelimit_input_tokens_remaining=left)
    assert (failure.kind, failure.shared_part) == (C.RATE, part)


@pytest.mark.parametrize(
    ("message", "wait"),
    [
        (tpm(30000, 0, 30601), "10"),
        ("Rate limit reached for x on tokens per minute (TPM): Limit 6000, Requested 12903.", ""),
        (
            "Your requests to gpt-5.1 for gpt-5.1 in East US 2 have exceeded the token rate limit for your current "
            "AIServices S0 pricing tier. Please retry after 86400 seconds.",
            "86400",
        ),
        (
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-08-01-preview have "
            "exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds.",
            "86400",
        ),
    ],
)
def test_a_request_larger_than_the_whole_limit_is_too_large(message: str, wait: str) -> None:
    headers = {"retry_after": wait} if wait else {}
    assert refused(message, "azure", "429", **headers).kind is C.TOO_LARGE


def test_a_limit_of_a_minute_that_others_share_is_none_of_the_request() -> None:
    message = (
        "Your requests to gpt-5.1 for gpt-5.1 in East US 2 have exceeded the token rate limit for your current "
        "AIServices S0 pricing tier. Please retry after 60 seconds."
    )
    failure = refused(message, "azure", "429", retry_after="60")
    assert failure.kind is C.RATE
    assert is_proof(failure)


def test_the_limit_of_a_vendor_behind_a_relay_is_read_as_well() -> None:
    inner = json.dumps({"error": {"message": tpm(30000, 10000, 25000), "code": "rate_limit_exceeded"}})
    error = {"message": "Provider returned error", "code": 429, "metadata": {"raw": inner}}
    failure = classify(429, {"retry-after": "8640"}, json.dumps({"error": error}).encode(), "openrouter")
    assert failure.shared_part == 0
