"""What the administration shows of a request is what the channel's upstream is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.endpoints.preview import STREAMED, preview
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.channels import read_withdrawn
from relay.models import AllowedUpstream
from tests.endpoints.overrides.anything import anything
from tests.endpoints.text.responses_upstream import Upstream as Responses
from tests.support.peers import gemini, messages
from tests.support.peers.clouds import bedrock, converse
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

RULES: list[dict[str, Any]] = [
    {"do": "remove", "path": "temperature"},
    {"do": "set", "path": "taskType", "value": "CLUSTERING", "apis": ["embed_content"]},
    {"do": "set_header", "header": "X-Title", "value": "Acme"},
]
SET: dict[str, tuple[str, Any]] = {  # by the upstream, which refuses what it does not know
    "gemini": ("generationConfig.topK", 4),
    "bedrock": ("top_k", 4),
    "converse": ("requestMetadata", {"team": "a"}),
    "vectors": ("outputDimensionality", 8),
}
SAID = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0.5, "max_tokens": 20}
PATHS = {
    "chat.completions": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "images.generations": "/v1/images/generations",
    "rerank": "/v1/rerank",
}
BODIES: dict[str, dict[str, Any]] = {
    "chat.completions": SAID,
    "responses": {"input": "Say hello.", "temperature": 0.5},
    "messages": SAID,
    "generate_content": {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"temperature": 0.5}},
    "completions": {"prompt": "x"},
    "embeddings": {"input": "x", "encoding_format": "float"},
    "images.generations": {"prompt": "x"},
    "rerank": {"query": "x", "documents": ["a"]},
}
ACCOUNT = bedrock.Account()
CLAUDE = {"provider": "bedrock_claude", "keys": (ACCOUNT.api_key,)}
TEXT = ("chat.completions", "responses", "messages", "generate_content")


async def vectors(call: Call) -> None:
    await call.reply(200, {"embeddings": [{"values": [0.5]}]})


UPSTREAMS: dict[str, tuple[Any, dict[str, Any], str, tuple[str, ...]]] = {
    "chat": (anything, {"text_api": "chat"}, "", (*TEXT, "completions", "embeddings", "images.generations")),
    "responses": (Responses(), {"text_api": "responses"}, "", TEXT),
    "anthropic": (messages.saying(messages.TEXT), {"provider": "anthropic"}, "", TEXT),
    "gemini": (gemini.saying(gemini.TEXT), {"provider": "gemini"}, "gemini-3-up", TEXT),
    "vectors": (vectors, {"provider": "gemini"}, "vectors-up", ("embeddings",)),
    "bedrock": (bedrock.saying(ACCOUNT, messages.TEXT), CLAUDE, "us.anthropic.claude-up-v1:0", TEXT),
    "converse": (converse.saying(ACCOUNT, converse.TEXT), CLAUDE, "us.amazon.nova-up-v1:0", TEXT),
    "relay": (anything, {"provider": "relay"}, "", ("chat.completions", "rerank")),
}
CASES = [
    (upstream, api, streamed)
    for upstream, (_script, _options, _name, apis) in UPSTREAMS.items()
    for api in apis
    for streamed in ((False, True) if api in {*TEXT, "completions"} else (False,))
]
OF_THE_CONNECTION = {
    "host", "content-length", "accept-encoding", "connection", "accept", "authorization", "x-api-key", "x-goog-api-key",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "api", "streamed"), CASES)
def test_a_preview_is_what_is_sent(live: Portal, server: Server, kind: str, api: str, streamed: bool) -> None:
    script, options, name, _apis = UPSTREAMS[kind]
    base = live.upstream.base_url.removesuffix("/v1") if options is CLAUDE else None
    path, value = SET.get(kind, ("seed", 3))
    rules = [*RULES, {"do": "set", "path": path, "value": value}]
    channel = live.channel(base, overrides=rules, **options)
    model = live.model(script, channels=[channel], upstream_name=name)
    body = {"model": model, **BODIES[api], **({"stream": True} if streamed and api != "generate_content" else {})}
    method = "streamGenerateContent?alt=sse" if streamed else "generateContent"
    seen = len(live.upstream.calls)
    answer = server.post(live.token(), body, path=PATHS.get(api, f"/v1beta/models/{model}:{method}"))
    assert answer.status_code == 200, answer.text
    sent = [call for call in live.upstream.calls[seen:] if call.body][-1]
    view = read_withdrawn(channel.pk, 0, AllowedUpstream.allowances())
    assert view is not None and view.overrides is not None
    asked = STREAMED.get(api, api) if streamed else api
    view = view.of_model(name or model)
    _, shown = preview(view, view.overrides, asked, model, name or model, json.dumps(body).encode())
    assert shown.url.endswith(sent.path) and shown.body == sent.json
    headers = {key.lower(): value for key, value in shown.headers.items() if key.lower() not in OF_THE_CONNECTION}
    told = {key: value for key, value in sent.headers.items() if key not in OF_THE_CONNECTION}
    if hops.HEADER in told:  # another process has another secret in this test
        told[hops.HEADER] = hops.own_id()
    assert headers == told
