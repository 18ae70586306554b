"""What becomes of parameters that an upstream does not take."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from relay.providers.apis import FAMILIES
from relay.providers.parameters import (
    BadPolicy,
    apply,
    apply_to,
    check_policy,
    dropped_from_form,
    items_to_send,
    policy_of,
    refused,
    with_drop,
)
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
    "safety_model": "dear", "ranking_model": "dear", "adapters": "dear", "tensorzero::variant_name": "dear",
    "kv_transfer_params": {"remote_host": "10.0.0.1"}, "bootstrap_host": "10.0.0.1",
    "aws_bedrock_runtime_endpoint": "https://x", "judge_model": "dear", "embeddingModel": "dear",
    "expert_models": ["dear"], "rerankModelId": "dear",
}  # fmt: skip


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_vendor_is_told_of_other_models(vendor: str, family: str) -> None:
    policy = policy_of(VENDORS[vendor].parameters, {}, family)
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"model": {}}}},
        {"type": "image_generation", "model": "dear"},
        {"type": "openrouter:image_generation", "parameters": {"model": "dear"}},
        {"type": "openrouter:subagent", "parameters": {"model": "dear"}},
    ]
    out, dropped = apply(policy, fields(model="m", tools=tools, **OTHER_MODELS))
    assert OTHER_MODELS.keys() & out.keys() <= set()
    assert shown(out)["tools"] == [tools[0], {"type": "image_generation"}, {"type": tools[2]["type"], "parameters": {}}]
    inside = {"tools[].model", "tools[].parameters.model", "tools[openrouter:subagent]"}
    assert {*OTHER_MODELS, *inside} - {"extra_body"} <= set(dropped)
    out, dropped = apply(policy, fields(MODELS=["dear"], Models=["dear"], ProviderOptions=1))
    assert not out and dropped == ["MODELS", "Models", "ProviderOptions"]
    assert shown(apply(policy_of({}, {"models": "forward"}, family), fields(models=[]))[0]) == {"models": []}


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        ("images", "svg", {"model": "dear"}),
        ("images", "image_loras", [{"path": "https://example.com/dear", "scale": 1}]),
    ],
)
def test_what_names_a_model_in_one_api_alone(family: str, name: str, value: Any) -> None:
    assert apply(policy_of({}, {}, family), fields(model="m", **{name: value}))[1] == [name]
    other = "images" if family != "images" else "chat"
    sent, dropped = apply(policy_of({}, {}, other), fields(model="m", **{name: "low"}))
    assert shown(sent) == {"model": "m", name: "low"} and not dropped


@pytest.mark.parametrize("family", FAMILIES)
def test_what_names_a_model_and_makes_another_answer_is_refused(family: str) -> None:
    policy = policy_of({}, {}, family)
    sources = [{"parameters": {"embedding_dependency": {"deployment_name": "dear"}}}]
    for name in ("data_sources", "dataSources", "Data_Sources"):
        assert refused(policy, fields(**{name: sources})) == name
    moderation = {"model": "dear", "policy": {"input": {"mode": "block"}}}
    asked = "moderation" if family in {"chat", "responses"} else ""
    assert refused(policy, fields(moderation=moderation)) == asked, "it is a word, low or auto, for images"
    assert not refused(policy_of({}, {"moderation": "forward"}, family), fields(moderation=moderation))
    assert not refused(policy, fields(data_sources=[], moderation=None))


def test_models_inside_lists_and_objects_are_left_out_wherever_they_are() -> None:
    tools: list[dict[str, Any]] = [
        {"type": "image_generation", "model": "dear", "svg": {"model": "dear"}, "size": "auto"},
        {"type": "openrouter:image_generation", "parameters": {"model": "dear", "quality": "low"}},
        {"type": "openrouter:advisor", "parameters": {"name": "a"}},
        {"type": "openrouter:fusion"},
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"model": {}}}},
    ]
    items: list[dict[str, Any]] = [
        {"type": "message", "content": "model"},
        {"type": "additional_tools", "tools": tools},
    ]
    clean = [{"type": "image_generation", "size": "auto"}, {"type": tools[1]["type"], "parameters": {"quality": "low"}}]
    policy = policy_of({}, {}, "responses")
    sent, dropped = apply(policy, fields(model="m", input=items))
    assert shown(sent)["input"] == [items[0], {"type": "additional_tools", "tools": [*clean, tools[4]]}]
    inside = ("[].model", "[].svg", "[].parameters.model", "[openrouter:advisor]", "[openrouter:fusion]")
    assert set(dropped) == {f"input[].tools{name}" for name in inside}
    again, named = items_to_send(policy, items)
    assert again == shown(sent)["input"] and set(named) == set(dropped)
    assert items[1]["tools"] is tools and tools[0]["model"] == "dear", "what is kept is what the client sent"
    assert items_to_send(policy, items[:1]) == (items[:1], [])
    guardrails = [{"block_on_error": True, "moderation_llm_v2": {"model_name": "dear", "action": "block"}}]
    sent, _ = apply(policy_of(VENDORS["mistral"].parameters, {}, "chat"), fields(guardrails=guardrails))
    assert shown(sent)["guardrails"] == [{"block_on_error": True, "moderation_llm_v2": {"action": "block"}}]
    session: dict[str, Any] = {"tools": tools, "judge_model": "dear", "voice": "a"}
    assert set(apply_to(policy_of({}, {}, "realtime"), session)) >= {"judge_model", "tools[].model"}
    assert session == {"tools": [*clean, tools[4]], "voice": "a"}


def test_tools_that_use_models_of_their_own_are_left_out() -> None:
    kinds = ("openrouter:fusion", "openrouter:advisor", "openrouter:subagent")
    for family in ("chat", "responses"):
        for kind in kinds:
            policy, tool = policy_of({}, {}, family), {"type": kind}
            sent, dropped = apply(policy, fields(model="m", tools=[tool, {"type": "web_search"}]))
            assert shown(sent)["tools"] == [{"type": "web_search"}] and dropped == [f"tools[{kind}]"]
            escaped = b'[{"type":"%s"}]' % kind.replace(":", "\\u003a").encode()
            assert apply(policy, {"tools": msgspec.Raw(escaped)}) == ({}, [f"tools[{kind}]"]), "no list is empty"
            body: dict[str, object] = {"tools": [tool]}
            assert apply_to(policy, body) == [f"tools[{kind}]"] and body == {}
            own = {f"tools[{kind}]": "forward"}
            check_policy(own)
            assert shown(apply(policy_of({}, own, family), fields(tools=[tool]))[0]) == {"tools": [tool]}
    said = fields(tools=[{"type": "function", "name": "advisor", "description": "openrouter: fusion, subagent"}])
    assert apply(policy_of({}, {}, "chat"), said)[1] == []


def test_a_rule_more_leaves_what_a_channel_sends_on() -> None:
    policy = with_drop(policy_of({}, {"vad_model": "forward"}, "embeddings"), "encoding_format")
    sent, dropped = apply(policy, fields(vad_model="a", encoding_format="base64", safety_model="dear"))
    assert shown(sent) == {"vad_model": "a"} and set(dropped) == {"encoding_format", "safety_model"}


def test_a_channel_may_send_on_what_names_a_model() -> None:
    own = {"vad_model": "forward", "tools[].model": "forward", "moderation": "forward", "x.model": "drop"}
    check_policy(own)
    policy = policy_of({}, own, "chat")
    sent = {"vad_model": "a", "Vad_Model": "b", "tools": [{"model": "a"}], "moderation": {"model": "a"}}
    out, dropped = apply(policy, fields(**sent, x={"model": "a", "y": 1}))
    assert shown(out) == {**sent, "x": {"y": 1}} and dropped == ["x.model"]


@pytest.mark.parametrize(
    "name",
    ["svg[model]", "svg[reasoning][effort]", "models[]", "safety_model", "extra[model]", "SVG[model]", "model[]"],
)
def test_fields_of_forms_name_no_other_model(name: str) -> None:
    kept = ["model", "prompt", "image[]", "timestamp_granularities[]", "metadata[a]"]
    policy = policy_of({}, {}, "images")
    assert dropped_from_form(policy, [*kept, name]) == [name]
    assert dropped_from_form(policy_of({}, {name.partition("[")[0].lower(): "forward"}, "images"), [name]) == []


@pytest.mark.parametrize(
    ("family", "left"), [("chat", {"n"}), ("completions", {"n", "best_of"}), ("responses", set()), ("images", {"n"})]
)
def test_answers_are_counted_by_one_name(family: str, left: set[str]) -> None:
    counts = dict.fromkeys(("n", "best_of", "num_images", "batch_size", "candidateCount", "num_return_sequences"), 3)
    assert apply(policy_of({}, {}, family), fields(**counts))[0].keys() == left
    sent = shown(apply(policy_of(VENDORS["siliconflow"].parameters, {}, "images"), fields(n=2, batch_size=10))[0])
    assert sent == {"batch_size": 2}, "the rule that renames comes after"


@pytest.mark.parametrize("family", ["chat", "responses", "completions", "embeddings"])
def test_a_dearer_tier_is_left_out_unless_the_channel_sends_it_on(family: str) -> None:
    asked = fields(model="m", service_tier="priority")
    out, dropped = apply(policy_of(VENDORS["openai"].parameters, {}, family), asked)
    assert shown(out) == {"model": "m"} and dropped == ["service_tier"]
    assert apply(policy_of(VENDORS["openai"].parameters, {"service_tier": "forward"}, family), asked)[0] is asked
    bought = fields(model="m", service_tier="auto")
    assert apply(policy_of(VENDORS["anthropic"].parameters, {}, "messages"), bought)[0] is bought


def test_a_tool_in_the_middle_of_a_conversation_names_no_model() -> None:
    def talk(definition: dict[str, Any]) -> list[dict[str, Any]]:
        tool = {"type": "tool_definition", "definition": definition}
        return [
            {"role": "user", "content": "x"},
            {"role": "user", "content": [{"type": "tool_addition", "tool": tool}, {"type": "text", "text": "x"}]},
        ]

    advisor = {"type": "advisor_20260301", "name": "advisor"}
    asked = fields(model="m", messages=talk({**advisor, "model": "dear"}))
    out, dropped = apply(policy_of(VENDORS["anthropic"].parameters, {}, "messages"), asked)
    assert shown(out)["messages"] == talk(advisor)
    assert dropped == ["messages[].content[].tool.definition.model"]


def test_what_no_rule_is_about_goes_on_as_it_is() -> None:
    found = fields(model="m", messages=[{"role": "user", "content": "x"}], tools=[{"type": "function"}])
    assert apply(policy_of(VENDORS["xai"].parameters, {}, "chat"), found)[0] is found


@pytest.mark.parametrize(
    "rules",
    [
        [],
        {"a b": "drop"},
        {"seed": "eat"},
        {"seed": 1},
        {"messages[].name": "refuse"},
        {"n": "refuse:{"},
        {"a.b": "refuse"},
        {"a..b": "drop"},
        {"tools[a]": "refuse"},
        {"tools[a].b": "drop"},
    ],
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
