"""Channels to clouds, whose addresses and keys the programs write in their own ways: Azure, AWS, Vertex AI, Cloudflare.
Pure.

Source: one-api 0.6.11-preview.7 (MIT) and new-api 1.0.0-rc.24, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from relay.importers.reading.row import json_of, object_of, text_of

# From this day on new-api leaves the dots in names of deployments.
_DOTS_STAY: Final = datetime(2025, 5, 10, tzinfo=UTC)
_BEDROCK: Final[Mapping[str, str]] = {
    "claude-instant-1.2": "anthropic.claude-instant-v1",
    "claude-2.0": "anthropic.claude-v2",
    "claude-2.1": "anthropic.claude-v2:1",
    "claude-3-5-sonnet-20241022": "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "claude-3-5-sonnet-latest": "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "claude-opus-4-6": "anthropic.claude-opus-4-6-v1",
    "llama3-8b-8192": "meta.llama3-8b-instruct-v1:0",
    "llama3-70b-8192": "meta.llama3-70b-instruct-v1:0",
}
# Models of Bedrock that regions share in profiles, by what their names begin with, and the parts of the world.
_EVERYWHERE: Final = ("us", "eu", "ap")
_PROFILES: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic.claude-3-sonnet-20240229": _EVERYWHERE,
    "anthropic.claude-3-opus-20240229": ("us",),
    "anthropic.claude-3-haiku-20240307": _EVERYWHERE,
    "anthropic.claude-3-5-sonnet-20240620": _EVERYWHERE,
    "anthropic.claude-3-5-sonnet-20241022": ("us", "ap"),
    "anthropic.claude-3-5-haiku-20241022": ("us",),
    "anthropic.claude-3-7-sonnet-20250219": _EVERYWHERE,
    "anthropic.claude-sonnet-4-20250514": _EVERYWHERE,
    "anthropic.claude-opus-4-20250514": ("us",),
    "anthropic.claude-opus-4-1-20250805": ("us",),
    "anthropic.claude-sonnet-4": _EVERYWHERE,
    "anthropic.claude-sonnet-5": _EVERYWHERE,
    "anthropic.claude-opus-4": _EVERYWHERE,
    "anthropic.claude-haiku-4": _EVERYWHERE,
    "amazon.nova-": ("us", "eu"),
}
_WORLDS: Final = {"us": "us", "eu": "eu", "ap": "apac"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a channel is, and its keys as the vendor here takes them."""

    base_url: str
    keys: tuple[str, ...]
    left_out: str = ""
    provider: str = ""  # another vendor than that of the type; empty: the same
    region: str = ""


def azure(base_url: str, keys: tuple[str, ...]) -> Place:
    """A resource of Azure, whose v1 API needs no version of it in the address."""
    url = base_url.rstrip("/")
    return Place(url if "/openai" in url else f"{url}/openai/v1", keys)


def deployment(model: str, program: str, made_at: datetime | None) -> str:
    """The name of the deployment that a model is asked for by: both programs leave dots out, new-api once did."""
    if program == "new-api" and made_at is not None and made_at >= _DOTS_STAY:
        return model
    return model.replace(".", "")


def bedrock(keys: tuple[str, ...], config: Mapping[str, Any], by_api_key: bool) -> Place:
    """`AK|SK|Region` a key, or `ApiKey|Region`; one-api has the same in its configuration."""
    found, regions = [], set()
    if config.get("ak") and config.get("sk"):
        keys = (f"{text_of(config['ak'])}|{text_of(config['sk'])}|{text_of(config.get('region'))}",)
    for key in keys:
        parts = [part.strip() for part in key.split("|")]
        region = parts[-1] if len(parts) > 1 else text_of(config.get("region"))
        if by_api_key or len(parts) == 2:
            found.append(parts[0])
        elif len(parts) == 3:
            found.append(f"{parts[0]}:{parts[1]}")
        else:
            return Place("", (), "Its key is not of the form access key|secret key|region.")
        regions.add(region)
    if len(regions) != 1 or not all(regions):
        why = "Its keys are of several regions: each needs a channel of its own." if regions else "It has no key."
        return Place("", (), why if len(regions) > 1 or not regions else "The region of its key is missing.")
    region = regions.pop()
    return Place(f"https://bedrock-runtime.{region}.amazonaws.com", tuple(found), region=region)


def bedrock_model(model: str, region: str, program: str) -> str:
    """What Bedrock calls a model: by its own name, or by that of the profile of a part of the world."""
    known = _BEDROCK.get(model)
    if known is None and model.startswith("nova-"):
        known = f"amazon.{model}"
    if known is None and model.startswith("claude-"):
        dated = model[-8:].isdigit()
        known = f"anthropic.{model}-v1:0" if dated else f"anthropic.{model}"
    if known is None:
        return model
    if program == "one-api":
        return known
    world = region[:2]
    shared = next((worlds for start, worlds in _PROFILES.items() if known.startswith(start)), ())
    return f"{_WORLDS[world]}.{known}" if world in shared else known


def vertex(keys: tuple[str, ...], config: Mapping[str, Any], other: object, by_api_key: bool, claude: bool) -> Place:
    """A project of Google Cloud: the files of service accounts, and the region of the configuration or of `other`."""
    if by_api_key:
        return Place("", (), "API keys of Vertex AI are not taken here: use the file of a service account.")
    files = _service_accounts(keys, config)
    projects = {text_of(object_of(file).get("project_id")) for file in files}
    if config.get("vertex_ai_project_id"):
        projects = {text_of(config["vertex_ai_project_id"])}
    if len(projects) != 1 or not all(projects):
        why = "Its keys are of several projects: each needs a channel of its own."
        return Place("", (), why if len(projects) > 1 else "The file of its service account is missing or not whole.")
    regions = json_of(other)
    region = text_of(config.get("region"))
    if isinstance(regions, dict):
        if len(set(map(str, regions.values()))) > 1:
            return Place("", (), "Its models are in several regions: each needs a channel of its own.")
        region = next(iter(map(str, regions.values())), region)
    elif not region:
        region = text_of(other)
    region = region or "global"
    host = "aiplatform.googleapis.com" if region == "global" else f"{region}-aiplatform.googleapis.com"
    base_url = f"https://{host}/v1/projects/{projects.pop()}/locations/{region}"
    return Place(base_url, files, provider="vertex_claude" if claude else "", region=region)


def _service_accounts(keys: tuple[str, ...], config: Mapping[str, Any]) -> tuple[str, ...]:
    adc = text_of(config.get("vertex_ai_adc"))
    return (adc,) if adc else tuple(key for key in keys if object_of(key))


def cloudflare(base_url: str, keys: tuple[str, ...], account: str) -> Place:
    """Workers AI of an account, which is no part of the address there."""
    if not account:
        return Place("", (), "The id of its account is missing.")
    host = base_url.rstrip("/") or "https://api.cloudflare.com"
    return Place(f"{host}/client/v4/accounts/{account}/ai/v1", keys)
