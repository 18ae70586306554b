"""Channels of both programs: every type has a vendor here or a reason, keys and addresses in the forms of vendors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from portal.lib.json import decode
from relay.importers.description import SourceChannel
from relay.importers.one_api import clouds
from relay.importers.one_api.channel_types import NEW_API, ONE_API, PLANS
from relay.importers.one_api.overrides import rules_of
from relay.importers.one_api.source import open_source
from relay.importers.reading.row import moment_of
from relay.models import ApiKey, Channel, ImportedRow
from relay.providers.overrides.rules import read_overrides
from relay.providers.vendors import VENDORS
from tests.support.importers.old import Old

ACCOUNT = json.dumps({"type": "service_account", "project_id": "acme", "client_email": "x@y", "private_key": "k"})


def test_every_type_has_a_vendor_or_a_reason() -> None:
    assert set(ONE_API) == set(range(1, 52)) and set(NEW_API) >= {*range(1, 28), 31, *range(33, 61)}
    for kind in [*ONE_API.values(), *NEW_API.values()]:
        assert (kind.provider in VENDORS) != bool(kind.left_out), kind
        vendor = VENDORS.get(kind.provider)
        assert vendor is None or kind.needs_url or kind.base_url or vendor.base_url or kind.version == "", kind
    assert all(vendor in VENDORS for vendor, _url in PLANS.values())


@pytest.fixture
def read(unpacked: Callable[[str], Old]) -> Callable[..., SourceChannel]:
    """The first channel of a database, with other values in its columns."""

    def make(program: str, **values: Any) -> SourceChannel:
        old = unpacked(program)
        for name, value in values.items():
            old.run(f"UPDATE channels SET `{name}` = ? WHERE id = 1", value)
        source = open_source(program, str(old.path))
        found = next(source.channels())
        source.close()
        return found

    return make


@pytest.mark.parametrize(
    ("program", "values", "provider", "base_url"),
    [
        ("one-api", {"type": 1}, "openai", ""),
        ("one-api", {"type": 1, "base_url": "https://x.example/"}, "openai", "https://x.example/v1"),
        ("one-api", {"type": 1, "base_url": "https://x.example/v1"}, "openai", "https://x.example/v1"),
        ("one-api", {"type": 50, "base_url": "https://x.example/api/v2"}, "openai", "https://x.example/api/v2"),
        (
            "one-api",
            {"type": 20, "base_url": "https://openrouter.ai/api"},
            "openrouter",
            "https://openrouter.ai/api/v1",
        ),
        ("one-api", {"type": 25}, "moonshot", "https://api.moonshot.cn/v1"),
        ("new-api", {"type": 26, "base_url": "https://x.example"}, "zhipu", "https://x.example/api/paas/v4"),
        ("new-api", {"type": 26, "base_url": "glm-coding-plan"}, "zhipu_plan", PLANS["glm-coding-plan"][1]),
        ("new-api", {"type": 60, "base_url": "https://x.example"}, "relay", "https://x.example/v1"),
        ("new-api", {"type": 99, "base_url": "https://x.example"}, "relay", "https://x.example/v1"),
        (
            "one-api",
            {"type": 33, "key": "AK|SK|us-east-1", "models": "claude-3-haiku-20240307"},
            "bedrock_claude",
            "https://bedrock-runtime.us-east-1.amazonaws.com",
        ),
        (
            "new-api",
            {"type": 39, "other": "acc"},
            "cloudflare",
            "https://api.cloudflare.com/client/v4/accounts/acc/ai/v1",
        ),
        (
            "new-api",
            {"type": 41, "key": ACCOUNT, "other": '{"default": "europe-west1"}', "models": "gemini-2.5-pro"},
            "vertex",
            "https://europe-west1-aiplatform.googleapis.com/v1/projects/acme/locations/europe-west1",
        ),
    ],
)
def test_addresses_are_those_of_the_vendor_here(
    read: Callable[..., SourceChannel], program: str, values: dict[str, Any], provider: str, base_url: str
) -> None:
    found = read(program, **values)
    assert (found.left_out, found.provider, found.base_url) == ("", provider, base_url)


@pytest.mark.parametrize(
    ("program", "values"),
    [
        ("one-api", {"type": 11}),
        ("one-api", {"type": 50, "base_url": ""}),
        ("one-api", {"type": 33, "key": "no parts"}),
        ("one-api", {"models": ""}),
        ("new-api", {"type": 2}),
        ("new-api", {"type": 99, "base_url": ""}),
        ("new-api", {"type": 8, "base_url": "https://x.example/{model}/chat"}),
        ("new-api", {"type": 41, "key": ACCOUNT, "models": "gemini-2.5-pro,claude-sonnet-4"}),
        ("new-api", {"type": 41, "key": "AIza", "settings": '{"vertex_key_type": "api_key"}'}),
        ("new-api", {"type": 33, "key": "A|B|us-east-1\nC|D|eu-west-1", "channel_info": '{"is_multi_key": true}'}),
    ],
)
def test_what_cannot_be_a_channel_says_why(
    read: Callable[..., SourceChannel], program: str, values: dict[str, Any]
) -> None:
    assert read(program, **values).left_out


@pytest.mark.parametrize(
    ("key", "info", "secrets"),
    [
        ("sk-1", "", ["sk-1"]),
        ("sk-1\nsk-2\n\nsk-3", '{"is_multi_key": true}', ["sk-1", "sk-2", "sk-3"]),
        ('["sk-1", "sk-2"]', '{"is_multi_key": true}', ["sk-1", "sk-2"]),
        ("", "", []),
    ],
)
def test_several_keys_are_read_apart(
    read: Callable[..., SourceChannel], key: str, info: str, secrets: list[str]
) -> None:
    assert [one.secret for one in read("new-api", key=key, channel_info=info).keys] == secrets


def test_keys_that_are_json_stay_whole(read: Callable[..., SourceChannel]) -> None:
    other = ACCOUNT.replace('"k"', '"l"')
    found = read(
        "new-api", type=41, key=f"[{ACCOUNT}, {other}]", channel_info='{"is_multi_key": true}', models="gemini-2.5-pro"
    )
    assert [decode(one.secret) for one in found.keys] == [decode(ACCOUNT), decode(other)]


def test_names_of_deployments_and_of_bedrock() -> None:
    early, late = moment_of(1_700_000_000), moment_of(1_790_000_000)
    assert clouds.deployment("gpt-3.5-turbo", "one-api", late) == "gpt-35-turbo"
    assert clouds.deployment("gpt-4.1", "new-api", early) == "gpt-41"
    assert clouds.deployment("gpt-4.1", "new-api", late) == "gpt-4.1"
    haiku = "anthropic.claude-3-haiku-20240307-v1:0"
    assert clouds.bedrock_model("claude-3-haiku-20240307", "us-east-1", "one-api") == haiku
    assert clouds.bedrock_model("claude-3-haiku-20240307", "eu-west-1", "new-api") == f"eu.{haiku}"
    assert clouds.bedrock_model("claude-3-haiku-20240307", "ca-central-1", "new-api") == haiku
    assert clouds.bedrock_model("nova-pro-v1:0", "us-west-2", "new-api") == "us.amazon.nova-pro-v1:0"
    assert clouds.bedrock_model("my.profile", "us-west-2", "new-api") == "my.profile"
    keys = clouds.bedrock(("AKIA0000000000000000|secretsecretsecret|us-east-1",), {}, False).keys
    assert keys == ("AKIA0000000000000000:secretsecretsecret",)


def test_overrides_become_rules_that_are_understood_here() -> None:
    operations = {
        "operations": [
            {"mode": "set", "path": "temperature", "value": 0.2},
            {"mode": "set", "path": "top_p", "value": 0.9, "keep_origin": True},
            {"mode": "delete", "path": "stop"},
            {"mode": "move", "from": "max_tokens", "to": "max_completion_tokens"},
            {"mode": "set_header", "path": "X-Title", "value": "Acme"},
            {"mode": "set", "path": "seed", "value": 1, "conditions": [{"path": "model"}]},
            {"mode": "regex_replace", "path": "user", "from": "a", "to": "b"},
        ]
    }
    rules, remarks = rules_of(json.dumps(operations), '{"X-Client": "acme", "X-Key": "{api_key}"}')
    assert [rule["do"] for rule in rules] == ["set", "default", "remove", "rename", "set_header", "set_header"]
    assert len(remarks) == 3 and read_overrides(list(rules)) is not None
    assert rules_of('{"temperature": 0}', "")[0] == ({"do": "set", "path": "temperature", "value": 0},)
    assert rules_of("no json", "")[1]


@pytest.mark.django_db
@pytest.mark.shared
def test_channels_come_with_their_keys_models_and_limits(unpacked: Callable[[str], Old]) -> None:
    old = unpacked("new-api")
    report = old.imported()
    assert any("X-Relay-Client" in line.text for line in report.lines)

    def channel(source_id: int) -> Channel:
        row = ImportedRow.objects.get(kind="channel", source_id=str(source_id))
        return Channel.objects.get(pk=row.object_id)

    several = channel(9)
    assert several.key_strategy == "random" and channel(10).key_strategy == "round_robin"
    assert [key.auto_disabled for key in several.keys.order_by("pk")] == ["", "key_dead", "", ""]
    assert [key.enabled for key in channel(10).keys.order_by("pk")] == [True, False, True]
    assert "sk-FAKEmk-r-1" in [key.secret_for(several) for key in several.keys.all()]
    assert {key.auto_disabled for key in channel(13).keys.all()} == {"key_dead"} and channel(13).enabled
    assert not channel(12).enabled and not channel(4).enabled  # its proxy cannot be used
    relay = channel(11)
    assert relay.proxy_url == "http://10.0.0.8:3128" and relay.priority == -10 and relay.tags == "relay"
    assert relay.overrides == []  # a header of that name is one of relays, and is told
    assert relay.groups_limited and set(relay.groups.values_list("name", flat=True)) == {"vip"}
    mapped = dict(channel(8).served.values_list("model__name", "upstream_name"))
    assert mapped["内部-模型"] == "Qwen/Qwen2.5-72B-Instruct" and mapped["acme-chat-1"] == ""
    rules: Any = channel(8).overrides
    assert rules[0] == {"do": "set", "path": "temperature", "value": 0.2}
    assert channel(1).notes == "主账号 / main account" and channel(1).weight == 5
    assert not ApiKey.objects.filter(sealed__contains="FAKE").exists()
    old.imported(direct=True)
    assert channel(4).enabled
