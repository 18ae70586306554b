"""What upstreams' failures mean, in the form in which vendors send them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.errors import CredentialsExhausted, ModelNotFound, UpstreamRateLimited, UpstreamRefused
from relay.providers.classify import classify, rules_of, stream_error
from relay.providers.failures import BY_WORD, GENERIC, SIZES, Rule
from relay.providers.failures import FailureClass as C
from relay.providers.vendors import VENDORS
from tests.providers.bodies import anthropic, openai
from tests.providers.corpus import FailureCase, every_case

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("case", every_case(), ids=str)
def test_class_of_what_vendors_send(case: FailureCase) -> None:
    """A case with the status 200 is an error inside an answer."""
    failure = classify(case.status, {}, case.content, case.vendor, now=NOW, inside_200=case.status == 200)
    assert failure.kind is BY_WORD[case.kind], failure.detail
    assert case.reserved in {None, failure.reserved}, failure.detail
    if case.wait is not None:
        assert failure.wait == pytest.approx(case.wait), failure.detail


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_client_error_is_never_held_against_its_channel(vendor: str) -> None:
    """Also when it quotes words that mean something else elsewhere."""
    said = (
        "The text “insufficient_quota, credit balance is too low, invalid api key, rate limit” in messages[0] is not "
        "valid."
    )
    body = json.dumps(openai(said, "invalid_value", "invalid_request_error", "messages")).encode()
    assert classify(422, {}, body, vendor, now=NOW).kind is C.CLIENT
    assert classify(400, {}, body, vendor, now=NOW).kind is C.CLIENT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, C.TRANSIENT),
        (404, C.CONFIG),
        (405, C.CONFIG),
        (302, C.CONFIG),
        (401, C.KEY_DEAD),
        (403, C.TRANSIENT),
        (413, C.TOO_LARGE),
        (502, C.TRANSIENT),
        (503, C.OVERLOAD),
    ],
)
def test_pages_are_no_answers_of_an_api(status: int, kind: C) -> None:
    assert classify(status, {"content-type": "text/html"}, b"<html>nginx</html>", "openai").kind is kind


def test_a_bare_401_is_not_certain_and_a_coded_one_is() -> None:
    assert not classify(401, {}, b"nope").certain
    assert not classify(402, {}, json.dumps(openai()).encode()).certain
    assert (
        not classify(402, {}, b"<html>", "deepseek").certain
        and classify(402, {}, json.dumps(openai()).encode(), "deepseek").certain
    )
    assert classify(401, {}, json.dumps(openai(code="invalid_api_key")).encode(), "openai").certain


def test_an_error_inside_a_200_is_read_by_its_code() -> None:
    body = json.dumps({"error": {"code": 429, "message": "slow down"}}).encode()
    assert classify(200, {}, body, "openrouter", inside_200=True).kind is C.RATE
    assert (
        classify(200, {}, json.dumps(openai("x", None, "server_error")).encode(), "openai", inside_200=True).kind
        is C.TRANSIENT
    )
    assert classify(200, {}, json.dumps(anthropic("overloaded_error")).encode(), "anthropic", inside_200=True).kind in {
        C.OVERLOAD,
        C.TRANSIENT,
    }


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": "Throttling.RateQuota", "message": "x", "request_id": "r"}, C.RATE),
        ({"error": {"code": "server_is_overloaded", "message": "x"}}, C.OVERLOAD),
        ({"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "x"}}, C.BILLING),
        ({"error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "x"}}, C.CLIENT),
        ({"error": {"code": "potentially_unintended_data_access", "message": "x"}}, C.CONTENT),
        ({"error": {"message": "insufficient balance"}}, C.TRANSIENT),
        ({"error": {"message": "rate limit, try again in 32 days"}}, C.TRANSIENT),
        ({"detail": "boom"}, C.TRANSIENT),
        ({"code": "InvalidParameter", "message": "x"}, C.CLIENT),
        ({"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "x"}}}, C.CLIENT),
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, C.RATE),
    ],
)
def test_an_error_inside_a_200_without_a_status_is_read_by_its_words_only(body: dict[str, Any], kind: C) -> None:
    failure = classify(200, {}, json.dumps(body).encode(), "openai", inside_200=True)
    assert (failure.kind, failure.wait) == (kind, None)


def test_a_refusal_in_plain_text_is_told_to_the_client() -> None:
    failure = classify(422, {}, b"Failed to deserialize: unknown variant `insufficient balance`", "deepseek")
    assert failure.kind is C.CLIENT and failure.error.http_status == 422 and "unknown variant" in failure.error.message
    assert classify(403, {}, b"error code: 1020", "openai").kind is C.TRANSIENT, "a firewall's"
    large = classify(413, {}, b"<html>413 Request Entity Too Large</html>", "openai")
    assert (large.kind, large.error.http_status) == (C.TOO_LARGE, 413)


def test_an_error_in_a_running_stream_tells_nothing_of_the_portals_account() -> None:
    error, detail = stream_error(
        json.dumps(openai("You exceeded your current quota", "insufficient_quota")).encode(), "openai"
    )
    assert error.public_code == "upstream_credentials_exhausted" and "quota" not in error.message and "quota" in detail
    error, _ = stream_error(
        json.dumps(openai("The server had an error", "server_error", "server_error")).encode(), "openai"
    )
    assert (error.message, error.public_code) == ("The server had an error", "server_error")


def test_an_error_that_names_a_parameter_of_the_client_is_about_the_request() -> None:
    """A model of a tool, for example, which the client chooses; the model of the request is written by the relay."""
    for code, status in (("model_not_found", 404), ("model_not_found", 400), ("invalid_api_key", 403)):
        body = json.dumps(openai("The model `x` does not exist.", code, param="tools[0].model")).encode()
        assert classify(status, {}, body, "openai").kind is C.CLIENT
    body = json.dumps(openai("The model `x` does not exist.", "model_not_found", param="model")).encode()
    assert classify(400, {}, body, "openai").kind is C.KEY_FORBIDDEN_MODEL
    # LiteLLM names its key as the parameter, and writes “None” where there is none.
    for param, code in (("key", "invalid_api_key"), ("None", "invalid_api_key")):
        body = json.dumps(openai("Not for you.", code, param=param)).encode()
        assert classify(403, {}, body, "openai").kind is C.KEY_DEAD


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ("The model `gpt-9` does not exist or you do not have access to it.", True),
        ("model 'llama9' not found, try pulling it first", True),
        ("Model gpt-9 not found", True),
        ("Model Not Exist", True),
        ("The requested model 'x' was not found.", True),
        ("models/x is not found for API version v1main", True),
        ("模型不存在，请检查模型代码。", True),
        ("The model cannot read this image: the file was not found.", False),
        ("Item with id 'the model x' not found.", False),
        ("File model does not exist", False),
    ],
)
def test_a_model_that_is_missing_is_told_from_other_things(message: str, missing: bool) -> None:
    for status in (400, 404):
        kind = classify(status, {}, json.dumps(openai(message)).encode(), "vllm").kind
        assert kind is (C.KEY_FORBIDDEN_MODEL if missing else C.CLIENT)


def test_a_framework_without_the_path_is_told_from_a_server_without_the_thing() -> None:
    assert classify(404, {}, b'{"detail":"Not Found"}', "vllm").kind is C.CONFIG
    assert classify(404, {}, b'{"detail":"Response not found: resp_1"}', "vllm").kind is C.CLIENT
    assert classify(404, {}, json.dumps(openai("Not found", "not_found")).encode(), "openai").kind is C.CLIENT


def test_the_administrators_rules_come_first() -> None:
    import re

    rule = Rule(C.QUOTA_WINDOW, text=re.compile("come back tomorrow", re.I), cooldown=7200.0)
    failure = classify(400, {}, json.dumps(openai("Come back tomorrow!")).encode(), "openai", (rule,))
    assert (failure.kind, failure.cooldown) == (C.QUOTA_WINDOW, 7200.0)
    assert classify(400, {}, json.dumps(openai("Something else")).encode(), "openai", (rule,)).kind is C.CLIENT
    quoted = json.dumps(openai("Invalid value: 'come back tomorrow'.")).encode()
    assert classify(400, {}, quoted, "openai", (rule,)).kind is C.CLIENT, "what is quoted may be the client's"


def test_what_the_client_is_told() -> None:
    def told(status: int, body: dict[str, Any], provider: str = "openai") -> Any:
        return classify(status, {"retry-after": "7"}, json.dumps(body).encode(), provider).error

    assert isinstance(told(401, openai(code="invalid_api_key")), CredentialsExhausted), (
        "never 401: the client's token is fine"
    )
    assert isinstance(told(402, openai()), CredentialsExhausted), "nor 402: so is the client's wallet"
    assert isinstance(told(404, openai(code="model_not_found")), ModelNotFound)
    missing = told(400, openai("The model `upstream-name` does not exist.", "model_not_found"))
    assert isinstance(missing, ModelNotFound) and "upstream-name" not in missing.message
    dear = told(402, openai("This request requires more credits, or fewer max_tokens. You can only afford 1000."))
    assert isinstance(dear, UpstreamRefused) and (dear.http_status, dear.param) == (400, "max_tokens")
    assert "1000" not in dear.message, "what is left on the portal's account is nobody's business"
    refused = told(403, {"error": {"code": 403, "message": "flagged by moderation"}}, "openrouter")
    assert isinstance(refused, UpstreamRefused) and refused.http_status == 400
    limited = told(429, openai(code="rate_limit_exceeded"))
    assert isinstance(limited, UpstreamRateLimited) and limited.retry_after == 7


def test_rules_are_in_order_and_end_with_generic_ones() -> None:
    own = VENDORS["openai"].failures
    assert rules_of("openai") == SIZES + own + GENERIC
    assert rules_of("unknown") == rules_of("")
