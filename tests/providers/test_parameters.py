"""What becomes of parameters that an upstream does not take."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from relay.providers.apis import FAMILIES
from relay.providers.parameters import BadPolicy, apply, check_policy, policy_of, refused
from relay.providers.vendors import VENDORS


def fields(**values: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def shown(found: dict[str, msgspec.Raw]) -> dict[str, Any]:
    return {name: msgspec.json.decode(raw) for name, raw in found.items()}


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_vendors_rules_are_well_formed(vendor: str) -> None:
    check_policy(dict(VENDORS[vendor].parameters))


def test_dropped_renamed_and_reached_into() -> None:
    policy = {
        "seed": "rename:random_seed",
        "user": "drop",
        "store": "drop",
        "messages[].name": "drop",
        "tools[].function.strict": "drop",
    }
    messages = [{"role": "user", "name": "bob", "content": "x"}]
    out, dropped = apply(
        policy,
        fields(
            seed=1,
            user="u",
            store=False,
            messages=messages,
            tools=[{"function": {"name": "f", "strict": True}}],
            keep=None,
        ),
    )
    assert shown(out) == {
        "random_seed": 1,
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"function": {"name": "f"}}],
        "keep": None,
    }
    assert dropped == ["user", "store", "messages[].name", "tools[].function.strict"]
    out, dropped = apply(policy, fields(user=None, store=[]))
    assert shown(out) == {} and dropped == []
    assert shown(apply({}, fields(a=None, b=1), strip_nulls=True)[0]) == {"b": 1}


def test_refused_unless_it_means_nothing() -> None:
    policy = {"n": "refuse:1", "logprobs": "refuse:false", "top_k": "refuse"}
    assert refused(policy, fields(n=1, logprobs=False, top_k=None)) == ""
    assert refused(policy, fields(n=2)) == "n" and refused(policy, fields(top_k=0)) == "top_k"
    assert refused({"max_output_tokens": "refuse"}, fields(max_tokens=5), converted=True) == "max_tokens"
    assert refused({"max_output_tokens": "refuse"}, fields(max_tokens=5)) == ""


def test_the_channels_own_rules_stand_before_the_vendors() -> None:
    own = policy_of(
        VENDORS["mistral"].parameters, {"seed": "forward", "chat/user": "refuse", "responses/top_p": "drop"}, "chat"
    )
    assert own["user"] == "refuse"
    assert "seed" not in own and "top_p" not in own and own["logit_bias"] == "drop"


OTHER_MODELS = {
    "models": ["dear"], "fallbacks": [{"model": "dear"}], "context_window_fallbacks": [{"m": ["dear"]}],
    "content_policy_fallbacks": [{"m": ["dear"]}], "model_list": [{"model_name": "m"}], "route": "fallback",
    "provider": {"order": ["dear"]}, "preset": "dear", "plugins": [{"id": "fusion", "model": "dear"}],
    "extra_body": {"models": ["dear"]}, "providerOptions": {"gateway": {"models": ["dear"]}}, "api_base": "https://x",
    "compound_custom": {"models": {"answering_model": "dear"}}, "draft_model": "dear", "deployment_id": "dear",
}  # fmt: skip


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_vendor_is_told_of_other_models(vendor: str, family: str) -> None:
    policy = policy_of(VENDORS[vendor].parameters, {}, family)
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"model": {}}}},
        {"type": "image_generation", "model": "dear"},
        {"type": "openrouter:subagent", "parameters": {"model": "dear"}},
    ]
    out, dropped = apply(policy, fields(model="m", tools=tools, **OTHER_MODELS))
    assert OTHER_MODELS.keys() & out.keys() <= ({"extra_body"} if vendor == "gemini" else set())
    assert shown(out)["tools"] == [tools[0], {"type": "image_generation"}, {"type": tools[2]["type"], "parameters": {}}]
    assert {*OTHER_MODELS, "tools[].model", "tools[].parameters.model"} - {"extra_body"} <= set(dropped)
    out, dropped = apply(policy, fields(MODELS=["dear"], Models=["dear"], ProviderOptions=1))
    assert not out and dropped == ["MODELS", "Models", "ProviderOptions"]
    assert shown(apply(policy_of({}, {"models": "forward"}, family), fields(models=[]))[0]) == {"models": []}


@pytest.mark.parametrize(
    ("family", "left"), [("chat", {"n"}), ("completions", {"n", "best_of"}), ("responses", set()), ("images", {"n"})]
)
def test_answers_are_counted_by_one_name(family: str, left: set[str]) -> None:
    counts = dict.fromkeys(("n", "best_of", "num_images", "batch_size", "candidateCount", "num_return_sequences"), 3)
    assert apply(policy_of({}, {}, family), fields(**counts))[0].keys() == left
    sent = shown(apply(policy_of(VENDORS["siliconflow"].parameters, {}, "images"), fields(n=2, batch_size=10))[0])
    assert sent == {"batch_size": 2}, "the rule that renames comes after"


def test_what_no_rule_is_about_goes_on_as_it_is() -> None:
    found = fields(model="m", messages=[{"role": "user", "content": "x"}], tools=[{"type": "function"}])
    assert apply(policy_of(VENDORS["xai"].parameters, {}, "chat"), found)[0] is found


@pytest.mark.parametrize(
    "rules", [[], {"a b": "drop"}, {"seed": "eat"}, {"seed": 1}, {"messages[].name": "refuse"}, {"n": "refuse:{"}]
)
def test_rules_that_make_no_sense_are_told(rules: object) -> None:
    with pytest.raises(BadPolicy):
        check_policy(rules)


@pytest.mark.parametrize("name", ["Top_K", "TOP_K", "top_\u212a", "top_k\0x", " top_k"])
def test_rules_hold_for_a_name_in_other_letters(name: str) -> None:
    """Parsers of Go take it for the parameter that the rule names."""
    sent = {name: msgspec.Raw(b"1"), "seed": msgspec.Raw(b"2")}
    assert refused({"top_k": "refuse"}, sent) == name
    assert apply({"top_k": "drop"}, sent) == ({"seed": msgspec.Raw(b"2")}, [name])
    assert apply({"seed": "drop"}, sent)[0] == {name: msgspec.Raw(b"1")}
