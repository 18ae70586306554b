"""The providers of LiteLLM and our vendors, and how addresses and keys are written for either. Pure.

Source: LiteLLM 1.108's get_llm_provider_logic and its pages on providers, read in November 2026.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from portal.lib import net
from relay.importers.reading.row import text_of
from relay.providers.vendors import VENDORS

# A provider of theirs, and the vendor here. Where the vendor's own address has a version path, theirs may lack it.
_VENDORS: Final[Mapping[str, str]] = {
    **{name: name for name in (
        "anthropic", "baseten", "cerebras", "chutes", "cohere", "dashscope", "databricks", "deepinfra", "deepseek",
        "gemini", "groq", "huggingface", "hyperbolic", "inception", "meta", "minimax", "mistral", "modelscope",
        "moonshot", "nebius", "novita", "nscale", "openai", "opencode_go", "openrouter", "ovhcloud", "perplexity",
        "poe", "sambanova", "scaleway", "snowflake", "tencent", "vllm", "volcengine", "voyage", "wandb", "xai",
    )},
    "azure": "azure", "azure_ai": "azure", "azure_text": "azure",
    "bedrock": "bedrock_claude", "bedrock_converse": "bedrock_claude",
    "codestral": "mistral", "cohere_chat": "cohere", "custom_openai": "openai", "fireworks_ai": "fireworks",
    "friendliai": "friendli", "hosted_vllm": "vllm", "jina_ai": "jina", "litellm_proxy": "relay",
    "llamafile": "llamacpp", "lm_studio": "lmstudio", "nvidia_nim": "nvidia", "ollama": "ollama",
    "ollama_chat": "ollama", "openai_like": "openai", "qwencloud": "dashscope", "text-completion-codestral": "mistral",
    "text-completion-openai": "openai", "together_ai": "together", "vercel_ai_gateway": "vercel",
    "vertex_ai": "vertex", "vertex_ai_beta": "vertex", "xiaomi_mimo": "xiaomi", "zai": "zhipu",
}  # fmt: skip
# Of providers whose address is not that of the vendor here.
_ADDRESSES: Final[Mapping[str, str]] = {
    "codestral": "https://codestral.mistral.ai/v1",
    "text-completion-codestral": "https://codestral.mistral.ai/v1",
    "zai": "https://api.z.ai/api/paas/v4",
}
# Beginnings of names that are asked for without a provider.
_GUESSES: Final = (
    ("openai", ("gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-", "dall-e", "whisper-", "tts-", "omni-")),
    ("anthropic", ("claude-",)),
    ("cohere", ("command", "embed-", "rerank-")),
    ("vertex_ai", ("gemini-",)),
)
# Parts of names that say how a model is asked, not which.
_MANNERS: Final[Mapping[str, tuple[str, ...]]] = {
    "azure": ("responses/", "o_series/", "gpt5_series/"),
    "bedrock": ("converse/", "converse_like/", "invoke/"),
    "openai": ("responses/", "chat/"),
    "vertex_ai": ("gemini/", "openai/", "chat/"),
}


class Unsupported(Exception):
    """There is no counterpart here. The message is one sentence, without secrets."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is asked: the vendor here, its address, the key as the vendor takes it, the model's name there."""

    provider: str  # theirs
    vendor: str
    base_url: str  # empty: the vendor's own
    secret: str
    upstream: str
    text_api: str = ""
    note: str = ""  # one sentence about what changes


def split_model(model: str, given: str = "") -> tuple[str, str]:
    """The provider that a model is of, and its name there. `given`: the provider where it was said apart. Raises
    Unsupported.
    """
    before, slash, rest = model.partition("/")
    if given:
        return given, rest if slash and before == given else model
    if slash and before in _VENDORS:
        return before, rest
    for provider, beginnings in _GUESSES:
        if model.startswith(beginnings):
            return provider, model
    raise Unsupported(
        f"This portal knows no provider “{before[:40]}”." if slash else "It does not say which provider it is of."
    )


def place(params: Mapping[str, Any]) -> Place:
    """Where the parameters of a deployment say that it is. Raises Unsupported."""
    provider, name = split_model(text_of(params.get("model")), text_of(params.get("custom_llm_provider")))
    vendor = _VENDORS.get(provider)
    if vendor is None:
        raise Unsupported(f"This portal knows no provider “{provider[:40]}”.")
    family = next((one for one in _MANNERS if provider.startswith(one)), "")
    for manner in _MANNERS.get(family, ()):
        name = name.removeprefix(manner)
    given = text_of(params.get("api_base")) or text_of(params.get("base_url"))
    address = (given or _ADDRESSES.get(provider, "")).rstrip("/")
    if family == "azure":
        return _azure(provider, name, address, params)
    if family == "bedrock":
        return _bedrock(provider, name, address, params)
    if family == "vertex_ai":
        return _vertex(provider, name, params)
    secret, base_url = text_of(params.get("api_key")), _base_url(vendor, address)
    asks_responses = text_of(params.get("model")).startswith("openai/responses/")
    foreign = vendor == "openai" and base_url and not _is_of(base_url, "openai.com")
    text_api = "responses" if asks_responses else "chat" if foreign else ""
    return Place(provider, vendor, base_url, secret, name, text_api)


def _base_url(vendor: str, address: str) -> str:
    """An address as channels have it: with the version path; empty where it is the vendor's own."""
    own = VENDORS[vendor].base_url.rstrip("/")
    if not address or address == own:
        return ""
    path = urlsplit(own).path
    bare = bool(own) and net.origin(address) == net.origin(own) and not urlsplit(address).path
    if bare or vendor in ("anthropic", "ollama"):
        for end in ("/messages", "/chat/completions"):
            address = address.removesuffix(end)
        if not address.endswith(path):
            address += path
    return "" if address == own else address


def _is_of(address: str, domain: str) -> bool:
    host = (urlsplit(address).hostname or "").lower()
    return host == domain or host.endswith("." + domain)


def _host(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _azure(provider: str, name: str, address: str, params: Mapping[str, Any]) -> Place:
    if not address:
        raise Unsupported("It has no address.")
    secret = text_of(params.get("api_key"))
    if not secret and (params.get("azure_ad_token") or params.get("client_secret") or params.get("tenant_id")):
        raise Unsupported("It signs in with Microsoft Entra ID; channels of Azure here take an API key.")
    note = "It is asked by Azure's v1 API, whatever api_version was set."
    return Place(provider, "azure", _host(address) + "/openai/v1", secret, name, note=note)


def _bedrock(provider: str, name: str, address: str, params: Mapping[str, Any]) -> Place:
    region = text_of(params.get("aws_region_name"))
    before, slash, rest = name.partition("/")
    if slash and before.count("-") == 2 and "." not in before:  # us-east-1/anthropic.claude-…
        region, name = before, rest
    key_id, secret = text_of(params.get("aws_access_key_id")), text_of(params.get("aws_secret_access_key"))
    session = text_of(params.get("aws_session_token"))
    if params.get("aws_role_name") or params.get("aws_profile_name"):
        raise Unsupported("It signs in by a role or a profile of AWS; channels here take an access key or an API key.")
    if not region and not address:
        raise Unsupported("It names no region of AWS.")
    given = f"{key_id}:{secret}" + (f":{session}" if session else "") if key_id and secret else ""
    if given and region:
        given += f"@{region}"
    base_url = _host(address) if address else f"https://bedrock-runtime.{region}.amazonaws.com"
    return Place(provider, "bedrock_claude", base_url, given or text_of(params.get("api_key")), name)


def _vertex(provider: str, name: str, params: Mapping[str, Any]) -> Place:
    project, region = text_of(params.get("vertex_project")), text_of(params.get("vertex_location")) or "us-central1"
    account = params.get("vertex_credentials")
    secret = json.dumps(account) if isinstance(account, dict) else text_of(account)
    if secret and not secret.lstrip().startswith("{"):
        raise Unsupported("Its service account is in a file of that machine: paste its JSON into a channel here.")
    if not project and secret:
        try:
            project = text_of(json.loads(secret).get("project_id"))
        except (ValueError, AttributeError):
            project = ""
    if not project:
        raise Unsupported("It names no project of Google Cloud.")
    host = "aiplatform.googleapis.com" if region == "global" else f"{region}-aiplatform.googleapis.com"
    vendor = "vertex_claude" if "claude" in name else "vertex"
    return Place(provider, vendor, f"https://{host}/v1/projects/{project}/locations/{region}", secret, name)
