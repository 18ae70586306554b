"""Vendors with Anthropic's API beside OpenAI's, and those whose models differ in the API that they have."""

from __future__ import annotations

from typing import Any

import pytest

from relay.gateway.snapshot.channels import _url
from relay.providers.apis import EVERYTHING, GEMINI, MESSAGES
from relay.providers.vendors import VENDORS
from tests.support.peers import messages
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, hello

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
# As the vendors document them for Claude Code, with the path that it adds.
ADDRESSES = {
    "deepseek": "https://api.deepseek.com/anthropic/v1/messages",
    "moonshot": "https://api.moonshot.ai/anthropic/v1/messages",
    "moonshot_plan": "https://api.kimi.com/coding/v1/messages",
    "zhipu": "https://open.bigmodel.cn/api/anthropic/v1/messages",
    "zhipu_plan": "https://api.z.ai/api/anthropic/v1/messages",
    "minimax": "https://api.minimax.io/anthropic/v1/messages",
    "minimax_plan": "https://api.minimax.io/anthropic/v1/messages",
    "dashscope": "https://dashscope-intl.aliyuncs.com/apps/anthropic/v1/messages",
    "dashscope_plan": "https://coding-intl.dashscope.aliyuncs.com/apps/anthropic/v1/messages",
    "xiaomi": "https://api.xiaomimimo.com/anthropic/v1/messages",
    "xiaomi_plan": "https://token-plan-sgp.xiaomimimo.com/anthropic/v1/messages",
    "volcengine_plan": "https://ark.cn-beijing.volces.com/api/coding/v1/messages",
    "tencent": "https://tokenhub-intl.tencentcloudmaas.com/v1/messages",
    "openrouter": "https://openrouter.ai/api/v1/messages",
    "opencode": "https://opencode.ai/zen/v1/messages",
    "opencode_go": "https://opencode.ai/zen/go/v1/messages",
    "fireworks": "https://api.fireworks.ai/inference/v1/messages",
    "vercel": "https://ai-gateway.vercel.sh/v1/messages",
    "meta": "https://api.meta.ai/v1/messages",
    "databricks": "https://acme.cloud.databricks.com/ai-gateway/anthropic/v1/messages",
    "snowflake": "https://acme.snowflakecomputing.com/api/v2/cortex/v1/messages",
    "ollama": "http://127.0.0.1:11434/v1/messages",
    "lmstudio": "http://127.0.0.1:1234/v1/messages",
}


@pytest.mark.parametrize("key", ADDRESSES)
def test_the_address_of_anthropics_api(key: str) -> None:
    vendor = VENDORS[key]
    base = vendor.base_url or vendor.address_form.replace("{workspace}", "acme").replace("{account}", "acme")
    assert vendor.protocol == "openai" and "messages" in vendor.apis
    assert str(_url(base, vendor.path("messages"))) == ADDRESSES[key]


def test_no_vendor_with_a_place_of_its_own_for_it_is_left_out() -> None:
    placed = {key for key, vendor in VENDORS.items() if "messages" in vendor.apis and vendor.protocol == "openai"}
    assert placed - ADDRESSES.keys() == {"vllm", "llamacpp", "relay"}, "their addresses are their operators'"


@pytest.mark.parametrize(
    ("key", "model", "api"),
    [
        ("opencode", "claude-opus-4-7", "messages"),
        ("opencode", "qwen3.6-plus", "messages"),
        ("opencode", "minimax-m2.7", "chat.completions"),
        ("opencode", "gpt-5.5", "responses"),
        ("opencode", "gemini-3.1-pro", "generate_content"),
        ("opencode", "kimi-k2.6", "chat.completions"),
        ("opencode_go", "minimax-m3", "messages"),
        ("opencode_go", "minimax-m3.1-flash", "chat.completions"),
        ("opencode_go", "qwen3.8-max", "messages"),
        ("opencode_go", "grok-4.7", "responses"),
        ("opencode_go", "glm-5.3", "chat.completions"),
        ("databricks", "databricks-claude-sonnet-5", "messages"),
        ("databricks", "databricks-gpt-oss-120b", "chat.completions"),
        ("snowflake", "claude-sonnet-5", "messages"),
        ("snowflake", "llama4-maverick", "chat.completions"),
        ("bedrock_claude", "us.anthropic.claude-opus-5-v1:0", "messages"),
        ("bedrock_claude", "amazon.nova-pro-v1:0", "converse"),
        ("bedrock_claude", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/x1", "converse"),
        ("vertex", "gemini-embedding-001", "generate_content.embed"),
        ("vertex", "text-embedding-005", "predict"),
    ],
)
def test_the_api_of_a_model_by_its_name(key: str, model: str, api: str) -> None:
    of_text = {"chat.completions", "responses", "messages", "generate_content", "converse", "predict"}
    served = VENDORS[key].served("", model)
    assert api in served
    assert (served & of_text) - {api} <= (GEMINI if api in GEMINI else {"responses"} if key == "databricks" else set())


def test_who_chooses_an_api_for_text_gets_no_other() -> None:
    for choice in ("chat", "responses", "both"):
        assert not VENDORS["deepseek"].served(choice) & (MESSAGES | GEMINI)
        assert VENDORS["opencode"].served(choice, "claude-x") == VENDORS["opencode"].served(choice)
    assert VENDORS["openai"].served("", "gpt-6") == VENDORS["openai"].apis <= EVERYTHING


def test_a_client_of_anthropics_api_is_served_in_it_and_one_of_chat_in_its_own(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if call.path == "/anthropic/v1/messages":
            await messages.saying()(call)
        else:
            await hello(call)

    model = live.model(script, provider="deepseek")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    content = [{"type": "text", "text": "Look."}, image]
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    answer = server.post(live.token(), {**body, "metadata": {"user_id": "u1"}}, path="/v1/messages")
    assert answer.status_code == 200, answer.text
    sent = live.upstream.last(model)
    assert sent.path == "/anthropic/v1/messages" and sent.json["metadata"] == {"user_id": "u1"}
    note = {"type": "text", "text": "[An image, which this model cannot see.]"}
    assert sent.json["messages"][0]["content"] == [content[0], note], "it has no eyes, and refuses the request"
    assert "metadata" not in answer.headers.get("x-airelays-ignored-parameters", "")
    assert server.post(live.token(), ask(model)).status_code == 200
    assert live.upstream.last(model).path == "/v1/chat/completions"


def test_models_of_one_channel_are_asked_in_the_api_that_each_has(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.headers["anthropic-version"] and call.headers["x-api-key"] == "sk-of-zen"
        assert call.headers["authorization"] == "Bearer sk-of-zen"
        await (messages.saying() if call.path == "/v1/messages" else hello)(call)

    channel = live.channel(provider="opencode", keys=("sk-of-zen",))
    token = live.token()
    for name, path in (("claude-opus-4-7", "/v1/messages"), ("glm-5", "/v1/chat/completions")):
        model = live.model(script, channels=[channel], upstream_name=name)
        answer = server.post(token, ask(model))
        assert answer.status_code == 200, answer.text
        assert live.upstream.last(name).path == path


def test_a_conversation_is_named_to_a_vendor_that_wants_to_know_it(live: Portal, server: Server) -> None:
    model, one, other = live.model(provider="opencode_go"), live.token(), live.token()

    def named(token: str, conversation: str) -> str:
        assert server.post(token, ask(model, prompt_cache_key=conversation)).status_code == 200
        found: str = live.upstream.last(model).headers["x-opencode-session"]
        return found

    first = named(one, "c1")
    assert len(first) == 32 and first == named(one, "c1"), "the same conversation"
    assert first not in {named(one, "c2"), named(other, "c1")}


def test_a_client_app_is_named_only_to_a_vendor_that_serves_certain_ones(live: Portal, server: Server) -> None:
    for provider, told in (("moonshot_plan", "claude-cli/2.9.1 (external, cli)"), ("moonshot", None)):
        model = live.model(provider=provider)
        server.post(live.token(), ask(model), headers={"user-agent": "claude-cli/2.9.1 (external, cli)"})
        agent = live.upstream.last(model).headers.get("user-agent", "")
        assert (agent == told) if told else "claude-cli" not in agent
