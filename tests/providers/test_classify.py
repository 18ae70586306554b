"""What upstreams' failures mean: a fixture for every rule of every vendor, in the form in which the vendor sends it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.errors import CredentialsExhausted, ModelNotFound, UpstreamRateLimited, UpstreamRefused
from relay.protocols.errors import read_error
from relay.providers.classify import classify, find_rule, rules_of
from relay.providers.failures import FailureClass as C
from relay.providers.failures import Rule
from relay.providers.vendors import VENDORS
from tests.providers.bodies import anthropic, dashscope, gemini, openai, quota, zhipu

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()


# (provider, status, body, class)
FIXTURES: list[tuple[str, int, dict[str, Any], C]] = [
    ("openai", 400, openai("This model's maximum context length is 128000 tokens.", "context_length_exceeded", param="messages"), C.CLIENT),
    ("openai", 400, openai("Unsupported parameter: 'max_tokens'", "unsupported_parameter", param="max_tokens"), C.CLIENT),
    ("openai", 400, openai("Your request was rejected by our safety system.", "content_policy_violation"), C.CONTENT),
    ("openai", 400, openai("Your request was rejected.", "moderation_blocked", "image_generation_user_error"), C.CONTENT),
    ("openai", 400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_prompt"), C.CONTENT),
    ("openai", 403, openai("Country, region, or territory not supported", "unsupported_country_region_territory", "request_forbidden"), C.CONFIG),
    ("openai", 401, openai("Your IP address is not authorized to use this API.", "ip_not_authorized"), C.CONFIG),
    ("openai", 401, openai("You have insufficient permissions for this operation. Missing scopes: model.request.", None), C.CONFIG),
    ("openai", 401, openai("Incorrect API key provided: sk-abc.", "invalid_api_key"), C.KEY_DEAD),
    ("openai", 401, openai("The OpenAI account associated with this API key has been deactivated.", "account_deactivated"), C.KEY_DEAD),
    ("openai", 401, openai("You must be a member of an organization to use the API.", None), C.KEY_DEAD),
    ("openai", 404, openai("The model `gpt-9` does not exist or you do not have access to it.", "model_not_found"), C.KEY_FORBIDDEN_MODEL),
    ("openai", 403, openai("Project `proj_x` does not have access to model `gpt-9`", None), C.KEY_FORBIDDEN_MODEL),
    ("openai", 429, openai("Rate limit reached for gpt-5 on requests per min", "rate_limit_exceeded", "requests"), C.RATE),
    ("openai", 429, openai("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", "insufficient_quota"), C.BILLING),
    ("openai", 400, openai("Billing hard limit has been reached", "billing_hard_limit_reached"), C.BILLING),
    ("openai", 429, openai("Your project has reached its limit.", "project_spend_limit_exceeded", "insufficient_quota"), C.BILLING),
    ("openai", 429, openai("Request too large for gpt-5 on tokens per min (TPM): Limit 30000, Requested 50000.", "rate_limit_exceeded", "tokens"), C.TOO_LARGE),
    ("openai", 503, openai("Our servers are overloaded.", "server_is_overloaded", "server_error"), C.OVERLOAD),
    ("openai", 500, openai("The server had an error.", None, "server_error"), C.TRANSIENT),
    ("azure", 400, {"error": {"code": "content_filter", "message": "x", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, C.CONTENT),
    ("azure", 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}}, C.KEY_DEAD),
    ("azure", 403, {"error": {"code": "403", "message": "Out of call volume quota. Quota will be replenished in 2.00:00:00."}}, C.BILLING),
    ("azure", 403, {"error": {"code": "AccessDenied", "message": "Access denied due to Virtual Network/Firewall rules."}}, C.CONFIG),
    ("azure", 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, C.KEY_FORBIDDEN_MODEL),
    ("azure", 404, {"error": {"code": "404", "message": "Resource not found"}}, C.CONFIG),
    ("azure", 429, {"error": {"code": "429", "message": "Requests have exceeded call rate limit."}}, C.RATE),
    ("azure", 429, {"error": {"code": "RateLimitReached", "message": "x"}}, C.RATE),
    ("azure", 429, {"error": {"code": "NoCapacity", "message": "x"}}, C.OVERLOAD),
    ("anthropic", 400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), C.CLIENT),
    ("anthropic", 400, anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), C.BILLING),
    ("anthropic", 400, anthropic("invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."), C.BILLING),
    ("anthropic", 400, anthropic("invalid_request_error", "This organization has been disabled."), C.KEY_DEAD),
    ("anthropic", 400, anthropic("organization_on_hold"), C.KEY_DEAD),
    ("anthropic", 401, anthropic("authentication_error", "invalid x-api-key"), C.KEY_DEAD),
    ("anthropic", 402, anthropic("billing_error"), C.BILLING),
    ("anthropic", 403, anthropic("permission_error"), C.KEY_FORBIDDEN_MODEL),
    ("anthropic", 404, anthropic("not_found_error", "model: claude-9"), C.KEY_FORBIDDEN_MODEL),
    ("anthropic", 413, anthropic("request_too_large"), C.CLIENT),
    ("anthropic", 429, anthropic("rate_limit_error"), C.RATE),
    ("anthropic", 429, anthropic("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), C.BILLING),
    ("anthropic", 429, anthropic("ramp_limit_exceeded"), C.RATE),
    ("anthropic", 500, anthropic("api_error"), C.TRANSIENT),
    ("anthropic", 504, anthropic("timeout_error"), C.TRANSIENT),
    ("anthropic", 529, anthropic("overloaded_error"), C.OVERLOAD),
    ("gemini", 400, gemini(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", {"reason": "API_KEY_INVALID"}), C.KEY_DEAD),
    ("gemini", 400, gemini(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key."), C.KEY_DEAD),
    ("gemini", 400, gemini(400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum"), C.CLIENT),
    ("gemini", 400, gemini(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), C.CONFIG),
    ("gemini", 402, gemini(402, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), C.BILLING),
    ("gemini", 403, gemini(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), C.KEY_DEAD),
    ("gemini", 403, gemini(403, "PERMISSION_DENIED", "x", {"reason": "CONSUMER_SUSPENDED"}), C.KEY_DEAD),
    ("gemini", 403, gemini(403, "PERMISSION_DENIED", "x", {"reason": "SERVICE_DISABLED"}), C.CONFIG),
    ("gemini", 404, gemini(404, "NOT_FOUND", "models/gemini-9 is not found"), C.KEY_FORBIDDEN_MODEL),
    ("gemini", 429, gemini(429, "RESOURCE_EXHAUSTED", "x", quota("GenerateRequestsPerMinutePerProjectPerModel")), C.RATE),
    ("gemini", 429, gemini(429, "RESOURCE_EXHAUSTED", "x", quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")), C.QUOTA_WINDOW),
    ("gemini", 429, gemini(429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: x, limit: 0, model: gemini-pro"), C.KEY_FORBIDDEN_MODEL),
    ("gemini", 500, gemini(500, "INTERNAL"), C.TRANSIENT),
    ("gemini", 503, gemini(503, "UNAVAILABLE", "The model is overloaded."), C.OVERLOAD),
    ("gemini", 504, gemini(504, "DEADLINE_EXCEEDED"), C.TRANSIENT),
    ("deepseek", 402, openai("Insufficient Balance", "invalid_request_error", "unknown_error"), C.BILLING),
    ("deepseek", 403, openai("Insufficient Balance", "invalid_request_error", "unknown_error"), C.BILLING),
    ("deepseek", 400, openai("The reasoning_content in the thinking mode must be passed back to the API.", "invalid_request_error"), C.CLIENT),
    ("deepseek", 422, openai("Failed to deserialize the JSON body: unknown variant", "invalid_request_error"), C.CLIENT),
    ("deepseek", 401, openai("Authentication Fails", "invalid_request_error", "authentication_error"), C.KEY_DEAD),
    ("deepseek", 429, openai("Rate limit reached", None), C.RATE),
    ("deepseek", 503, openai("Server overloaded", None), C.OVERLOAD),
    ("moonshot", 429, openai("Your account is suspended, please check your plan and billing details", None, "exceeded_current_quota_error"), C.BILLING),
    ("moonshot", 429, openai("max RPM: 3", None, "rate_limit_reached_error"), C.RATE),
    ("moonshot", 429, openai("The engine is currently overloaded", None, "engine_overloaded_error"), C.OVERLOAD),
    ("moonshot", 400, openai("The request was rejected because it was considered high risk", None, "content_filter"), C.CONTENT),
    ("moonshot", 400, openai("Your request exceeded model token limit: 131072", None, "invalid_request_error"), C.CLIENT),
    ("moonshot", 401, openai("Invalid Authentication", None, "invalid_authentication_error"), C.KEY_DEAD),
    ("moonshot", 403, openai("Your account has insufficient balance", None, "permission_denied_error"), C.BILLING),
    ("moonshot", 404, openai("Not found the model", None, "resource_not_found_error"), C.KEY_FORBIDDEN_MODEL),
    ("dashscope", 400, dashscope("Arrearage", "Access denied, please make sure your account is in good standing."), C.BILLING),
    ("dashscope", 400, dashscope("data_inspection_failed"), C.CONTENT),
    ("dashscope", 401, dashscope("InvalidApiKey"), C.KEY_DEAD),
    ("dashscope", 403, dashscope("Model.AccessDenied"), C.KEY_FORBIDDEN_MODEL),
    ("dashscope", 403, dashscope("AccessDenied.Unpurchased"), C.KEY_FORBIDDEN_MODEL),
    ("dashscope", 403, dashscope("AllocationQuota.FreeTierOnly"), C.BILLING),
    ("dashscope", 404, dashscope("ModelNotFound"), C.KEY_FORBIDDEN_MODEL),
    ("dashscope", 429, dashscope("Throttling.RateQuota"), C.RATE),
    ("dashscope", 429, dashscope("Throttling.AllocationQuota"), C.RATE),
    ("dashscope", 429, openai("x", "limit_burst_rate", "limit_burst_rate"), C.RATE),
    ("dashscope", 429, openai("x", "insufficient_quota", "insufficient_quota"), C.BILLING),
    ("dashscope", 500, dashscope("InternalError.Algo"), C.TRANSIENT),
    ("dashscope", 503, dashscope("ModelUnavailable"), C.OVERLOAD),
    ("zhipu", 401, zhipu("1000"), C.KEY_DEAD),
    ("zhipu", 429, zhipu("1113", "Insufficient balance"), C.BILLING),
    ("zhipu", 429, zhipu("1309"), C.BILLING),
    ("zhipu", 429, zhipu("1311"), C.KEY_FORBIDDEN_MODEL),
    ("zhipu", 429, zhipu("1302"), C.RATE),
    ("zhipu", 429, zhipu("1304"), C.QUOTA_WINDOW),
    ("zhipu", 429, zhipu("1305"), C.OVERLOAD),
    ("zhipu", 400, zhipu("1301"), C.CONTENT),
    ("zhipu", 400, zhipu("1210"), C.CLIENT),
    ("zhipu", 400, zhipu("1211"), C.KEY_FORBIDDEN_MODEL),
    ("zhipu", 429, zhipu("1313"), C.KEY_DEAD),
    ("openrouter", 402, {"error": {"code": 402, "message": "Insufficient credits"}}, C.BILLING),
    ("openrouter", 402, {"error": {"code": 402, "message": "x", "metadata": {"limit_source": "openrouter_in_flight_budget"}}}, C.RATE),
    ("openrouter", 403, {"error": {"code": 403, "message": "Input was flagged by moderation", "metadata": {"reasons": ["violence"]}}}, C.CONTENT),
    ("openrouter", 403, {"error": {"code": 403, "message": "Key limit exceeded (daily limit)."}}, C.QUOTA_WINDOW),
    ("openrouter", 401, {"error": {"code": 401, "message": "User not found."}}, C.KEY_DEAD),
    ("openrouter", 429, {"error": {"code": 429, "message": "Rate limit exceeded"}}, C.RATE),
    ("openrouter", 502, {"error": {"code": 502, "message": "Provider returned error"}}, C.TRANSIENT),
    ("openrouter", 503, {"error": {"code": 503, "message": "No available providers"}}, C.OVERLOAD),
    ("groq", 413, openai("Request too large for model on tokens per minute (TPM): Limit 6000, Requested 8000", "rate_limit_exceeded", "tokens"), C.TOO_LARGE),
    ("groq", 429, openai("Rate limit reached on tokens per day (TPD): Limit 100000. Please try again in 7m12s.", "rate_limit_exceeded", "tokens"), C.QUOTA_WINDOW),
    ("groq", 429, openai("Rate limit reached on requests per minute (RPM)", "rate_limit_exceeded", "requests"), C.RATE),
    ("groq", 498, openai("x", "capacity_exceeded"), C.OVERLOAD),
    ("groq", 400, openai("Failed to call a function.", "tool_use_failed"), C.TRANSIENT),
    ("mistral", 401, {"detail": "Unauthorized"}, C.KEY_DEAD),
    ("mistral", 402, {"detail": "Payment required"}, C.BILLING),
    ("mistral", 422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, C.CLIENT),
    ("mistral", 429, {"message": "Requests rate limit exceeded"}, C.RATE),
    ("mistral", 503, {"message": "Service unavailable"}, C.OVERLOAD),
    ("xai", 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***. You can obtain an API key from the console."}, C.KEY_DEAD),
    ("xai", 403, {"code": "The caller does not have permission", "error": "Your newly created team doesn't have any credits or licenses yet."}, C.BILLING),
    ("xai", 403, {"code": "x", "error": "Content violates usage guidelines."}, C.CONTENT),
    ("xai", 429, {"code": "x", "error": "Too many requests"}, C.RATE),
    ("relay", 403, openai("user quota is not enough", "insufficient_user_quota", "new_api_error"), C.BILLING),
    ("relay", 503, openai("no available channel", "model_not_available"), C.OVERLOAD),
    ("ollama", 404, openai('model "llama9" not found, try pulling it first', None, "api_error"), C.KEY_FORBIDDEN_MODEL),
    ("", 401, openai("who are you"), C.KEY_DEAD),
    ("", 402, {}, C.BILLING),
    ("", 403, openai("no"), C.KEY_FORBIDDEN_MODEL),
    ("", 404, openai("no such response", None, param="previous_response_id"), C.CLIENT),
    ("", 408, {}, C.TRANSIENT),
    ("", 409, {}, C.TRANSIENT),
    ("", 301, {}, C.CONFIG),
    ("", 429, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, C.RATE),
    ("", 529, {}, C.OVERLOAD),
    ("", 498, {}, C.OVERLOAD),
    ("", 500, {}, C.TRANSIENT),
    ("", 520, {}, C.TRANSIENT),
]


@pytest.mark.parametrize(("provider", "status", "body", "kind"), FIXTURES, ids=lambda value: value if isinstance(value, str) else None)
def test_class_of_what_vendors_send(provider: str, status: int, body: dict[str, Any], kind: C) -> None:
    failure = classify(status, {}, json.dumps(body).encode(), provider, now=NOW)
    assert failure.kind is kind, failure.detail


def test_every_rule_of_every_vendor_has_a_fixture() -> None:
    missing = []
    for vendor in VENDORS:
        used = {find_rule(provider, status, read_error(json.dumps(body).encode())) for provider, status, body, _ in FIXTURES if provider == vendor}
        own = VENDORS[vendor].failures
        inherited = set(VENDORS["openai"].failures) if vendor == "azure" else set()
        missing += [(vendor, rule) for rule in own if rule not in used and rule not in inherited]
    assert not missing


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_client_error_is_never_held_against_its_channel(vendor: str) -> None:
    """Also when it quotes words that mean something else elsewhere."""
    said = "The text “insufficient_quota, credit balance is too low, invalid api key, rate limit” in messages[0] is not valid."
    body = json.dumps(openai(said, "invalid_value", "invalid_request_error", "messages")).encode()
    if vendor in {"anthropic", "xai", "deepseek"}:
        # These tell a dead account by the text of a 400 alone. The words must be theirs, at least.
        said = "The text “insufficient_quota, rate limit” in messages[0] is not valid."
        body = json.dumps(openai(said, "invalid_value", "invalid_request_error", "messages")).encode()
    assert classify(422, {}, body, vendor, now=NOW).kind is C.CLIENT
    assert classify(400, {}, body, vendor, now=NOW).kind is C.CLIENT


@pytest.mark.parametrize(
    ("status", "kind"), [(400, C.TRANSIENT), (404, C.CONFIG), (405, C.CONFIG), (302, C.CONFIG), (401, C.KEY_DEAD), (403, C.TRANSIENT), (502, C.TRANSIENT), (503, C.OVERLOAD)]
)
def test_pages_are_no_answers_of_an_api(status: int, kind: C) -> None:
    assert classify(status, {"content-type": "text/html"}, b"<html>nginx</html>", "openai").kind is kind


def test_a_bare_401_is_not_certain_and_a_coded_one_is() -> None:
    assert not classify(401, {}, b"nope").certain
    assert not classify(402, {}, json.dumps(openai()).encode()).certain
    assert not classify(402, {}, b"<html>", "deepseek").certain and classify(402, {}, json.dumps(openai()).encode(), "deepseek").certain
    assert classify(401, {}, json.dumps(openai(code="invalid_api_key")).encode(), "openai").certain


def test_an_error_inside_a_200_is_read_by_its_code() -> None:
    body = json.dumps({"error": {"code": 429, "message": "slow down"}}).encode()
    assert classify(200, {}, body, "openrouter", inside_200=True).kind is C.RATE
    assert classify(200, {}, json.dumps(openai("x", None, "server_error")).encode(), "openai", inside_200=True).kind is C.TRANSIENT
    assert classify(200, {}, json.dumps(anthropic("overloaded_error")).encode(), "anthropic", inside_200=True).kind in {C.OVERLOAD, C.TRANSIENT}


def test_the_administrators_rules_come_first() -> None:
    import re

    rule = Rule(C.QUOTA_WINDOW, text=re.compile("come back tomorrow", re.I), cooldown=7200.0)
    failure = classify(400, {}, json.dumps(openai("Come back tomorrow!")).encode(), "openai", (rule,))
    assert (failure.kind, failure.cooldown) == (C.QUOTA_WINDOW, 7200.0)
    assert classify(400, {}, json.dumps(openai("Something else")).encode(), "openai", (rule,)).kind is C.CLIENT


def test_what_the_client_is_told() -> None:
    def told(status: int, body: dict[str, Any], provider: str = "openai") -> Any:
        return classify(status, {"retry-after": "7"}, json.dumps(body).encode(), provider).error

    assert isinstance(told(401, openai(code="invalid_api_key")), CredentialsExhausted), "never 401: the client's token is fine"
    assert isinstance(told(402, openai()), CredentialsExhausted), "nor 402: so is the client's wallet"
    assert isinstance(told(404, openai(code="model_not_found")), ModelNotFound)
    refused = told(403, {"error": {"code": 403, "message": "flagged by moderation"}}, "openrouter")
    assert isinstance(refused, UpstreamRefused) and refused.wire_status == 400
    limited = told(429, openai(code="rate_limit_exceeded"))
    assert isinstance(limited, UpstreamRateLimited) and limited.retry_after == 7


def test_rules_are_in_order_and_end_with_generic_ones() -> None:
    assert rules_of("openai")[: len(VENDORS["openai"].failures)] == VENDORS["openai"].failures
    assert rules_of("unknown") == rules_of("")
