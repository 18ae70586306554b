"""Which rules may be written, and which requests and headers they are for."""

from __future__ import annotations

from typing import Any

import pytest

from relay.providers.apis import PATHS
from relay.providers.overrides.rules import FAMILIES, MOST_RULES, BadOverrides, Overrides, read_overrides
from relay.providers.vendors import VENDORS


def read(*rules: Any) -> Overrides:
    found = read_overrides(list(rules), "x-own-key")
    assert found is not None
    return found


def setting(path: str, value: Any = 1, **more: Any) -> dict[str, Any]:
    return {"do": "set", "path": path, "value": value, **more}


def header(name: str, value: str = "on") -> dict[str, Any]:
    return {"do": "set_header", "header": name, "value": value}


def test_nothing_is_no_overrides() -> None:
    assert read_overrides(None) is None and read_overrides([]) is None


@pytest.mark.parametrize(
    "rule",
    [
        setting("temperature"),
        setting("reasoning.effort", "low"),
        setting("/metadata/a.b", "x"),
        setting("max_tokens", 100),
        setting("generationConfig.maxOutputTokens", 100),
        setting("generationConfig", {"topK": 3, "candidateCount": 2}),
        setting("thinking", {"type": "enabled", "budget_tokens": 2000}),
        setting("reasoning.max_tokens", 2000),
        setting("n", 2),
        setting("background", "transparent", apis=["images"]),
        setting("provider", {"order": ["a"], "data_collection": "deny"}),
        setting("response_format", {"type": "json_schema", "schema": {"properties": {"token": {"type": "string"}}}}),
        setting("prompt_cache_key", "portal"),
        {"do": "default", "path": "system", "value": "Be brief."},
        {"do": "remove", "path": "messages.*.name"},
        {"do": "remove", "path": "tools"},
        {"do": "remove", "path": "tools.*.function.strict", "models": ["gpt-*"]},
        {"do": "rename", "path": "max_tokens", "to": "max_completion_tokens"},
        header("X-Title", "Acme, Inc."),
        header("anthropic-beta", "context-1m-2025-08-07"),
        {"do": "remove_header", "header": "User-Agent"},
    ],
)
def test_what_people_write(rule: dict[str, Any]) -> None:
    read(rule)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("x", "what it does"),
        ({"do": "zap"}, "what it does"),
        ({"do": "set", "path": "seed"}, "written with"),
        ({"do": "remove", "path": "seed", "value": 1}, "written with"),
        (setting(""), "path is missing"),
        (setting("a..b"), "no path"),
        (setting("a. b"), "no path"),
        (setting("*.a"), "no path"),
        (setting(".".join("abcdefghi")), "no path"),
        (setting("messages.0.name"), "one entry"),
        (setting("messages[0]"), "one entry"),
        (setting("seed", models=[]), "names such as"),
        (setting("seed", models="gpt"), "names such as"),
        (setting("seed", apis=[]), "is a list of these"),
        (setting("seed", apis=["chats"]), "is a list of these"),
        (setting("model", "gpt"), "decided by the portal"),
        (setting("Model", "gpt"), "decided by the portal"),
        (setting("stream", True), "decided by the portal"),
        (setting("stream_options.include_usage", False), "decided by the portal"),
        ({"do": "remove", "path": "stream_options"}, "decided by the portal"),
        (setting("store", True), "decided by the portal"),
        (setting("background", True), "decided by the portal"),
        (setting("previous_response_id", "resp_1"), "decided by the portal"),
        (setting("messages", []), "what the user says"),
        ({"do": "remove", "path": "messages"}, "what the user says"),
        ({"do": "remove", "path": "messages.*.content"}, "what the user says"),
        ({"do": "remove", "path": "messages.*"}, "ends with a list"),
        ({"do": "rename", "path": "messages", "to": "input"}, "what the user says"),
        (setting("tools.*.strict", True), "removed only"),
        (setting("tools", [{"type": "web_search"}]), "cannot be set"),
        (setting("models", ["gpt"]), "another model"),
        (setting("fallbacks", ["gpt"]), "another model"),
        (setting("extra_body", {}), "another model"),
        (setting("extra_body.x", 1), "another model"),
        (setting("generationConfig.routingConfig.autoMode", {}), "another model"),
        (setting("generation_config", {"modelConfig": {}}), "another model"),
        (setting("tensorzero::variant_name", "x"), "another model"),
        (setting("image_loras", [{"path": "x"}]), "another model"),
        ({"do": "rename", "path": "metadata", "to": "generationConfig"}, "another model"),
        ({"do": "rename", "path": "metadata.x", "to": "generationConfig.modelConfig"}, "another model"),
        (setting("web.search_model", "gpt"), "names a model"),
        (setting("provider", {"model": "gpt"}), "names a model"),
        ({"do": "rename", "path": "user", "to": "provider"}, "who serves"),
        (setting("api_key", "x"), "cannot be set"),
        (setting("x.secret", "x"), "looks like a key by its name"),
        (setting("user", "sk-proj-0123456789abcdefghijkl"), "looks like a key"),
        (setting("max_tokens", 0), "whole number of tokens"),
        (setting("max_tokens", -1), "whole number of tokens"),
        (setting("max_tokens", True), "whole number of tokens"),
        (setting("generationConfig", {"maxOutputTokens": "all"}), "whole number of tokens"),
        (setting("extra.num_predict", 5), "no place"),
        (setting("min_tokens", 5), "longer than their limit"),
        (setting("n", 11), "from 1 to 10"),
        ({"do": "rename", "path": "count", "to": "n"}, "from 1 to 10"),
        (setting("best_of", 2), "more answers"),
        (setting("parameters.num_return_sequences", 2), "more answers"),
        ({"do": "rename", "path": "seed", "to": "seed"}, "already"),
        (header("Authorization"), "cannot be overridden"),
        (header("X-Own-Key"), "cannot be overridden"),
        (header("x-api-key"), "cannot be overridden"),
        (header("Host"), "cannot be overridden"),
        (header("Transfer-Encoding"), "cannot be overridden"),
        (header("Connection"), "cannot be overridden"),
        (header("Content-Type"), "cannot be overridden"),
        (header("X-Forwarded-For"), "cannot be overridden"),
        (header("CF-Access-Client-Secret"), "cannot be overridden"),
        ({"do": "remove_header", "header": "Authorization"}, "cannot be overridden"),
        (header("Ocp-Apim-Subscription-Key"), "cannot be overridden"),
        (header("Helicone-Auth"), "cannot be overridden"),
        (header("Idempotency-Key"), "cannot be overridden"),
        (header("a b"), "no name of a header"),
        (header("X-A", "a\r\nX-B: c"), "on one line"),
        (header("X-A", ""), "on one line"),
        (header("X-A", "sk-proj-0123456789abcdefghijkl"), "looks like a key"),
    ],
)
def test_what_may_not_be_overridden(rule: Any, why: str) -> None:
    with pytest.raises(BadOverrides) as raised:
        read_overrides([setting("seed"), rule], "x-own-key")
    assert str(raised.value).startswith("Rule 2: ") and why in str(raised.value)
    assert raised.value.translated(lambda text: text) == str(raised.value)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}], ids=["text", "name"])
def test_a_value_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(BadOverrides):
        read(setting("x", value))


def test_a_value_that_is_too_deep_is_refused() -> None:
    value: Any = 1
    for _ in range(5000):
        value = [{"a": value}]
    with pytest.raises(BadOverrides):
        read(setting("x", value))


def test_no_vendor_lets_its_key_be_set() -> None:
    for vendor in VENDORS.values():
        with pytest.raises(BadOverrides):
            read_overrides([header(vendor.credentials.header)], vendor.credentials.header)


def test_too_many_rules_are_refused() -> None:
    with pytest.raises(BadOverrides, match="too many"):
        read_overrides([setting("seed")] * (MOST_RULES + 1))
    with pytest.raises(BadOverrides, match="too many"):
        read_overrides([setting("user", "x" * 40_000)])
    with pytest.raises(BadOverrides, match="list"):
        read_overrides({"do": "set"})


def test_rules_are_for_the_models_and_apis_that_they_name() -> None:
    found = read(
        setting("a", models=["gpt-5*", "vendor/real"]), setting("b", apis=["responses"]), setting("c", apis=["images"])
    )

    def names(api: str, public: str, upstream: str) -> list[str]:
        return [rule.name for rule in found.of_body(api, public, upstream)]

    assert names("chat.completions", "gpt-5-mini", "x") == ["a"]
    assert names("chat.completions", "alias", "vendor/real") == ["a"]
    assert names("chat.completions", "alias", "x") == []
    assert names("responses", "gpt-4", "gpt-4") == ["b"]
    assert names("images.edits", "gpt-image-1", "x") == ["c"]
    assert names("messages.count_tokens", "gpt-5", "x") == [] == names("realtime", "gpt-5", "x")


def test_every_api_with_a_body_has_a_word() -> None:
    without = {"messages.count_tokens", "generate_content.count_tokens", "responses.compact", "responses.input_tokens"}
    everywhere = read(setting("seed"))
    for api in PATHS:
        expected = not (api in without or api.startswith("realtime"))
        assert bool(everywhere.of_body(api, "m", "m")) is expected, api
    for family in FAMILIES:
        assert read(setting("seed", apis=[family]))


def test_headers_are_set_and_removed_in_any_letters() -> None:
    found = read(
        header("X-Title", "Acme"),
        {"do": "remove_header", "header": "Anthropic-Beta"},
        {**header("X-Model", "five"), "models": ["gpt-5*"]},
        {**header("X-Api", "m"), "apis": ["messages"]},
    )
    sent = {"x-api-key": "k", "anthropic-beta": "a", "X-TITLE": "client's"}
    assert found.headers(sent) == {"x-api-key": "k", "x-title": "Acme"}
    assert found.headers(sent, "messages", "gpt-5", "up") == {
        "x-api-key": "k",
        "x-title": "Acme",
        "x-model": "five",
        "x-api": "m",
    }
    assert "x-model" not in found.headers(sent, "chat.completions", "gpt-4", "gpt-4")
    assert sent["X-TITLE"] == "client's"
