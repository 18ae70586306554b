"""Channels at the mock of Google Cloud's Vertex AI."""

from __future__ import annotations

from typing import Any

from relay.models import Channel
from tests.support.peers.clouds import vertex
from tests.support.peers.clouds.google_tokens import TokenEndpoint
from tests.support.portal import Portal
from tests.support.upstream import Upstream


def base_url(upstream: Upstream) -> str:
    return f"{upstream.base_url}/{vertex.PLACE}"


def channel_at(live: Portal, tokens: TokenEndpoint, provider: str = "vertex", **more: Any) -> Channel:
    """A channel with an account of its own, so that no other test has a token of it."""
    key = tokens.file(private_key_id=live.name("key"), **more)
    made: Channel = live.channel(base_url(live.upstream), keys=(key,), provider=provider)
    return made
